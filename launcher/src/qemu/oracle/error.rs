//! Why QEMU could not be asked, and why captured files cannot be used.

use std::io;
use std::path::PathBuf;

use spec::{Diagnostic, Outcome};

use crate::qemu::FeatureError;
use crate::qemu::features::FLOOR;

/// A machine that could not be asked about.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// What QEMU can do could not be found out.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// QEMU is older than any that is launched.
    #[error("QEMU {found} is too old: {} or later is needed", FLOOR.map(|number| number.to_string()).join("."))]
    TooOld {
        /// Its version.
        found: String,
    },
    /// It cannot be started, or not be talked to.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended.
    #[error("QEMU ended, waiting for {stage}: {found}")]
    Ended {
        /// What was waited for.
        stage: &'static str,
        /// Its last words.
        found: String,
    },
    /// It took too long.
    #[error("{seconds} s were not enough for {stage}")]
    Late {
        /// What was waited for.
        stage: &'static str,
        /// How long.
        seconds: u64,
    },
    /// It did not do what it was told.
    #[error("QEMU answered \"{found}\" to {command}")]
    Refused {
        /// The command.
        command: String,
        /// The answer.
        found: String,
    },
    /// There is no such file in fw_cfg.
    #[error("QEMU gives firmware no \"{0}\"")]
    NoFile(&'static str),
}

impl Diagnostic for OracleError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Features(error) => return error.hint(),
            Self::Late { .. } => {
                "QEMU needs the trace backend \"log\" for this, as distributions build it; files captured elsewhere can \
                 be given with `--acpi DIR`"
                    .to_owned()
            }
            _ => "leave `--qemu` out to ask the pinned QEMU, or give captured files with `--acpi DIR`".to_owned(),
        })
    }
}

/// Captured files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what QEMU gave to firmware.
    #[error("{path} has {size} bytes, not a multiple of {unit}: it lost the padding that is measured with it")]
    Cut {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: usize,
        /// What QEMU pads it to.
        unit: usize,
    },
    /// A file is larger than any that QEMU gives to firmware.
    #[error("{path} is larger than {limit} bytes: QEMU gives firmware nothing like it")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
}

impl Diagnostic for ImportError {
    fn outcome(&self) -> Outcome {
        Outcome::InputMismatch
    }
    fn hint(&self) -> Option<String> {
        Some(
            "name a directory with etc/acpi/tables, etc/acpi/rsdp and etc/table-loader, such as a copy of a running guest's \
             /sys/firmware/qemu_fw_cfg/by_name"
                .to_owned(),
        )
    }
}
