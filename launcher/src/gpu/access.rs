//! The one way to a device: registers of BAR 0, configuration space, resets and time.
//!
//! Time is part of it because every wait is bounded, and because a model of a device keeps a clock of its own.

use std::fmt;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spec::PciAddress;

use super::mode::{ActiveMode, Mode};
use super::resizable::BarSize;

/// How a function is reset, from the gentlest to the most thorough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResetKind {
    /// Function-level reset. Leaves the secure session of a GPU whose VM was killed as it was.
    Function,
    /// Secondary-bus reset by the bridge above: resets every function behind it.
    Bus,
    /// Bus reset, then the function is removed from the kernel and found again.
    Reenumerate,
}

impl fmt::Display for ResetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Function => "function-level reset",
            Self::Bus => "secondary-bus reset",
            Self::Reenumerate => "secondary-bus reset, remove and rescan",
        })
    }
}

/// What the system refused.
#[derive(Debug, thiserror::Error)]
#[error("{address}: {action}")]
pub struct AccessError {
    /// The function.
    pub address: PciAddress,
    /// What was tried.
    pub action: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Something that happened to a function that whoever counts wants to know, and that registers and resets alone do not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A change of mode begins.
    Changing {
        /// The mode it is in.
        from: ActiveMode,
        /// The mode it is to be in.
        to: Mode,
    },
    /// It was found in this mode after a reset.
    Verified(Mode),
    /// The security processor did not do what it was asked: `FspError::code`.
    RpcError(String),
}

/// A PCI function that can be talked to.
pub trait Function {
    /// Where it is.
    fn address(&self) -> PciAddress;
    /// Reads a register of BAR 0. `offset` is in bytes and a multiple of four.
    fn read32(&mut self, offset: u32) -> Result<u32, AccessError>;
    /// Writes a register of BAR 0.
    fn write32(&mut self, offset: u32, value: u32) -> Result<(), AccessError>;
    /// Reads configuration space; all ones where nothing answers.
    fn config_read32(&mut self, offset: u16) -> Result<u32, AccessError>;
    /// Wakes the function and keeps the kernel from putting it to sleep again. An idle GPU in D3cold may not come back.
    fn pin_power(&mut self) -> Result<(), AccessError>;
    /// Resets the function; returns when the kernel says that it is done, which is before its firmware has booted.
    fn reset(&mut self, kind: ResetKind) -> Result<(), AccessError>;
    /// Gives a BAR another size. It is without a driver meanwhile, and the driver that it had has it afterwards, under a device node that
    /// may have another number. Whether the device took the size is for whoever asks it: `resizable::size`.
    fn resize_bar(&mut self, bar: u8, size: BarSize) -> Result<(), AccessError>;
    /// Other functions that a secondary-bus reset would reset too.
    fn bus_peers(&self) -> Vec<PciAddress>;
    /// A clock that never goes back.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&mut self, time: Duration);
    /// Is told what has happened to it. Nothing comes of it, unless somebody counts.
    fn note(&mut self, _: &Event) {}
}

/// Asks `ready` until it says yes or `limit` has passed; `false` then. It is asked at least once, and once more at the end.
pub fn wait_until<F: Function + ?Sized, E>(
    function: &mut F,
    limit: Duration,
    mut ready: impl FnMut(&mut F) -> Result<bool, E>,
) -> Result<bool, E> {
    const LONGEST_PAUSE: Duration = Duration::from_millis(10);
    let end = function.now() + limit;
    let mut pause = Duration::from_micros(50);
    loop {
        if ready(function)? {
            return Ok(true);
        }
        if function.now() >= end {
            return Ok(false);
        }
        function.sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
