//! Events as they are predicted: what is extended into which register, and which input it comes from.
//!
//! A TPM's PCRs and TDX's RTMRs are filled by the same events of the same firmware; [`Pcr::rtmr`] says which PCR stands for
//! which RTMR. What only one of them has is added where the list for it is made.

use core::fmt;

use crate::digest::Digest384;
use crate::eventlog::EventType;

/// A run-time measurement register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rtmr {
    /// Firmware configuration: PCR 1 and 7 of a TPM.
    Rtmr0,
    /// What firmware starts: PCR 2 to 6.
    Rtmr1,
    /// What the kernel's stub measures: PCR 8 to 15.
    Rtmr2,
    /// Left to the guest's software.
    Rtmr3,
}

impl Rtmr {
    /// The register as CCEL numbers it: RTMR0 is 1.
    pub fn log_index(self) -> u32 {
        match self {
            Self::Rtmr0 => 1,
            Self::Rtmr1 => 2,
            Self::Rtmr2 => 3,
            Self::Rtmr3 => 4,
        }
    }
}

impl fmt::Display for Rtmr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A PCR of a TPM, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcr(pub u8);

impl Pcr {
    /// The RTMR that stands for this PCR (UEFI 2.11, 38.4.1); `None` for PCR 0, whose content is in MRTD, and above 15.
    pub fn rtmr(self) -> Option<Rtmr> {
        match self.0 {
            1 | 7 => Some(Rtmr::Rtmr0),
            2..=6 => Some(Rtmr::Rtmr1),
            8..=15 => Some(Rtmr::Rtmr2),
            _ => None,
        }
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PCR {}", self.0)
    }
}

/// The input behind an event, so that a difference can be named by its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Memory size and the firmware's sections.
    TdHob,
    /// The variable store in the firmware image.
    VariableStore,
    /// A variable of Secure Boot, by name.
    Variable(&'static str),
    /// The entry of db that lets firmware start the image.
    Authority,
    /// No input: firmware of one version always does it.
    Fixed(&'static str),
    /// The commands by which QEMU has firmware place the ACPI tables.
    AcpiLoader,
    /// The ACPI root pointer.
    AcpiRsdp,
    /// The ACPI tables: vCPUs, devices, QEMU's version.
    AcpiTables,
    /// The area that QEMU offers for a TPM's log, by fw_cfg.
    TpmLogArea,
    /// A setting that firmware takes from QEMU by fw_cfg, by name.
    FwCfg(&'static str),
    /// The SMBIOS tables: memory size, sockets, CPU signature, QEMU's version.
    Smbios,
    /// The version that the firmware was built with.
    FirmwareVersion,
    /// A volume of the firmware, by name.
    FirmwareVolume(&'static str),
    /// The kernel file.
    Kernel,
    /// The kernel command line.
    CommandLine,
    /// The initrd.
    Initrd,
    /// A unified kernel image as a whole.
    UnifiedImage,
    /// A section of a unified kernel image, by name: first the name is measured, then the content.
    UnifiedSection(&'static str),
    /// The partition table of the disk that firmware starts from.
    PartitionTable,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TdHob => "memory size (TD HOB)",
            Self::VariableStore => "firmware variable store",
            Self::Variable(name) => return write!(f, "variable {name}"),
            Self::Authority => "entry of db that verifies the image",
            Self::Fixed(text) => text,
            Self::AcpiLoader => "ACPI table loader",
            Self::AcpiRsdp => "ACPI root pointer",
            Self::AcpiTables => "ACPI tables",
            Self::TpmLogArea => "TPM log area of QEMU",
            Self::FwCfg(name) => return write!(f, "QEMU setting {name} (fw_cfg)"),
            Self::Smbios => "SMBIOS tables",
            Self::FirmwareVersion => "firmware version",
            Self::FirmwareVolume(name) => return write!(f, "firmware volume {name}"),
            Self::Kernel => "kernel",
            Self::CommandLine => "kernel command line",
            Self::Initrd => "initrd",
            Self::UnifiedImage => "unified kernel image",
            Self::UnifiedSection(name) => return write!(f, "section {name} of the unified kernel image"),
            Self::PartitionTable => "partition table",
        })
    }
}

/// One predicted event, for an [`Rtmr`] or for a [`Pcr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredictedEvent<R = Rtmr> {
    /// The register.
    pub register: R,
    /// How the log calls it.
    pub event_type: EventType,
    /// Where it comes from.
    pub input: Input,
    /// What is extended.
    pub digest: Digest384,
}

/// RTMR0 to RTMR3 after these events.
pub fn registers<'a>(events: impl IntoIterator<Item = &'a PredictedEvent>) -> [Digest384; 4] {
    let [mut rtmr0, mut rtmr1, mut rtmr2, mut rtmr3] = [Digest384::ZERO; 4];
    for event in events {
        let register = match event.register {
            Rtmr::Rtmr0 => &mut rtmr0,
            Rtmr::Rtmr1 => &mut rtmr1,
            Rtmr::Rtmr2 => &mut rtmr2,
            Rtmr::Rtmr3 => &mut rtmr3,
        };
        *register = register.extended(&event.digest);
    }
    [rtmr0, rtmr1, rtmr2, rtmr3]
}

impl PredictedEvent<Pcr> {
    /// The same event as TDX firmware measures it; `None` where it has no RTMR for it.
    pub(super) fn for_tdx(self) -> Option<PredictedEvent> {
        let Self { register, event_type, input, digest } = self;
        register.rtmr().map(|register| PredictedEvent { register, event_type, input, digest })
    }
}

/// EV_SEPARATOR: four zero bytes.
pub(crate) fn separator<R>(register: R) -> PredictedEvent<R> {
    PredictedEvent {
        register,
        event_type: EventType::EV_SEPARATOR,
        input: Input::Fixed("separator"),
        digest: Digest384::of(&[0; 4]),
    }
}

/// EV_EFI_ACTION: its text without a NUL.
pub(crate) fn action<R>(register: R, text: &'static str) -> PredictedEvent<R> {
    PredictedEvent {
        register,
        event_type: EventType::EV_EFI_ACTION,
        input: Input::Fixed(text),
        digest: Digest384::of(text.as_bytes()),
    }
}
