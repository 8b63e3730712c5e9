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
    /// Write the systemd unit bullion@NAME.service of a VM
    ///
    /// The unit starts the VM, waits until its guest is ready, and allows it no more of this host than its description asks for. Nothing
    /// is started or enabled. What the description says is read again at each start; its devices and directories stand in the
    /// unit, so install it again when they change.
    Install(VmInstall),
    /// Remove the unit that `vm install` has written. Stops nothing
    Uninstall(VmUninstall),
}

#[derive(Debug, Args)]
pub(crate) struct VmInstall {
    /// The VM's name, as its description has it
    pub(crate) name: String,
    /// The VM description
    pub(crate) vm: PathBuf,
    /// Print the unit and write nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Write below this directory instead of /
    #[arg(long, value_name = "ROOT", default_value = "/")]
    pub(crate) dir: PathBuf,
    /// The image directory, instead of the one that the VM description names
    #[arg(long, value_name = "DIR")]
    pub(crate) image: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) qemu: super::QemuChoice,
    #[command(flatten)]
    pub(crate) release: super::ReleaseWords,
}

#[derive(Debug, Args)]
pub(crate) struct VmUninstall {
    /// The VM's name
    pub(crate) name: String,
    /// Remove below this directory instead of /
    #[arg(long, value_name = "ROOT", default_value = "/")]
    pub(crate) dir: PathBuf,
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
