//! RTMR1 and RTMR2 of a direct kernel boot: what firmware and the kernel's stub measure of the image (edk2 `Tcg2Dxe`;
//! Linux `drivers/firmware/efi/libstub`).

use alloc::vec::Vec;

use super::event::{Input, Pcr, PredictedEvent, Rtmr, action, separator};
use super::profile::{InitrdArgument, Profile};
use crate::digest::Digest384;
use crate::eventlog::EventType;

/// Everything that RTMR1 and RTMR2 depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// What this version of the firmware does.
    pub profile: Profile,
    /// The Authenticode digest of the kernel as firmware loads it. QEMU before 10.2 changes the kernel's header, unless
    /// it is 10.0 or later with edk2-stable202502 or later.
    pub kernel: Digest384,
    /// What the kernel's stub measures; `None` for kernels before Linux 6.9, whose stub measures nothing for TDX.
    pub stub: Option<StubInputs>,
}

/// What the kernel's stub measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubInputs {
    /// The digest of the load options ([`load_options`]).
    pub load_options: Digest384,
    /// SHA-384 of the initrd.
    pub initrd: Option<Digest384>,
}

/// The digest of the load options: the command line as firmware passes it on, in UTF-16 with a NUL.
pub fn load_options(profile: &Profile, command_line: &str, has_initrd: bool) -> Digest384 {
    const INITRD: &str = "initrd=initrd";
    let parts = match (has_initrd, profile.initrd_argument) {
        (false, _) => [command_line, "", "", "\0"],
        (true, InitrdArgument::After) => [command_line, " ", INITRD, "\0"],
        (true, InitrdArgument::Before) => [INITRD, " ", command_line, "\0"],
    };
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    Digest384::of(&bytes)
}

impl Image {
    /// The events of RTMR1 and RTMR2 in their order.
    pub fn events(&self) -> Vec<PredictedEvent> {
        self.boot_events().for_tdx(&self.profile)
    }

    /// What is measured of the image for a TPM and for TDX.
    pub fn boot_events(&self) -> BootEvents {
        let kernel = application(Input::Kernel, self.kernel);
        BootEvents { before: Vec::from([kernel]), after: kernel_started(self.stub.as_ref(), false) }
    }
}

/// What a boot measures of what it starts, without the separators, which firmware adds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootEvents {
    /// Before firmware is ready to boot: what QEMU gives it with `-kernel` is loaded first of all.
    pub before: Vec<PredictedEvent<Pcr>>,
    /// Once something runs that firmware does not contain.
    pub after: Vec<PredictedEvent<Pcr>>,
}

impl BootEvents {
    /// The events of RTMR1 and RTMR2 in their order.
    pub fn for_tdx(&self, profile: &Profile) -> Vec<PredictedEvent> {
        let mut events: Vec<_> = self.before.iter().copied().filter_map(PredictedEvent::for_tdx).collect();
        events.push(action(Rtmr::Rtmr1, CALLING));
        events.extend((!profile.second_separator_in_rtmr0).then(|| separator(Rtmr::Rtmr1)));
        events.extend(self.after.iter().copied().filter_map(PredictedEvent::for_tdx));
        events
    }
}

/// What the kernel's stub measures, and firmware when the kernel leaves it, at once or at the second attempt.
pub(super) fn kernel_started(stub: Option<&StubInputs>, first_exit_fails: bool) -> Vec<PredictedEvent<Pcr>> {
    let event_type = EventType::EV_EVENT_TAG;
    let tag = |input, digest| PredictedEvent { register: Pcr(9), event_type, input, digest };
    let mut events = Vec::new();
    if let Some(stub) = stub {
        events.push(tag(Input::CommandLine, stub.load_options));
        events.extend(stub.initrd.map(|digest| tag(Input::Initrd, digest)));
    }
    let attempts = first_exit_fails.then_some(EXIT_FAILED).into_iter().chain([EXIT_DONE]);
    events.extend(attempts.flat_map(|result| [EXIT, result]).map(|text| action(Pcr(5), text)));
    events
}

pub(crate) const CALLING: &str = "Calling EFI Application from Boot Option";
const EXIT: &str = "Exit Boot Services Invocation";
const EXIT_FAILED: &str = "Exit Boot Services Returned with Failure";
const EXIT_DONE: &str = "Exit Boot Services Returned with Success";

/// The start of a PE image.
pub(super) fn application(input: Input, digest: Digest384) -> PredictedEvent<Pcr> {
    let event_type = EventType::EV_EFI_BOOT_SERVICES_APPLICATION;
    PredictedEvent { register: Pcr(4), event_type, input, digest }
}
