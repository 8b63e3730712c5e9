//! Why the kernel or a module cannot be had.

use spec::{Diagnostic, Outcome};

/// A kernel or module that is missing, ambiguous or damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// No package has a kernel.
    #[error("none of the kernel packages has a vmlinuz: {}", packages.join(", "))]
    NoKernel {
        /// The packages.
        packages: Vec<String>,
    },
    /// More than one kernel.
    #[error("the kernel packages have several kernels: {}", versions.join(", "))]
    SeveralKernels {
        /// The versions.
        versions: Vec<String>,
    },
    /// A component that left no kernel, or not all that belongs to one.
    #[error("the kernel component has no output \"{name}\"")]
    NoOutput {
        /// What is missing.
        name: &'static str,
    },
    /// A component whose kernel has no version.
    #[error("the kernel component does not say the kernel's version in one line")]
    Release,
    /// A module that is not there.
    #[error(
        "kernel {version} has no module \"{name}\"{}{}",
        needed_by.as_ref().map(|by| format!(", which {by} needs")).unwrap_or_default(),
        if *builtin_known { "" } else { " (which modules are built in is not known: no package has modules.builtin)" }
    )]
    NoModule {
        /// The module.
        name: String,
        /// The kernel.
        version: String,
        /// The module that needs it, where the recipe does not name it itself.
        needed_by: Option<String>,
        /// Names that look like it.
        near: Vec<String>,
        /// Whether `modules.builtin` was there.
        builtin_known: bool,
    },
    /// Two files are the same module.
    #[error("the module \"{name}\" is there twice: /{first} and /{second}")]
    Twice {
        /// The module.
        name: String,
        /// One file.
        first: String,
        /// The other file.
        second: String,
    },
    /// A module file that cannot be read.
    #[error("/{path} is not a usable kernel module: {reason}")]
    Module {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A module that was built for another kernel.
    #[error("/{path} was built for kernel {found}, expected {expected}")]
    OtherKernel {
        /// The file.
        path: String,
        /// The kernel of the image.
        expected: String,
        /// The kernel of the module.
        found: String,
    },
    /// Modules that need one another.
    #[error("the module \"{0}\" needs itself, through what it depends on")]
    Cycle(String),
}

impl Diagnostic for KernelError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::NoModule { .. }
            | Self::NoKernel { .. }
            | Self::SeveralKernels { .. }
            | Self::NoOutput { .. }
            | Self::Release => Outcome::Usage,
            Self::Twice { .. } | Self::Module { .. } | Self::OtherKernel { .. } | Self::Cycle(_) => {
                Outcome::InputMismatch
            }
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoModule { near, .. } if !near.is_empty() => Some(format!(
                "did you mean {}?",
                near.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
            )),
            Self::NoKernel { .. } => {
                Some("name a package such as linux-image-cloud-amd64 as kernel.package".to_owned())
            }
            _ => None,
        }
    }
}
