//! The words of `bullion selftest`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use spec::PciAddress;

#[derive(Debug, Args)]
pub(crate) struct Selftest {
    #[command(subcommand)]
    pub(crate) action: SelftestAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SelftestAction {
    /// Look at this host's GPUs and NVSwitches, and say what would be done to them; wakes those that sleep, writes nothing but
    /// requests to read
    Gpu(SelftestGpu),
}

#[derive(Debug, Args)]
pub(crate) struct SelftestGpu {
    /// The devices, as in 0000:41:00.0 [default: all]
    pub(crate) addresses: Vec<PciAddress>,
    /// Keep all that is read in files of this directory, ADDRESS.jsonl each: for a report, and as a test
    #[arg(long, value_name = "DIR")]
    pub(crate) trace: Option<PathBuf>,
    /// Look again at what such a file has recorded, without the device
    #[arg(long, value_name = "FILE", conflicts_with_all = ["addresses", "trace", "change_modes"])]
    pub(crate) replay: Option<PathBuf>,
    /// Also change the mode of each device, verify it, and change it back: resets them
    #[arg(long)]
    pub(crate) change_modes: bool,
}
