//! Why a launch is refused: what each refusal says, which exit code it is, and what to do about it.

use std::path::PathBuf;

use spec::canonical::CanonicalError;
use spec::{Diagnostic, Outcome, Tee};

use crate::firmware::FirmwareError;
use crate::host::check::Line;
use crate::id_block::IdBlockError;
use crate::qemu::features::FLOOR;

/// A launch that is refused.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The image has ID blocks, and this launch is not what they are for.
    #[error(transparent)]
    IdBlock(#[from] IdBlockError),
    /// The `[guest]` part has no canonical form.
    #[error("the [guest] configuration of {vm} has no canonical form")]
    Configuration {
        /// The VM's name.
        vm: String,
        /// Why.
        #[source]
        source: CanonicalError,
    },
    /// The memory is not a whole number of MiB.
    #[error("the memory of {vm} is {memory}, not a whole number of MiB")]
    Memory {
        /// The VM's name.
        vm: String,
        /// The memory as written.
        memory: String,
    },
    /// The image lacks a file.
    #[error("image {image} has no artifact \"{name}\"")]
    MissingArtifact {
        /// The image's name.
        image: String,
        /// The artifact.
        name: &'static str,
    },
    /// The image has no driver for a device of the configuration.
    #[error("image {image} has no driver for what guest.{key} names: its recipe does not have the module {module}")]
    NoDriver {
        /// The image's name.
        image: String,
        /// The key of the configuration.
        key: &'static str,
        /// The module.
        module: &'static str,
    },
    /// The firmware is not one to launch.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// QEMU is too old.
    #[error("QEMU {found} is too old: {} or later is needed", FLOOR.map(|number| number.to_string()).join("."))]
    QemuTooOld {
        /// Its version.
        found: String,
    },
    /// QEMU lacks something.
    #[error("QEMU {version} has no {missing}")]
    QemuLacks {
        /// Its version.
        version: String,
        /// What it lacks, as QEMU calls it.
        missing: String,
    },
    /// QEMU does not know the CPU model.
    #[error("QEMU {version} has no CPU model \"{model}\"")]
    UnknownCpu {
        /// QEMU's version.
        version: String,
        /// The model.
        model: String,
    },
    /// The host cannot run guests of this kind.
    #[error("this host cannot run {tee} guests: {reason}")]
    HostLacks {
        /// What was asked for.
        tee: &'static str,
        /// What is missing.
        reason: String,
        /// Whether a simulation could go ahead.
        can_simulate: bool,
    },
    /// The host lacks something that this VM asks for.
    #[error("{vm} cannot have what it asks for: {}{}", .line.found, .line.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default())]
    Unmet {
        /// The VM's name.
        vm: String,
        /// What `host check --for` says about it.
        line: Box<Line>,
    },
    /// Only a TEE is simulated.
    #[error("{vm} has tee = \"none\": there is nothing to simulate")]
    NothingToSimulate {
        /// The VM's name.
        vm: String,
    },
    /// Unverified files in a TEE.
    #[error("a {tee} guest is not launched from files that were not verified")]
    UnverifiedTee {
        /// The TEE.
        tee: Tee,
    },
    /// An image that nobody known has released, in a TEE.
    #[error("a {tee} guest is not launched from an image that is not a signed release")]
    Unsigned {
        /// The TEE.
        tee: Tee,
    },
    /// The manifest's reference values are of another QEMU or firmware.
    #[error("the reference values of image {image} are outdated: {moved}")]
    Outdated {
        /// The image's name.
        image: String,
        /// Which values, and why.
        moved: String,
    },
    /// A path is not UTF-8.
    #[error("{0} is not UTF-8: it cannot be given to QEMU")]
    NotText(PathBuf),
}

impl Diagnostic for PlanError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Configuration { .. } | Self::Memory { .. } | Self::NothingToSimulate { .. } => Outcome::Usage,
            Self::UnknownCpu { .. } | Self::NotText(_) => Outcome::Usage,
            Self::MissingArtifact { .. } | Self::NoDriver { .. } => Outcome::InputMismatch,
            Self::IdBlock(error) => error.outcome(),
            Self::Firmware(error) => error.outcome(),
            Self::QemuTooOld { .. } | Self::QemuLacks { .. } | Self::HostLacks { .. } | Self::Unmet { .. } => {
                Outcome::HostCannot
            }
            Self::UnverifiedTee { .. } | Self::Outdated { .. } => Outcome::Refused,
            Self::Unsigned { .. } => Outcome::SignatureInvalid,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::IdBlock(error) => return error.hint(),
            Self::Firmware(error) => return error.hint(),
            Self::Unmet { line, .. } => return line.remedy.clone(),
            Self::NoDriver { .. } => {
                "name it in kernel.device_modules of the recipe and build again, or leave the key out"
            }
            Self::MissingArtifact { .. } => "build the image again with `bullion build`",
            Self::QemuTooOld { .. } | Self::QemuLacks { .. } => {
                "leave `--qemu` out: the pinned QEMU has all that is needed"
            }
            Self::UnknownCpu { .. } => "leave `cpu` out for the TEE's default",
            Self::HostLacks { can_simulate: true, .. } => {
                "go through the launch without the hardware with `--simulate`"
            }
            Self::HostLacks { .. } => "leave `accelerator` out to fall back to TCG",
            Self::NothingToSimulate { .. } => "leave `--simulate` out, or set tee to \"snp\" or \"tdx\"",
            Self::Outdated { .. } => {
                "predict them again with `bullion measure IMAGE --write`, and publish the image again; or launch with the QEMU \
                 that they are of (--vmm)"
            }
            Self::UnverifiedTee { .. } => "unverified files can be tried with tee = \"none\" only",
            Self::Unsigned { .. } => {
                "sign it with `bullion publish`, or go through the launch without a TEE with `--simulate`"
            }
            Self::Configuration { .. } | Self::Memory { .. } | Self::NotText(_) => return None,
        };
        Some(hint.to_owned())
    }
}
