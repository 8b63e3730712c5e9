//! TDX measurements, predicted.
//!
//! MRTD ([`mrtd`]) depends on the firmware image and on the order in which the VMM adds pages, and on nothing else: not on
//! vCPUs, memory, devices, ATTRIBUTES, XFAM or MRCONFIGID, which a TD report carries beside it. The RTMRs start at zero;
//! firmware and kernel extend them at run time. The events of a direct kernel boot come in two parts, by what they depend
//! on: [`platform`] (RTMR0: firmware, memory, ACPI tables) and [`image`] (RTMR1 and RTMR2: kernel, command line, initrd).
//! Which events there are depends on the firmware's version ([`profile`]); an unknown one is refused, never guessed.

pub mod attributes;
pub mod event;
pub mod explain;
pub mod image;
pub mod mrtd;
pub mod platform;
pub mod profile;
pub mod runtime;
pub mod td_hob;
pub mod unified;

pub use event::{Input, Pcr, PredictedEvent, Rtmr, registers};
pub use profile::Profile;
