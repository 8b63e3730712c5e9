//! What is known of a device before anything is decided: identity, health, the active mode and the knobs.

use super::access::Function;
use super::fsp::{FspError, read_knobs};
use super::knob::{Knobs, pending_mode};
use super::mode::{ActiveMode, Mode};
use super::product::Product;
use super::register::{Unwell, active_mode, serial, wait_for_boot};
use spec::PciAddress;

/// A device and what it says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Where it is.
    pub address: PciAddress,
    /// What it is.
    pub product: Product,
    /// Who has it: a driver of the host or a process. Such a device is not touched.
    pub held_by: Option<String>,
    /// Its state, or why it has none.
    pub state: Result<State, Trouble>,
    /// Other functions that a secondary-bus reset would reset too.
    pub bus_peers: Vec<PciAddress>,
}

/// Why a device has no state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// For people.
    pub reason: String,
    /// Whether only its security processor is stuck, as after a tool that was killed in the middle of a request: a
    /// function-level reset restarts it.
    pub needs_restart: bool,
    /// Whether its firmware is in recovery mode, which no reset ends.
    pub in_recovery: bool,
}

/// What a device that is well says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The mode it is in.
    pub active: ActiveMode,
    /// Its knobs: what it will be in after a reset.
    pub knobs: Knobs,
    /// Its serial number (PDI), where it tells.
    pub serial: Option<u64>,
}

impl State {
    /// The mode that the knobs ask for; `None` where they contradict each other.
    pub fn pending(&self) -> Option<Mode> {
        pending_mode(&self.knobs)
    }
}

/// Why a device's state is not known.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// It is not well.
    #[error(transparent)]
    Unwell(#[from] Unwell),
    /// Its security processor cannot be asked.
    #[error(transparent)]
    Fsp(#[from] FspError),
}

impl ObserveError {
    /// What a plan needs to know of it.
    pub fn trouble(&self) -> Trouble {
        let needs_restart =
            matches!(self, Self::Fsp(FspError::Busy(_) | FspError::TimedOut { .. } | FspError::Malformed { .. }));
        let in_recovery = matches!(self, Self::Unwell(Unwell::Recovery));
        Trouble { reason: self.to_string(), needs_restart, in_recovery }
    }
}

/// Wakes a device, waits until it has booted, and reads its mode and knobs. Changes nothing but its power state.
pub fn observe<F: Function + ?Sized>(function: &mut F, product: Product) -> Result<State, ObserveError> {
    function.pin_power().map_err(Unwell::from)?;
    wait_for_boot(function, product.family)?;
    let active = active_mode(function, product.family)?;
    let knobs = read_knobs(function, product.family)?;
    Ok(State { active, knobs, serial: serial(function).ok() })
}
