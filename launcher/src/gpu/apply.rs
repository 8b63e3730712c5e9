//! Carries out a plan, step by step. It decides nothing; what fails is left to the next observation.

use super::access::{Event, Function};
use super::fsp::{FspError, write_knob};
use super::mode::{ActiveMode, Mode};
use super::plan::{Action, Step};
use super::register::{Unwell, active_mode, wait_for_boot};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The device is not well.
    #[error(transparent)]
    Unwell(#[from] Unwell),
    /// The security processor did not take it.
    #[error(transparent)]
    Fsp(#[from] FspError),
    /// The mode is not the one that was staged.
    #[error("the mode is {found} after the reset, expected {expected}")]
    Unchanged {
        /// What was staged.
        expected: Mode,
        /// What is active.
        found: ActiveMode,
    },
}

/// Carries out one step on the device it is for.
pub fn apply<F: Function + ?Sized>(function: &mut F, step: &Step) -> Result<(), StepError> {
    match step.action {
        Action::Stage(knob, value) => write_knob(function, step.family, knob, value)?,
        Action::Reset(kind) => {
            function.reset(kind).map_err(Unwell::from)?;
            // The kernel may arm power management again after a reset.
            function.pin_power().map_err(Unwell::from)?;
            wait_for_boot(function, step.family)?;
        }
        Action::Verify(expected) => {
            let found = active_mode(function, step.family)?;
            if found != ActiveMode::Valid(expected) {
                return Err(StepError::Unchanged { expected, found });
            }
            function.note(&Event::Verified(expected));
        }
    }
    Ok(())
}
