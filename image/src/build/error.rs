//! Why an image cannot be built.

use std::io;
use std::path::{Path, PathBuf};

use measure::uefi::VarstoreError;
use spec::canonical::CanonicalError;
use spec::hardening::Deviation;
use spec::recipe::Kind;
use spec::{Diagnostic, Outcome, Sha256Digest, SyntaxError};
use store::{ImageError, StoreError};

use super::{DriverError, MAX_COMMAND_LINE, guest_binary};
use crate::deb::DebError;
use crate::disk::DiskError;
use crate::effects::EffectError;
use crate::erofs::ErofsError;
use crate::kernel::KernelError;
use crate::tree::{GlobError, MergeError, OverlayError};
use crate::uki::UkiError;

/// A build that failed. Nothing of it is left on disk.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe makes something else.
    #[error("the recipe \"{recipe}\" is of kind \"{kind}\", not \"image\"")]
    NotAnImage {
        /// The recipe.
        recipe: String,
        /// What it makes.
        kind: Kind,
    },
    /// The lock was made for another recipe, or for an earlier state of this one.
    #[error(
        "the lock does not belong to the recipe \"{recipe}\": it was made for {found}, the recipe now is {expected}"
    )]
    OtherRecipe {
        /// The recipe.
        recipe: String,
        /// The digest of the recipe.
        expected: Sha256Digest,
        /// The digest in the lock.
        found: Sha256Digest,
    },
    /// The lock lacks a package that the recipe needs.
    #[error("the lock has no package \"{package}\" for {purpose}")]
    NotLocked {
        /// The package.
        package: String,
        /// What it is for.
        purpose: &'static str,
    },
    /// The guest binary is not the one that its component made.
    #[error("the guest binary with SHA-256 {given} was not made by the component \"{component}\"")]
    OtherGuest {
        /// The component.
        component: String,
        /// The digest of what was given.
        given: Sha256Digest,
    },
    /// A file of the kernel is not the one that its component made.
    #[error("the kernel's file \"{output}\" was not made by the component \"{component}\"")]
    OtherKernel {
        /// The component.
        component: String,
        /// The file.
        output: String,
    },
    /// The kernel's configuration or its hardening table cannot be read.
    #[error("the kernel component left something unreadable")]
    KernelText(#[source] SyntaxError),
    /// The kernel's configuration does not keep to its hardening table, or is below the floor.
    #[error(
        "the kernel of component \"{component}\" is not hardened as its table, or the floor that no table lowers, asks:{}",
        deviations.iter().map(|deviation| format!("\n  {deviation}")).collect::<String>()
    )]
    Hardening {
        /// The component.
        component: String,
        /// Where it does not, in the order of the table.
        deviations: Vec<Deviation>,
    },
    /// The guest binary is too large.
    #[error("the guest binary has {size} bytes, at most {} are taken", guest_binary::MAX_BYTES)]
    GuestSize {
        /// Its size.
        size: usize,
    },
    /// The guest binary cannot be the first process of a guest.
    #[error("the guest binary is not a static program for x86-64: {reason}")]
    Guest {
        /// What is wrong.
        reason: &'static str,
    },
    /// There is an image at the output path.
    #[error("{} is there already", .0.display())]
    OutputExists(PathBuf),
    /// What is at the output path is no image directory, so it is never replaced.
    #[error("{} is there already and is not an image directory: it will not be replaced", .0.display())]
    NotReplaceable(PathBuf),
    /// What is at the output path has a manifest that cannot be used, so whether it is an image is not known.
    #[error("{} is there already and may not be an image directory: it will not be replaced", path.display())]
    OutputDamaged {
        /// The output path.
        path: PathBuf,
        /// What is wrong with the manifest.
        source: ImageError,
    },
    /// The output path cannot name a directory.
    #[error("\"{}\" cannot name an image directory", .0.display())]
    OutputName(PathBuf),
    /// Another build is at it.
    #[error("another build is writing {}", .0.display())]
    OutputBusy(PathBuf),
    /// The cache.
    #[error("{package} is locked and cannot be used")]
    Store {
        /// The package.
        package: String,
        /// What the cache says.
        source: StoreError,
    },
    /// A package that cannot be read.
    #[error("reading package {package}")]
    Package {
        /// The package with its version.
        package: String,
        /// Why.
        source: DebError,
    },
    /// A package that is not the one the lock says it is.
    #[error("the locked package {expected} calls itself {found}")]
    OtherPackage {
        /// What the lock says.
        expected: String,
        /// What the control file says.
        found: String,
    },
    /// A file that a package should have.
    #[error("package {package} has no file {path}")]
    NoFile {
        /// The package with its version.
        package: String,
        /// The file.
        path: String,
    },
    /// Packages that cannot be in one tree.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A pattern of `rootfs.drop`.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// An effect.
    #[error(transparent)]
    Effect(#[from] EffectError),
    /// What the recipe adds.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// The kernel or a module.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The root file system.
    #[error(transparent)]
    Erofs(#[from] ErofsError),
    /// The unified kernel image.
    #[error(transparent)]
    Uki(#[from] UkiError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A firmware that the recipe wants without its keys, and that has no variable store to take them from.
    #[error("firmware {firmware} cannot be derived from")]
    Derive {
        /// Its path in the package.
        firmware: String,
        /// Why.
        source: VarstoreError,
    },
    /// The command line is too long for the kernel.
    #[error("the kernel command line has {length} bytes, the kernel takes {MAX_COMMAND_LINE}")]
    CommandLine {
        /// Its length.
        length: usize,
    },
    /// NVIDIA's driver.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The UUID of the recipe.
    #[error("\"{0}\" is not a UUID")]
    Uuid(String),
    /// The manifest has no canonical form.
    #[error("the manifest cannot be written")]
    Manifest(#[source] CanonicalError),
    /// The manifest says something that its readers refuse.
    #[error("the manifest cannot be written")]
    ManifestContent(#[source] SyntaxError),
    /// No threads.
    #[error("starting threads: {0}")]
    Threads(String),
    /// The operating system refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done, as a gerund.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl BuildError {
    /// Wraps an I/O error of `doing` something to `path`, for use in `map_err`.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }
}

impl Diagnostic for BuildError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Store { source, .. } => source.outcome(),
            Self::Package { source, .. } => source.outcome(),
            Self::Merge(error) => error.outcome(),
            Self::Glob(error) => error.outcome(),
            Self::Effect(error) => error.outcome(),
            Self::Overlay(error) => error.outcome(),
            Self::Kernel(error) => error.outcome(),
            Self::Erofs(error) => error.outcome(),
            Self::Uki(error) => error.outcome(),
            Self::Disk(error) => error.outcome(),
            Self::ManifestContent(error) => error.outcome(),
            Self::OtherPackage { .. } => Outcome::InputMismatch,
            Self::Hardening { .. } | Self::Driver(_) => Outcome::Refused,
            Self::KernelText(error) => error.outcome(),
            Self::Io { .. } | Self::Threads(_) => Outcome::HostCannot,
            Self::Manifest(_) | Self::OtherGuest { .. } | Self::OtherKernel { .. } => Outcome::Internal,
            Self::NotAnImage { .. }
            | Self::OtherRecipe { .. }
            | Self::NotLocked { .. }
            | Self::GuestSize { .. }
            | Self::Guest { .. }
            | Self::OutputExists(_)
            | Self::NotReplaceable(_)
            | Self::OutputDamaged { .. }
            | Self::OutputName(_)
            | Self::OutputBusy(_)
            | Self::NoFile { .. }
            | Self::Derive { .. }
            | Self::CommandLine { .. }
            | Self::Uuid(_) => Outcome::Usage,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store { source, .. } => source.hint(),
            Self::Package { source, .. } => source.hint(),
            Self::Merge(error) => error.hint(),
            Self::Glob(error) => error.hint(),
            Self::Effect(error) => error.hint(),
            Self::Overlay(error) => error.hint(),
            Self::Kernel(error) => error.hint(),
            Self::Erofs(error) => error.hint(),
            Self::Uki(error) => error.hint(),
            Self::Disk(error) => error.hint(),
            Self::OtherRecipe { .. } | Self::NotLocked { .. } => {
                Some("the recipe has changed since it was locked: run `bullion lock`".to_owned())
            }
            Self::NotAnImage { kind: Kind::Component, .. } => Some("compile it: bullion component build RECIPE".to_owned()),
            Self::NotAnImage { .. } => Some("run what is in it: bullion exec RECIPE PROGRAM".to_owned()),
            Self::GuestSize { .. } | Self::Guest { .. } => {
                Some("build it with scripts/build-guest, and name that one with --guest FILE".to_owned())
            }
            Self::Hardening { .. } => Some(
                "see the component's config and hardening.toml: Kconfig takes an option back whose dependencies are not set"
                    .to_owned(),
            ),
            Self::Driver(_) => Some("name one version in the recipe of the image and in that of the modules' component, and lock both again".to_owned()),
            Self::OutputDamaged { .. } => Some(
                "if it is an image that is not needed any more, remove it by hand; else choose another output directory"
                    .to_owned(),
            ),
            Self::OutputExists(_) => Some("use --replace to put the new image in its place".to_owned()),
            Self::NotReplaceable(_) => Some("choose another output directory".to_owned()),
            Self::OutputBusy(_) => Some("wait for it, or choose another output directory".to_owned()),
            Self::Derive { .. } => {
                Some("leave `derive` out of the recipe's [firmware], or name another file".to_owned())
            }
            Self::CommandLine { .. } => Some("shorten kernel.command_line".to_owned()),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("the disk is full: free some room, or choose an output directory on another disk".to_owned())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("choose an output directory that you can write to".to_owned())
            }
            _ => None,
        }
    }
}
