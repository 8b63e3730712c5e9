//! `[host.restart]` and `[host.log]`: what follows when a guest ends, and how much is kept of what it said.
//!
//! Nothing here is measured, and nothing here reaches the guest.

use serde::{Deserialize, Serialize};

use crate::size::Size;

/// Whether a guest that has ended is started again. What was stopped on request, or measured otherwise than predicted, never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// After which ends.
    pub policy: RestartPolicy,
    /// How often in a row, without the guest having been ready for ten minutes in between (default 5).
    #[serde(default = "five")]
    pub limit: u32,
    /// Seconds before the first restart; each further one in a row waits twice as long, up to a minute (default 1).
    #[serde(default = "one")]
    pub delay_s: u64,
}

/// After which ends a guest is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// After none.
    Never,
    /// When it failed: it panicked, reset itself, was silent or late, its workload failed, or QEMU died.
    OnFailure,
    /// Also when it powered itself off.
    Always,
}

/// How much of a console, and of a workload's output, is kept on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogTerms {
    /// How large a file of a log gets before the next one is begun (default `4MiB`).
    #[serde(default = "four_mib")]
    pub size: Size,
    /// How many files of a log are kept, with the one that is written (default 4).
    #[serde(default = "four")]
    pub files: u32,
}

impl Default for LogTerms {
    fn default() -> Self {
        Self { size: four_mib(), files: four() }
    }
}

fn one() -> u64 {
    1
}

fn four() -> u32 {
    4
}

fn five() -> u32 {
    5
}

fn four_mib() -> Size {
    Size::from_mib(4)
}

/// Least and most bytes of a log's file.
const LOG_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;
/// The shortest silence that means something: a busy host keeps a guest from answering for a while.
const LEAST_WATCHDOG_S: u64 = 15;

/// What is wrong: the key it is about, and why.
pub(super) fn fault(
    restart: Option<Restart>,
    log: Option<LogTerms>,
    watchdog_s: Option<u64>,
) -> Option<(&'static str, String)> {
    if let Some(restart) = restart {
        if !(1..=1000).contains(&restart.limit) {
            return Some(("limit", format!("limit is {}: use 1 to 1000", restart.limit)));
        }
        if restart.delay_s > 3600 {
            return Some(("delay_s", format!("delay_s is {}: use at most 3600", restart.delay_s)));
        }
    }
    if let Some(log) = log {
        if !LOG_BYTES.contains(&log.size.bytes) {
            return Some(("size", format!("size is {}: use 64KiB to 1GiB", log.size)));
        }
        if !(2..=100).contains(&log.files) {
            return Some(("files", format!("files is {}: use 2 to 100", log.files)));
        }
    }
    let watchdog = watchdog_s.filter(|seconds| *seconds < LEAST_WATCHDOG_S)?;
    Some(("watchdog_s", format!("watchdog_s is {watchdog}: use at least {LEAST_WATCHDOG_S}")))
}
