//! TDX: the launch as `arch/x86/kvm/vmx/tdx.c` of Linux 7.3 and the TDX module (Intel 348549) do it.

mod capabilities;
mod facts;
mod guest;
mod mrtd;
#[cfg(test)]
mod state_tests;

pub(crate) use capabilities::announce_address_width;
pub(crate) use facts::Facts;
pub(crate) use guest::{Environment, Guest};
