//! Why a launch did not come to a running QEMU: mostly the error of the part that it failed in.

use std::io;
use std::path::PathBuf;

use sign::Rejection;
use spec::{Diagnostic, Outcome};
use store::VerifyError;

use super::artifacts::MAX_COPIED_BYTES;
use super::gpus::GpuError;
use super::later::Refusal;
use crate::network::NetworkError;
use crate::plan::PlanError;
use crate::qemu::FeatureError;
use crate::state::StateError;
use crate::volume::VolumeError;

/// A launch that did not come to a running QEMU, or lost sight of it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The name is taken, or state cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The image is not what its manifest says.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The release is no longer accepted.
    #[error(transparent)]
    Release(#[from] Rejection),
    /// QEMU cannot be asked what it can do.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The launch is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A volume is not used.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A network cannot be had.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A GPU or NVSwitch is not ready for the guest.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The caller has found out that it must not be.
    #[error(transparent)]
    Later(#[from] Refusal),
    /// QEMU cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The first word of the command.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What only its owner can read is too large for a copy that QEMU can open.
    #[error(
        "{path} has {bytes} bytes and only its owner can read it: QEMU would get a copy in memory, of which all files together have at \
         most {MAX_COPIED_BYTES} bytes, {copied} of them taken"
    )]
    TooLargeToCopy {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What was copied before, in bytes.
        copied: u64,
    },
    /// A system call of the supervisor failed. QEMU was ended.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

impl Diagnostic for LaunchError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::State(error) => error.outcome(),
            Self::Verify(error) => error.outcome(),
            Self::Release(error) => error.outcome(),
            Self::Features(error) => error.outcome(),
            Self::Plan(error) => error.outcome(),
            Self::Volume(error) => error.outcome(),
            Self::Network(error) => error.outcome(),
            Self::Gpu(error) => error.outcome(),
            Self::Later(error) => error.outcome(),
            Self::Start { .. } | Self::TooLargeToCopy { .. } => Outcome::HostCannot,
            Self::System { .. } => Outcome::Internal,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::State(error) => error.hint(),
            Self::Verify(error) => error.hint(),
            Self::Release(error) => error.hint(),
            Self::Features(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::Volume(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Gpu(error) => error.hint(),
            Self::Later(error) => error.hint(),
            Self::TooLargeToCopy { path, .. } => {
                Some(format!("an image is nothing secret: chmod o+r {}, and QEMU opens it itself", path.display()))
            }
            Self::Start { .. } | Self::System { .. } => None,
        }
    }
}
