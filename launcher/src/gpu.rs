//! NVIDIA GPUs and NVSwitches of a host: what confidential-computing mode they are in, and how they come into another.
//!
//! The mode is a set of persistent *knobs* that the device's own security processor (FSP) keeps. They are written by
//! packets through BAR 0 and become active with a reset. `access` is the only way to a device: sysfs implements it for
//! real ones, tests for a model of one. `observe` reads, `plan` decides (a pure value, printable), `apply` carries out,
//! `reconcile` repeats the three until a device is in its mode or there is a named reason why it cannot be. Whatever
//! interrupts this is visible afterwards as knobs that differ from the active mode, and repaired by the next run.
//!
//! Sources of the register layout: NVIDIA's gpu-admin-tools 82422cc and open-gpu-kernel-modules df1c9a3.

pub mod access;
pub mod apply;
pub mod attach;
mod capability;
pub mod firewall;
pub mod fsp;
mod hot_reset;
pub mod knob;
pub mod labels;
pub mod metrics;
pub mod mode;
pub mod observe;
pub mod plan;
pub mod product;
pub mod reconcile;
pub mod recover;
pub mod register;
pub mod resizable;
pub mod survey;
pub mod sysfs;
pub mod tally;
pub mod topology;
pub mod trace;
