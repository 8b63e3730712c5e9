//! PCRs of a TPM, predicted: PCR 0 to 15 in the SHA-384 bank, for OvmfPkgX64 firmware under QEMU.
//!
//! The events are those of [`crate::tdx`], with what only a TPM has: the firmware's own volumes in PCR 0, and a separator in
//! each of PCR 0 to 6. A TPM that QEMU emulates belongs to the host, so these values prove the prediction (firmware wrote a
//! log that we did not), never a guest: they are no reference values.

use alloc::vec::Vec;

use crate::digest::Digest384;
use crate::eventlog::EventType;
use crate::tdx::event::{action, separator};
use crate::tdx::image::{BootEvents, CALLING};
use crate::tdx::platform::Common;
use crate::tdx::{Input, Pcr, PredictedEvent};

/// What PCR 0 depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareCode<'a> {
    /// PcdFirmwareVersionString, as in `BiosInformation`.
    pub version: &'a str,
    /// SHA-384 of the volume of PEI modules, unpacked ([`crate::firmware::volumes`]).
    pub pei_volume: Digest384,
    /// SHA-384 of the volume of DXE drivers.
    pub dxe_volume: Digest384,
}

/// All events of a boot in the order of the log: firmware, platform, what is booted. Without `code`, those of the firmware itself are left
/// out: PCR 0 is then not told.
pub fn events(code: Option<&FirmwareCode<'_>>, platform: &Common, boot: &BootEvents) -> Vec<PredictedEvent<Pcr>> {
    let mut events = code.map(FirmwareCode::events).unwrap_or_default();
    events.extend(platform.before_boot());
    let verified = platform.verified();
    events.extend(verified.filter(|_| platform.disk.is_none()));
    events.extend(&boot.before);
    events.extend(platform.ready_to_boot());
    events.push(action(Pcr(4), CALLING));
    events.extend((0..=6).map(|number| separator(Pcr(number))));
    events.extend(platform.smbios_tables().filter(|_| platform.smbios_last));
    // What is on a disk is verified once it is found.
    let is_image = |event: &PredictedEvent<Pcr>| event.event_type == EventType::EV_EFI_BOOT_SERVICES_APPLICATION;
    let image = boot.after.iter().position(is_image).unwrap_or_default();
    let (found, started) = boot.after.split_at_checked(image).unwrap_or_default();
    events.extend(found);
    events.extend(verified.filter(|_| platform.disk.is_some()));
    events.extend(started);
    events
}

/// PCR 0 to 15 after these events; all start at zero.
pub fn pcrs<'a>(events: impl IntoIterator<Item = &'a PredictedEvent<Pcr>>) -> [Digest384; 16] {
    let mut pcrs = [Digest384::ZERO; 16];
    for event in events {
        if let Some(pcr) = pcrs.get_mut(usize::from(event.register.0)) {
            *pcr = pcr.extended(&event.digest);
        }
    }
    pcrs
}

impl FirmwareCode<'_> {
    fn events(&self) -> Vec<PredictedEvent<Pcr>> {
        let event = |event_type, input, digest| PredictedEvent { register: Pcr(0), event_type, input, digest };
        let version: Vec<u8> = self.version.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let blob = EventType::EV_EFI_PLATFORM_FIRMWARE_BLOB;
        Vec::from([
            event(EventType::EV_S_CRTM_VERSION, Input::FirmwareVersion, Digest384::of(&version)),
            event(blob, Input::FirmwareVolume("PEIFV"), self.pei_volume),
            event(blob, Input::FirmwareVolume("DXEFV"), self.dxe_volume),
        ])
    }
}
