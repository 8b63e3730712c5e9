//! What was typed after `bullion vm`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct VmVerb {
    #[command(subcommand)]
    pub(crate) action: VmAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VmAction {
    /// Say whether VM descriptions are valid, and what each asks for
    ///
    /// Looks at nothing but the files: neither the image nor this host. `bullion host check --for VM` does the latter.
    Check {
        /// The VM descriptions
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print what a launch would do: files, argument list, expected digests, and the facts they rest on. Starts no guest; with --simulate of a TDX VM, QEMU is asked for its tables
    Plan(VmPlan),
}

#[derive(Debug, Args)]
pub(crate) struct VmPlan {
    /// The VM description
    pub(crate) vm: PathBuf,
    /// Plan a launch against a simulator of the TEE
    #[arg(long)]
    pub(crate) simulate: bool,
    #[command(flatten)]
    pub(crate) qemu: super::QemuChoice,
    /// The image directory, instead of the one that the VM description names
    #[arg(long, value_name = "DIR")]
    pub(crate) image: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) release: super::ReleaseWords,
}
