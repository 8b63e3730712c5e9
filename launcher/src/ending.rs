//! How a launch can end, and what each end means to the person who launched.

use std::fmt;
use std::path::PathBuf;

use spec::Outcome;
use spec::agent::{Identity, Measurements, Workload};

use crate::qemu::Accelerator;
use crate::simulation::SimulationReport;

/// How a VM ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// It was stopped on request.
    Stopped {
        /// Who asked: a signal's name.
        by: &'static str,
        /// What it took.
        how: StopHow,
    },
    /// The guest powered itself off after it had been ready.
    GuestPoweredOff,
    /// The workload ended, and with it the guest.
    WorkloadEnded {
        /// Its exit code.
        exit_code: u8,
    },
    /// The guest stopped its own boot, or is not the guest that was meant.
    GuestFailed {
        /// What it was doing.
        stage: String,
        /// What went wrong.
        reason: String,
    },
    /// The TEE measured something else than was predicted: what runs is not what was meant.
    MeasuredOtherwise {
        /// The register, as the vendor writes it.
        register: String,
        /// The prediction.
        expected: String,
        /// What the guest says it found, or what the simulator computed.
        found: String,
        /// What the simulator saw, where this is a simulation.
        simulation: Option<SimulationReport>,
    },
    /// The guest's kernel panicked.
    GuestPanicked {
        /// What it said, such as `dm-verity device has I/O error`.
        panic: String,
    },
    /// The guest reset itself. Another boot is another launch.
    GuestReset,
    /// The guest did not become ready in time.
    NotReadyInTime {
        /// How long it was given.
        seconds: u64,
    },
    /// The guest was ready, and then left the host's questions unanswered.
    GuestSilent {
        /// For how long.
        seconds: u64,
    },
    /// The guest's first process did not feed its watchdog, and QEMU stopped it.
    GuestHung {
        /// How long the watchdog waited.
        seconds: u64,
    },
    /// KVM on this host stopped the guest: it cannot run it.
    KvmCannotRun,
    /// QEMU ended by itself.
    QemuDied {
        /// Its exit status.
        status: String,
        /// The last lines it printed.
        stderr: Vec<String>,
    },
    /// The process ended by itself that speaks for a NIC.
    NetworkEnded {
        /// The NIC.
        nic: usize,
        /// Its exit status.
        status: String,
        /// The last lines it printed.
        stderr: Vec<String>,
    },
    /// The simulated launch is complete and measured what was predicted, as far as that was; or it was refused.
    Simulated {
        /// What the simulator saw.
        report: SimulationReport,
    },
}

/// What it took to stop a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopHow {
    /// The guest powered itself off.
    PoweredOff,
    /// QEMU was told to quit.
    Quit,
    /// QEMU was killed.
    Killed,
    /// No QEMU ran: it was waiting to be started again.
    Waiting,
}

