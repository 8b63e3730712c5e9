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
    /// Make this host ready for guests, or for one VM: what can be changed while it runs. Prints the plan first
    ///
    /// Loads modules, gives PCI functions to vfio-pci, sets huge pages aside, lets a group open the devices. Each change is written
    /// down, on the disk, before it is made, and `bullion host restore` undoes it. A function that the host uses (a mounted disk,
    /// a NIC with an address) is refused, and then nothing is changed. Exit code 3 where something stands in the way.
    Prepare(HostPrepare),
    /// Undo what `prepare` has changed, also after a crash; what others have changed since is left, and named
    ///
    /// Exit code 3 where something is still in use: run it again later.
    Restore(HostRestore),
}

#[derive(Debug, Args)]
pub(crate) struct HostPrepare {
    /// Prepare for what this VM needs [default: for guests in general]
    #[arg(long = "for", value_name = "VM")]
    pub(crate) vm: Option<PathBuf>,
    /// Print the plan and change nothing: the default
    #[arg(long, conflicts_with = "yes")]
    pub(crate) plan: bool,
    /// Carry the plan out
    #[arg(long)]
    pub(crate) yes: bool,
    /// Make it last over a start of the host, by files for systemd, udev and modprobe
    #[arg(long)]
    pub(crate) persist: bool,
    /// Let the members of this group launch: give it the devices that a launch opens
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct HostRestore {
    /// Print what would be undone, and change nothing
    #[arg(long)]
    pub(crate) plan: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HostCheck {
    /// Check for what this VM needs, and refuse where it is not there
    #[arg(long = "for", value_name = "VM")]
    pub(crate) vm: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) qemu: super::QemuChoice,
}
