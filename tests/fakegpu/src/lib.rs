//! A device that behaves like an H100, H200, NVSwitch or B200 as far as its confidential mode goes.
//!
//! `model` is the device: registers, configuration space, security processor, knobs, power, resets, a clock, and every
//! fault that operators have reported. It knows nothing of the launcher. `bench` puts it behind the launcher's trait, on a
//! bus with others, and can pull the plug at any write. `server` makes it a PCI device of a virtual machine, `control`
//! breaks and mends it there while it is in use, and `board` knows which devices make a server.

pub mod bench;
pub mod board;
pub mod control;
pub mod fault;
pub mod model;
pub mod replay;
pub mod server;
