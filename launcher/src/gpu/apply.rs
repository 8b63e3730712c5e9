//! Carries out a plan, step by step. It decides nothing; what fails is left to the next observation.

use super::access::{Event, Function};
use super::fsp::{FspError, write_knob};
use super::mode::{ActiveMode, Mode};
use super::plan::{Action, Step};
use super::register::{Unwell, active_mode, wait_for_boot};
use super::resizable::{self, BarSize};

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
    /// A BAR does not have the size that it was given.
    #[error(
        "the device says that its BAR {bar} has {}, expected {expected}",
        .found.map_or("no size that can be chosen".to_owned(), |found| found.to_string())
    )]
    BarUnchanged {
        /// Its register.
        bar: u8,
        /// What it was given.
        expected: BarSize,
        /// What it has; none where its capability is not there.
        found: Option<BarSize>,
    },
}

fn verify_bar<F: Function + ?Sized>(function: &mut F, bar: u8, expected: BarSize) -> Result<(), StepError> {
    let found = resizable::size(function, bar).map_err(Unwell::from)?;
    if found == Some(expected) { Ok(()) } else { Err(StepError::BarUnchanged { bar, expected, found }) }
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
        Action::Resize(bar, expected) => {
            let before = resizable::size(function, bar).map_err(Unwell::from)?;
            function.resize_bar(bar, expected).map_err(Unwell::from)?;
            function.pin_power().map_err(Unwell::from)?;
            verify_bar(function, bar, expected).inspect_err(|_| {
                // The kernel believes what it has written. That this fails too is the smaller of two errors.
                if let Some(before) = before {
                    let _ = function.resize_bar(bar, before).and_then(|()| function.pin_power());
                }
            })?;
        }
        Action::VerifyBar(bar, expected) => verify_bar(function, bar, expected)?,
    }
    Ok(())
}
