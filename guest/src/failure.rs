//! The one way in which a guest gives up: a line on the console, an event for the host, power-off.
//!
//! Kept apart so that every caller only names the stage and the reason. The host tells this exit from an orderly one by the
//! event or the line, and by a guest that powers off without ever having been ready.

use std::fmt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use spec::agent::Event;

use crate::{console, port, power};

/// What the guest was doing when it failed. The text is part of the protocol (`spec::agent::Event::Failed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Mounting the kernel's file systems.
    Start,
    /// Reading the kernel command line.
    CommandLine,
    /// Deciding which devices get a driver.
    Devices,
    /// Loading kernel modules.
    Modules,
    /// Finding the disk or partitions with the root file system.
    RootDevice,
    /// Checking the verity tree and opening it.
    Verity,
    /// Mounting the root file system and switching to it.
    Mount,
    /// Asking the TEE for the guest's own report.
    Report,
    /// Reading the configuration and comparing it with the report.
    Configuration,
    /// Counting the GPUs that the configuration names, or starting their driver.
    Gpus,
    /// Setting up the network.
    Network,
    /// Opening a volume, or holding it against the configuration.
    Volume,
    /// Arming the watchdog, or feeding it.
    Watchdog,
    /// Preparing the workload or running it.
    Workload,
    /// Supervising: the guest had been ready.
    Supervise,
    /// A fault of this program.
    Panic,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::CommandLine => "command-line",
            Self::Devices => "devices",
            Self::Modules => "modules",
            Self::RootDevice => "root-device",
            Self::Verity => "verity",
            Self::Mount => "mount",
            Self::Report => "report",
            Self::Configuration => "configuration",
            Self::Gpus => "gpus",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Watchdog => "watchdog",
            Self::Workload => "workload",
            Self::Supervise => "supervise",
            Self::Panic => "panic",
        })
    }
}

/// Why the guest stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{stage}: {reason}")]
pub(crate) struct Failure {
    /// What it was doing.
    pub(crate) stage: Stage,
    /// What went wrong: one line of printable characters, at most `MAX_REASON` bytes.
    pub(crate) reason: String,
}

/// The longest reason, in bytes: longer ones are cut. Error texts can hold what the host wrote on a disk.
const MAX_REASON: usize = 600;

impl Failure {
    /// A failure whose reason is made fit for one line.
    pub(crate) fn new(stage: Stage, reason: impl fmt::Display) -> Self {
        Self { stage, reason: one_line(reason) }
    }
}

/// An error text as one line of printable characters, cut at `MAX_REASON` bytes.
pub(crate) fn one_line(text: impl fmt::Display) -> String {
    let mut text: String = text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() > MAX_REASON {
        text.truncate(text.floor_char_boundary(MAX_REASON));
        text.push_str(" ...");
    }
    text
}

/// Turns any error into a `Failure` of a stage.
pub(crate) trait OrFail<T> {
    /// The error's own text is the whole reason.
    fn or_fail(self, stage: Stage) -> Result<T, Failure>;
    /// The reason is `doing: error`.
    fn or_fail_doing(self, stage: Stage, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, stage: Stage) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(stage, error))
    }

    fn or_fail_doing(self, stage: Stage, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(stage, format_args!("{doing}: {error}")))
    }
}

/// Ends what runs, says why, and powers off.
pub(crate) fn stop(failure: &Failure) -> ! {
    end_all_others();
    port::say_last_words(&Event::Failed { stage: failure.stage.to_string(), reason: failure.reason.clone() });
    console::failed(failure);
    power::power_off()
}

/// Ends every process but this one. Before anything is said: the drivers of the port and of the serial line wait for a host that
/// takes its time, which must not keep a workload alive in a guest that has given up.
fn end_all_others() {
    // Nobody may be there.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

/// Makes a panic end the guest like any failure: without this the kernel would panic over a dead PID 1 and say nothing of
/// the cause. The port may be held open by the code that panicked, so only the console hears of it.
pub(crate) fn end_panics_like_failures() {
    std::panic::set_hook(Box::new(|panic| {
        end_all_others();
        console::failed(&Failure::new(Stage::Panic, panic));
        power::power_off()
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_printable_line() {
        let failure = Failure::new(Stage::RootDevice, "a\nb\u{1b}[31m\tc");
        assert_eq!(failure.to_string(), "root-device: a b [31m c");
        let long = Failure::new(Stage::Verity, "é".repeat(MAX_REASON));
        assert_eq!(long.reason.len(), MAX_REASON + 4);
        assert!(long.reason.ends_with("é ..."));
    }

    #[test]
    fn what_was_being_done_comes_before_the_error() {
        let failed: Result<(), _> =
            Err::<(), _>(nix::errno::Errno::ENODEV).or_fail_doing(Stage::Modules, "loading dm_mod");
        assert_eq!(failed.unwrap_err().to_string(), "modules: loading dm_mod: ENODEV: No such device");
    }
}
