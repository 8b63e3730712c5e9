//! What was typed after `bullion host`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct Host {
    #[command(subcommand)]
    pub(crate) action: HostAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostAction {
    /// Say what on this host stands in the way of guests, why, and what to do about it
    ///
    /// Asks KVM by creating VMs and throwing them away, the secure processor, the TDX module, CPUID, and the kernel's tables.
    /// Changes nothing. Exit code 3 where something is refused: without --for, that the host does not offer the TEE that its
    /// processor is made for. What only a launch on the hardware shows is not checked: firmware bugs, BIOS settings that the
    /// kernel cannot see, a GPU's mode.
    Check(HostCheck),
}

#[derive(Debug, Args)]
pub(crate) struct HostCheck {
    /// Check for what this VM needs, and refuse where it is not there
    #[arg(long = "for", value_name = "VM")]
    pub(crate) vm: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) qemu: super::QemuChoice,
}
