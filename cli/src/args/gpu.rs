//! The words of `bullion gpu`.

use clap::{Args, Subcommand, ValueEnum};
use launcher::gpu::mode::Mode;
use spec::PciAddress;

#[derive(Debug, Args)]
pub(crate) struct Gpu {
    #[command(subcommand)]
    pub(crate) action: GpuAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GpuAction {
    /// List GPUs and NVSwitches with their modes; wakes those that sleep, and changes nothing else
    List,
    /// Print the node labels of NVIDIA's conventions (nvidia.com/cc.mode, ...), for a feature file of node-feature-discovery
    ///
    /// They are of modes alone: what GPUs can prove is for the guest to say. The worker must allow the label namespace:
    /// `-extra-label-ns=nvidia.com`.
    Labels,
    /// Bring devices into a mode: writes what differs, resets, verifies. Does nothing where nothing is to be done
    ///
    /// A run that was interrupted is repaired by the next one. A host must not mix modes, so name all devices, or use --all.
    /// NVSwitches take part in ppcie and are off otherwise.
    SetMode {
        /// The mode
        mode: ModeWord,
        /// The devices, as in 0000:41:00.0
        #[arg(required_unless_present = "all")]
        addresses: Vec<PciAddress>,
        /// All GPUs and NVSwitches of this host
        #[arg(long, conflicts_with = "addresses")]
        all: bool,
        /// Print what would be done, and do nothing
        #[arg(long)]
        plan: bool,
    },
    /// Bring back a device that does not answer: wake, function-level reset, secondary-bus reset, remove and rescan
    Recover {
        /// The device, as in 0000:41:00.0
        address: PciAddress,
    },
}

/// A mode on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ModeWord {
    /// Confidential computing; on Hopper one GPU for one VM
    On,
    /// No confidential computing
    Off,
    /// Confidential computing with debugging open: for development only
    Devtools,
    /// Protected PCIe: all eight Hopper GPUs and four NVSwitches in one VM
    Ppcie,
}

impl From<ModeWord> for Mode {
    fn from(word: ModeWord) -> Self {
        match word {
            ModeWord::On => Self::On,
            ModeWord::Off => Self::Off,
            ModeWord::Devtools => Self::Devtools,
            ModeWord::Ppcie => Self::Ppcie,
        }
    }
}