impl Ending {
    /// The failure this is; `None` where it ended as it should.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Simulated { report } if report.failed().is_some() => Some(Outcome::Refused),
            Self::Simulated { report } => report.digest().is_none().then_some(Outcome::Internal),
            Self::MeasuredOtherwise { .. } => Some(Outcome::Refused),
            Self::Stopped { .. } | Self::GuestPoweredOff | Self::WorkloadEnded { exit_code: 0 } => None,
            Self::WorkloadEnded { .. } => Some(Outcome::GuestFailed),
            Self::GuestFailed { .. } | Self::GuestPanicked { .. } | Self::GuestReset => Some(Outcome::GuestFailed),
            Self::NotReadyInTime { .. } | Self::GuestSilent { .. } | Self::GuestHung { .. } => {
                Some(Outcome::GuestFailed)
            }
            Self::KvmCannotRun | Self::QemuDied { .. } | Self::NetworkEnded { .. } => Some(Outcome::HostCannot),
        }
    }

    /// What the simulator saw, where this is the end of a simulation.
    pub fn simulation(&self) -> Option<&SimulationReport> {
        match self {
            Self::Simulated { report } => Some(report),
            Self::MeasuredOtherwise { simulation, .. } => simulation.as_ref(),
            _ => None,
        }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::MeasuredOtherwise { register, found, simulation, .. } => {
                // The guest chose the text, and a hint is there to be typed.
                let explained = register == "MEASUREMENT" && found.bytes().all(|c| c.is_ascii_hexdigit());
                let explain = || format!("`bullion explain --digest {found} --against VM` tells what was launched");
                let pages = |report: &SimulationReport| {
                    format!("{} lists the pages that QEMU submitted", report.path.display())
                };
                let hints: Vec<_> = explained.then(explain).into_iter().chain(simulation.as_ref().map(pages)).collect();
                return Some(hints.join("; ")).filter(|hint| !hint.is_empty());
            }
            Self::GuestPanicked { panic } if panic.contains("verity") => {
                "the root file system is not the one the image was built with: build or fetch the image again"
            }
            Self::GuestFailed { .. }
            | Self::GuestPanicked { .. }
            | Self::GuestReset
            | Self::GuestSilent { .. }
            | Self::GuestHung { .. } => "the console log has what led to it",
            Self::NotReadyInTime { .. } => {
                "the console log has how far it came; `ready_timeout_s` in [host] gives it more time"
            }
            Self::WorkloadEnded { .. } => {
                "what the workload printed is seen with output = \"to-host\" in [guest.workload], by you and by the host"
            }
            Self::NetworkEnded { .. } => {
                "if it could not have a port: another program has it, or it is one below 1024; forward another in [[host.nic]]"
            }
            Self::KvmCannotRun => "leave `accelerator` out to fall back to TCG",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped { by, how } => {
                let how = match how {
                    StopHow::PoweredOff => "the guest powered off",
                    StopHow::Quit => "QEMU was told to quit",
                    StopHow::Killed => "QEMU was killed",
                    StopHow::Waiting => "it was waiting to be started again",
                };
                write!(f, "stopped by {by}: {how}")
            }
            Self::WorkloadEnded { exit_code } => write!(f, "the workload ended with exit code {exit_code}"),
            Self::GuestPoweredOff => write!(f, "the guest powered off"),
            Self::GuestFailed { stage, reason } => write!(f, "the guest failed: {stage}: {reason}"),
            Self::GuestPanicked { panic } => write!(f, "the guest's kernel panicked: {panic}"),
            Self::GuestReset => write!(f, "the guest reset itself"),
            Self::NotReadyInTime { seconds } => write!(f, "the guest was not ready within {seconds} s"),
            Self::GuestSilent { seconds } => write!(f, "the guest has not answered for {seconds} s"),
            Self::GuestHung { seconds } => write!(f, "the guest hung: it had not fed its watchdog for {seconds} s"),
            Self::KvmCannotRun => write!(f, "KVM on this host cannot run this guest: QEMU reports an internal error"),
            Self::QemuDied { status, stderr } => {
                write!(f, "QEMU ended by itself ({status})")?;
                stderr.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Self::NetworkEnded { nic, status, stderr } => {
                write!(f, "passt, which speaks for NIC {nic}, ended by itself ({status})")?;
                stderr.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
            Self::MeasuredOtherwise { register, expected, found, simulation } => {
                let who =
                    if simulation.is_some() { "SIMULATED: " } else { "the guest is not the one that was meant: " };
                write!(f, "{who}{register} is {found}, expected {expected}")
            }
            Self::Simulated { report } => match (report.failed(), report.digest()) {
                (Some(reason), _) => write!(f, "SIMULATED: the launch was refused: {reason}"),
                (None, None) => write!(f, "SIMULATED: the report {} has no digest", report.path.display()),
                (None, Some(_)) => write!(f, "SIMULATED: the launch is complete"),
            },
        }
    }
}

/// What came of a launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How it ended.
    pub ending: Ending,
    /// The last lines of the console.
    pub last_words: Vec<String>,
    /// The console log.
    pub console_log: PathBuf,
    /// What ran the guest.
    pub accelerator: Accelerator,
    /// How long the guest took to be ready, from when it was let run.
    pub ready_ms: Option<u64>,
    /// What the guest said about itself.
    pub identity: Option<Identity>,
    /// The measurements the guest could read.
    pub measurements: Option<Measurements>,
    /// How far its workload came.
    pub workload: Option<Workload>,
}
