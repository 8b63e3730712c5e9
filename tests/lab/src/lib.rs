//! Bare metal in a box: a server that QEMU's TCG emulates, with what an operator's server has and the machines that run tests
//! have not: AMD's virtualization and so a real `/dev/kvm`, an IOMMU and so real VFIO, NVMe drives, PCI devices, systemd.
//!
//! The server is the image of `image-recipes/lab-host.toml`; the program runs in it as a user would run it, and starts guests under
//! KVM. What only silicon decides (the secure processor, the TDX module, a GPU's firmware) is not here.
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::panic, reason = "test support: failing loudly is its job")]

mod boot;
mod devices;
mod model;
mod parts;
mod port;
mod server;
mod state;

pub use devices::Device;
pub use parts::{Kernel, Parts};
pub use port::Run;
pub use server::Server;
pub use state::HostState;
