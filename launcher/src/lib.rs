//! From a VM description and an image directory to a running, supervised guest.
//!
//! `plan` is a pure value: what will be run, with which files and descriptors, and why it may be. `launch` carries it
//! out and supervises QEMU until it ends; it decides nothing that the plan has not decided, except when to give up.
//! `qemu` is the only place where a command line is put together. `state` is what other processes see of a VM.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod agent;
pub mod attach;
mod cgroup;
mod channel;
mod child;
pub mod confine;
mod console;
pub mod ending;
pub mod firmware;
pub mod gpu;
pub mod host;
pub mod id_block;
pub mod keyboard;
pub mod launch;

mod life;
mod lines;
mod log;
pub mod metrics;
pub mod network;
mod notify;
pub mod pinning;
pub mod plan;
pub mod qemu;
mod qmp;
mod restart;
pub mod screen;
mod sealed_memory;
pub mod simulation;
pub mod state;
mod supervise;
mod typed;
pub mod unit;
pub mod verdict;
pub mod volume;

pub use ending::{Ending, Report};
pub use host::HostFacts;
pub use launch::{LaunchError, Request, launch};
pub use plan::{Options, Plan, PlanError, plan, shape};
pub use qemu::QemuProgram;
pub use state::Directories;
pub use store::Image;
pub use supervise::Progress;
