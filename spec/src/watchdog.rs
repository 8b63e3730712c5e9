//! `[guest.watchdog]`: how long the guest's first process may be stuck before its machine is stopped.
//!
//! A part of what the guest must be able to prove it was given: the guest gives the device a driver, and feeds it, because its own
//! measured configuration says so: it is in HOST_DATA or MRCONFIGID.

use serde::{Deserialize, Serialize};

/// The kernel module that drives a guest's watchdog.
pub const WATCHDOG_MODULE: &str = "i6300esb";
/// The kernel module that drives a guest's pvpanic device.
pub const PVPANIC_MODULE: &str = "pvpanic_pci";

/// The shortest time that means something: a busy host keeps a guest from running for a while.
pub const LEAST_TIMEOUT_S: u32 = 15;
/// The longest. The device could wait for 2046 seconds.
pub const MOST_TIMEOUT_S: u32 = 1800;

/// The watchdog of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// After how many seconds without a sign of life from the guest's first process the machine is stopped: 15 to 1800.
    pub timeout_s: u32,
}

impl Watchdog {
    /// The first thing that no guest could do: the text to look for in a file, and what to say of it.
    pub fn fault(&self) -> Option<(String, String)> {
        let Self { timeout_s } = self;
        let fits = (LEAST_TIMEOUT_S..=MOST_TIMEOUT_S).contains(timeout_s);
        let message = format!("timeout_s is {timeout_s}: use {LEAST_TIMEOUT_S} to {MOST_TIMEOUT_S}");
        (!fits).then(|| ("timeout_s".to_owned(), message))
    }
}
