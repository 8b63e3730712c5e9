//! RTMR0 of a direct kernel boot: what firmware measures of the platform (edk2 `OvmfPkg/Library/PeilessStartupLib`,
//! `OvmfPkg/Library/AcpiPlatformLib`, `SecurityPkg/Tcg`), in its order.

use alloc::vec::Vec;

use super::event::{Input, PredictedEvent, Rtmr, separator};
use super::profile::{Profile, UnknownProfile};
use super::td_hob::{self, TdHobError};
use crate::digest::Digest384;
use crate::eventlog::EventType;
use crate::firmware::{Firmware, FirmwareError, TdxSectionType};
use crate::guid::Guid;
use crate::uefi::{SecureBootVariables, VariableStore, VarstoreError};

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
    /// The firmware has no variable store.
    #[error("firmware has no CFV section")]
    NoVariableStore,
    /// Keys are enrolled: what firmware measures when it verifies a kernel was never seen.
    #[error("firmware has Secure Boot keys enrolled: its RTMR0 is not predicted")]
    KeysEnrolled,
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
}

impl AcpiDigests {
    /// Of the files as QEMU gives them to firmware, padding included.
    pub fn of(loader: &[u8], rsdp: &[u8], tables: &[u8]) -> Self {
        Self { loader: Digest384::of(loader), rsdp: Digest384::of(rsdp), tables: Digest384::of(tables) }
    }
}

/// Everything that RTMR0 depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// What this version of the firmware does.
    pub profile: Profile,
    /// The event "TdxTable".
    pub td_hob: Digest384,
    /// SHA-384 of the CFV section.
    pub variable_store: Digest384,
    /// The variables of Secure Boot.
    pub variables: SecureBootVariables,
    /// The ACPI tables.
    pub acpi: AcpiDigests,
}

impl Platform {
    /// The platform of a firmware image without Secure Boot, for a q35 guest with `memory_mib` MiB.
    pub fn new(
        firmware: &Firmware<'_>,
        profile: &Profile,
        memory_mib: u64,
        acpi: AcpiDigests,
    ) -> Result<Self, PlatformError> {
        let layout = firmware.tdx_layout()?;
        let cfv = layout.section(TdxSectionType::CFV).ok_or(PlatformError::NoVariableStore)?.content(firmware.bytes());
        if VariableStore::parse(cfv)?.has_keys() {
            return Err(PlatformError::KeysEnrolled);
        }
        Ok(Self {
            profile: *profile,
            td_hob: td_hob::digest(&layout, memory_mib)?,
            variable_store: Digest384::of(cfv),
            variables: SecureBootVariables::default(),
            acpi,
        })
    }

    /// The events of RTMR0 in their order.
    pub fn events(&self) -> Vec<PredictedEvent> {
        let event = |event_type, input, digest| PredictedEvent { register: Rtmr::Rtmr0, event_type, input, digest };
        let mut events = Vec::from([
            event(EventType::EV_EFI_HANDOFF_TABLES2, Input::TdHob, self.td_hob),
            event(EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB2, Input::VariableStore, self.variable_store),
        ]);
        let variables = self.variables.events().into_iter();
        events.extend(
            variables
                .map(|(name, digest)| event(EventType::EV_EFI_VARIABLE_DRIVER_CONFIG, Input::Variable(name), digest)),
        );
        events.push(separator(Rtmr::Rtmr0));
        for (input, digest) in [
            (Input::AcpiLoader, self.acpi.loader),
            (Input::AcpiRsdp, self.acpi.rsdp),
            (Input::AcpiTables, self.acpi.tables),
        ] {
            events.push(event(EventType::EV_PLATFORM_CONFIG_FLAGS, input, digest));
        }
        // Of boot variables only the value is hashed. Entry 0 is the firmware's own setup program, and there is no other.
        let boot_order = Digest384::of(&0_u16.to_le_bytes());
        let boot_entry = Digest384::of(&ui_app_load_option());
        events.push(event(EventType::EV_EFI_VARIABLE_BOOT, Input::Fixed("BootOrder"), boot_order));
        events.push(event(EventType::EV_EFI_VARIABLE_BOOT, Input::Fixed("Boot0000"), boot_entry));
        events.extend(self.profile.second_separator_in_rtmr0.then(|| separator(Rtmr::Rtmr0)));
        events
    }
}

/// EFI_LOAD_OPTION (UEFI 2.11, 3.1.3) of the firmware's setup program: attributes, description, and the device path
/// Fv(7CB8BDC9-F8EB-4F34-AAEA-3EE4AF6516A1)/FvFile(462CAA21-7614-4503-836E-8AB6F4662331).
fn ui_app_load_option() -> Vec<u8> {
    const VOLUME: Guid = Guid::new(0x7cb8bdc9, 0xf8eb, 0x4f34, [0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1]);
    const FILE: Guid = Guid::new(0x462caa21, 0x7614, 0x4503, [0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23, 0x31]);
    /// Active, hidden, and an application.
    const ATTRIBUTES: u32 = 0x109;
    /// Media device path nodes for a firmware volume and a file in it, 20 bytes each, and the end node.
    const NODES: [[u8; 4]; 3] = [[4, 7, 20, 0], [4, 6, 20, 0], [0x7f, 0xff, 4, 0]];
    const PATH_LENGTH: u16 = 44;
    let [volume, file, end] = NODES;
    let mut option = Vec::new();
    option.extend(ATTRIBUTES.to_le_bytes());
    option.extend(PATH_LENGTH.to_le_bytes());
    option.extend("UiApp\0".encode_utf16().flat_map(u16::to_le_bytes));
    option.extend([&volume[..], &VOLUME.0, &file, &FILE.0, &end].concat());
    option
}
