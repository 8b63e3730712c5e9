//! What firmware measures of the platform (edk2 `OvmfPkg/Library/PeilessStartupLib`, `OvmfPkg/Library/AcpiPlatformLib`,
//! `OvmfPkg/Tcg/TdTcg2Dxe`, `SecurityPkg/Tcg`), in its order: RTMR0 of a direct kernel boot.
//!
//! What a TPM's log has of it too is in [`Common`]; the events of TDX alone are the TD HOB, the variable store as a whole and
//! the settings from QEMU.

use alloc::vec::Vec;

use super::event::{Input, Pcr, PredictedEvent, Rtmr, separator};
use super::profile::{Profile, UnknownProfile};
use super::td_hob::{self, TdHobError};
use crate::digest::Digest384;
use crate::eventlog::EventType;
use crate::firmware::{Firmware, FirmwareError, TdxSectionType};
use crate::fw_cfg::{FwCfg, FwCfgError};
use crate::smbios::{self, BiosInformation, SmbiosError};
use crate::uefi::load_option::{PciSlot, firmware_application, virtio_disk};
use crate::uefi::{Authority, SecureBootVariables, VariableStore, VarstoreError};

/// Why the events cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// The firmware's version is not known.
    #[error(transparent)]
    Profile(#[from] UnknownProfile),
    /// The firmware cannot be read.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The variable store cannot be read.
    #[error(transparent)]
    Varstore(#[from] VarstoreError),
    /// The TD HOB cannot be told.
    #[error(transparent)]
    TdHob(#[from] TdHobError),
    /// What QEMU gives the firmware is incomplete, or not as it was ever seen.
    #[error(transparent)]
    FwCfg(#[from] FwCfgError),
    /// QEMU's SMBIOS tables cannot be read.
    #[error(transparent)]
    Smbios(#[from] SmbiosError),
    /// The firmware measures SMBIOS tables, and what it adds to them is not known.
    #[error("what this firmware says of itself in SMBIOS tables is not known: its RTMR0 is not predicted")]
    NoBiosInformation,
    /// The firmware measures more than ACPI tables of what QEMU gives it.
    #[error("{0} firmware measures settings and SMBIOS tables too: they are needed to predict RTMR0")]
    NeedsFwCfg(&'static str),
    /// The firmware has no variable store.
    #[error("firmware has no CFV section")]
    NoVariableStore,
    /// No disk boot of such firmware was seen.
    #[error("which boot entries {0} firmware makes where it starts a disk is not known: its RTMR0 is not predicted")]
    DiskBoot(&'static str),
    /// QEMU has firmware start another disk.
    #[error("QEMU has firmware start another disk: its RTMR0 is not predicted")]
    OtherDisk,
    /// Keys are enrolled, and firmware measures what it verifies an image by: without the image that is not known.
    #[error("firmware has Secure Boot keys enrolled: what it measures depends on the image that it starts")]
    KeysEnrolled,
    /// Keys are enrolled, and Secure Boot was switched off beside them.
    #[error("firmware has Secure Boot keys enrolled and Secure Boot switched off: what it measures was never seen")]
    SwitchedOff,
}

/// The files of fw_cfg that firmware measures raw, before it relocates them: by hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcpiDigests {
    /// SHA-384 of `etc/table-loader`.
    pub loader: Digest384,
    /// SHA-384 of `etc/acpi/rsdp`.
    pub rsdp: Digest384,
    /// SHA-384 of `etc/acpi/tables`.
    pub tables: Digest384,
    /// SHA-384 of `etc/tpm/log`, which QEMU offers where it has a TPM.
    pub tpm_log: Option<Digest384>,
}

impl AcpiDigests {
    /// Of the files as QEMU gives them to firmware, padding included.
    pub fn of(loader: &[u8], rsdp: &[u8], tables: &[u8]) -> Self {
        Self { loader: Digest384::of(loader), rsdp: Digest384::of(rsdp), tables: Digest384::of(tables), tpm_log: None }
    }
}

/// What is known of a firmware image and cannot be read from it: `firmware/pins.toml` has it by SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareFacts<'a> {
    /// What this version and build does.
    pub profile: &'static Profile,
    /// Whether Secure Boot is built in. Keys are looked for in the variable store.
    pub has_secure_boot: bool,
    /// What it says of itself in SMBIOS tables; `None` where that is not known.
    pub bios: Option<BiosInformation<'a>>,
}

impl FirmwareFacts<'_> {
    /// The variables by which it verifies what it starts; `None` where it verifies nothing: no Secure Boot is built in, or no keys are
    /// enrolled.
    pub fn verifies_by(&self, store: &VariableStore<'_>) -> Result<Option<SecureBootVariables>, PlatformError> {
        let has_keys = self.has_secure_boot && store.has_keys();
        if has_keys && store.is_switched_off() {
            return Err(PlatformError::SwitchedOff);
        }
        Ok(has_keys.then(|| SecureBootVariables::of_store(store)))
    }
}

/// What firmware measures of the platform both for a TPM and for TDX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// What this version of the firmware does.
    pub profile: Profile,
    /// The variables of Secure Boot.
    pub variables: SecureBootVariables,
    /// The ACPI tables.
    pub acpi: AcpiDigests,
    /// The digest of the event "SMBIOS"; `None` where the firmware measures none.
    pub smbios: Option<Digest384>,
    /// Whether that event comes after the separators, and not before the boot entries.
    pub smbios_last: bool,
    /// What the image is verified by; `None` where no keys are enrolled.
    pub authority: Option<Authority>,
    /// The disk that firmware starts; `None` where QEMU gives it a kernel.
    pub disk: Option<StartedDisk>,
}

/// A virtio disk that firmware starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartedDisk {
    /// Its place.
    pub slot: PciSlot,
    /// Whether it alone is in QEMU's boot order. Firmware then puts its entry first, and keeps none of other disks (edk2
    /// `OvmfPkg/Library/QemuBootOrderLib`); without an order, each disk has one.
    pub is_in_boot_order: bool,
}

impl Common {
    /// From what QEMU gives the firmware, the store that its variables start from, and what verifies the image that it starts: where
    /// keys are enrolled, that is needed.
    pub fn new(
        facts: &FirmwareFacts<'_>,
        store: &VariableStore<'_>,
        fw_cfg: &FwCfg,
        authority: Option<Authority>,
    ) -> Result<Self, PlatformError> {
        let has_keys = facts.verifies_by(store)?.is_some();
        if has_keys && authority.is_none() {
            return Err(PlatformError::KeysEnrolled);
        }
        let smbios = || {
            let bios = facts.bios.as_ref().ok_or(PlatformError::NoBiosInformation)?;
            let table = smbios::completed(fw_cfg.smbios_tables()?, bios)?;
            Ok::<_, PlatformError>(smbios::digest(&table)?)
        };
        Ok(Self {
            profile: *facts.profile,
            variables: if facts.has_secure_boot { SecureBootVariables::of_store(store) } else { Default::default() },
            acpi: fw_cfg.acpi()?,
            smbios: facts.profile.measures_settings.then(smbios).transpose()?,
            smbios_last: facts.has_secure_boot && facts.profile.smbios_last_with_secure_boot,
            authority: authority.filter(|_| has_keys),
            disk: None,
        })
    }

    /// Of firmware without Secure Boot that measures ACPI tables only (edk2 before 202505).
    pub fn of_tables(profile: Profile, acpi: AcpiDigests) -> Self {
        let variables = SecureBootVariables::default();
        Self { profile, variables, acpi, smbios: None, smbios_last: false, authority: None, disk: None }
    }

    /// The same platform where QEMU gives firmware no kernel, and a virtio disk in this slot: the one that its boot order names,
    /// or else the only disk.
    pub fn starting_disk(self, slot: PciSlot, fw_cfg: &FwCfg) -> Result<Self, PlatformError> {
        // Of builds with Secure Boot and SMM no disk boot was seen.
        if self.profile.disk_boot.is_none() || self.smbios_last {
            return Err(PlatformError::DiskBoot(self.profile.name));
        }
        let first = fw_cfg.boot_disk()?;
        if first.is_some_and(|first| first != slot) {
            return Err(PlatformError::OtherDisk);
        }
        Ok(Self { disk: Some(StartedDisk { slot, is_in_boot_order: first.is_some() }), ..self })
    }

    /// What is measured before anything is started.
    pub(crate) fn before_boot(&self) -> Vec<PredictedEvent<Pcr>> {
        let event = |pcr, event_type, input, digest| PredictedEvent { register: Pcr(pcr), event_type, input, digest };
        let variable =
            |(name, digest)| event(7, EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, Input::Variable(name), digest);
        let mut events: Vec<_> = self.variables.events().into_iter().map(variable).collect();
        events.push(separator(Pcr(7)));
        let acpi = [
            Some((Input::AcpiLoader, self.acpi.loader)),
            Some((Input::AcpiRsdp, self.acpi.rsdp)),
            self.acpi.tpm_log.map(|digest| (Input::TpmLogArea, digest)),
            Some((Input::AcpiTables, self.acpi.tables)),
        ];
        let acpi = acpi.into_iter().flatten();
        events.extend(acpi.map(|(input, digest)| event(1, EventType::EV_PLATFORM_CONFIG_FLAGS, input, digest)));
        events
    }

    /// What is measured of the image before the image itself, where Secure Boot is on.
    pub(crate) fn verified(&self) -> Option<PredictedEvent<Pcr>> {
        let Authority(digest) = self.authority?;
        let event_type = EventType::EV_EFI_VARIABLE_AUTHORITY;
        Some(PredictedEvent { register: Pcr(7), event_type, input: Input::Authority, digest })
    }

    /// The SMBIOS tables, where they are measured.
    pub(crate) fn smbios_tables(&self) -> Option<PredictedEvent<Pcr>> {
        let event_type = EventType::EV_EFI_HANDOFF_TABLES;
        self.smbios.map(|digest| PredictedEvent { register: Pcr(1), event_type, input: Input::Smbios, digest })
    }

    /// What is measured when firmware is ready to boot. Of boot variables only the value is hashed.
    pub(crate) fn ready_to_boot(&self) -> Vec<PredictedEvent<Pcr>> {
        const NAMES: [&str; 4] = ["Boot0000", "Boot0001", "Boot0002", "Boot0003"];
        let event = |event_type, input, digest| PredictedEvent { register: Pcr(1), event_type, input, digest };
        let mut events: Vec<_> = self.smbios_tables().filter(|_| !self.smbios_last).into_iter().collect();
        let entries = self.boot_entries();
        // The disk has its number before its place in the order.
        let first = self.disk.filter(|disk| disk.is_in_boot_order).map(|_| self.profile.boot_entries.len());
        let others = (0..entries.len()).filter(|number| Some(*number) != first);
        let order: Vec<usize> = first.into_iter().chain(others).collect();
        let numbers = order.iter().filter_map(|number| u16::try_from(*number).ok());
        let variable =
            |name, value: &[u8]| event(EventType::EV_EFI_VARIABLE_BOOT, Input::Fixed(name), Digest384::of(value));
        events.push(variable("BootOrder", &numbers.flat_map(u16::to_le_bytes).collect::<Vec<_>>()));
        let named = order.iter().filter_map(|number| Some(variable(NAMES.get(*number)?, entries.get(*number)?)));
        events.extend(named);
        events
    }

    /// The values of `Boot0000` and what follows.
    fn boot_entries(&self) -> Vec<Vec<u8>> {
        let later = self.disk.and(self.profile.disk_boot).map_or(&[][..], |boot| boot.later_entries);
        let own = self.profile.boot_entries.iter().map(firmware_application);
        own.chain(self.disk.map(|disk| virtio_disk(disk.slot))).chain(later.iter().map(firmware_application)).collect()
    }
}

/// Everything that RTMR0 depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The event "TdxTable".
    pub td_hob: Digest384,
    /// SHA-384 of the CFV section.
    pub variable_store: Digest384,
    /// The settings that firmware takes from QEMU: names and digests; empty where the firmware does not measure them.
    pub settings: Vec<(&'static str, Digest384)>,
    /// What is not special to TDX.
    pub common: Common,
}

impl Platform {
    /// The platform of a firmware image without Secure Boot that measures ACPI tables only (edk2 before 202505), for a q35
    /// guest with `memory_mib` MiB.
    pub fn new(
        firmware: &Firmware<'_>,
        profile: &Profile,
        memory_mib: u64,
        acpi: AcpiDigests,
    ) -> Result<Self, PlatformError> {
        if profile.measures_settings {
            return Err(PlatformError::NeedsFwCfg(profile.name));
        }
        let (td_hob, cfv) = parts(firmware, memory_mib)?;
        if VariableStore::parse(cfv)?.has_keys() {
            return Err(PlatformError::KeysEnrolled);
        }
        let common = Common::of_tables(*profile, acpi);
        Ok(Self { td_hob, variable_store: Digest384::of(cfv), settings: Vec::new(), common })
    }

    /// The platform of a known firmware image, for a q35 guest with `memory_mib` MiB, from what QEMU gives it. `authority` is needed
    /// where keys are enrolled.
    pub fn of_fw_cfg(
        firmware: &Firmware<'_>,
        facts: &FirmwareFacts<'_>,
        memory_mib: u64,
        fw_cfg: &FwCfg,
        authority: Option<Authority>,
    ) -> Result<Self, PlatformError> {
        let (td_hob, cfv) = parts(firmware, memory_mib)?;
        let common = Common::new(facts, &VariableStore::parse(cfv)?, fw_cfg, authority)?;
        let settings = if facts.profile.measures_settings { fw_cfg.settings()? } else { Vec::new() };
        Ok(Self { td_hob, variable_store: Digest384::of(cfv), settings, common })
    }

    /// The events of RTMR0 in their order.
    pub fn events(&self) -> Vec<PredictedEvent> {
        let event = |event_type, input, digest| PredictedEvent { register: Rtmr::Rtmr0, event_type, input, digest };
        let mut events = Vec::from([
            event(EventType::EV_EFI_HANDOFF_TABLES2, Input::TdHob, self.td_hob),
            event(EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2, Input::VariableStore, self.variable_store),
        ]);
        let settings = self.settings.iter();
        events.extend(
            settings.map(|(name, digest)| event(EventType::EV_PLATFORM_CONFIG_FLAGS, Input::FwCfg(name), *digest)),
        );
        let common = &self.common;
        // QEMU's kernel is loaded before firmware is ready to boot, what is on a disk after.
        let (early, late) = if common.disk.is_none() { (common.verified(), None) } else { (None, common.verified()) };
        let common = common.before_boot().into_iter().chain(early).chain(common.ready_to_boot()).chain(late);
        events.extend(common.filter_map(PredictedEvent::for_tdx));
        events.extend(self.common.profile.second_separator_in_rtmr0.then(|| separator(Rtmr::Rtmr0)));
        events
    }
}

/// The digest of the TD HOB, and the variable store.
fn parts<'a>(firmware: &Firmware<'a>, memory_mib: u64) -> Result<(Digest384, &'a [u8]), PlatformError> {
    let layout = firmware.tdx_layout()?;
    let cfv = layout.section(TdxSectionType::CFV).ok_or(PlatformError::NoVariableStore)?.content(firmware.bytes());
    Ok((td_hob::digest(&layout, memory_mib)?, cfv))
}
