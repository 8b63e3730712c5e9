//! TDX measurements, predicted.
//!
//! MRTD ([`mrtd`]) depends on the firmware image and on the order in which the VMM adds pages, and on nothing else: not on
//! vCPUs, memory, devices, ATTRIBUTES, XFAM or MRCONFIGID, which a TD report carries beside it. What firmware and kernel
//! extend into the RTMRs at run time starts with the block that the VMM hands over ([`td_hob`]).

pub mod mrtd;
pub mod td_hob;
