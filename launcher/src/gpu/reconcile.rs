//! Observe, plan, apply, and again with a more thorough reset where the first did not do it.

use super::access::{Event, Function, ResetKind};
use super::apply::{StepError, apply};
use super::mode::{ActiveMode, Mode};
use super::observe::{Observation, Trouble, observe};
use super::plan::{Action, Plan, Refusal, Step, plan, restart};
use super::product::Product;
use spec::{Diagnostic, Outcome};

/// The resets that are tried, in this order. A function-level reset makes the knobs active on most devices; where it
/// does not, a secondary-bus reset does.
const RESETS: [ResetKind; 2] = [ResetKind::Function, ResetKind::Bus];

/// A device to bring into a mode.
#[derive(Debug)]
pub struct Device<F> {
    /// The way to it.
    pub function: F,
    /// What it is.
    pub product: Product,
    /// Who has it, where somebody does.
    pub held_by: Option<String>,
}

/// Why the devices are not in the mode.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Nothing was done.
    #[error("{}", .0.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Refusal>),
    /// A step failed. What was staged is staged; another run goes on from there.
    #[error("{step}")]
    Failed {
        /// The step.
        step: Step,
        /// Why.
        #[source]
        source: StepError,
    },
}

impl Diagnostic for ReconcileError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Refused(refusals) => refusals.iter().find_map(Refusal::hint)?,
            Self::Failed { source: StepError::Unchanged { .. }, .. } => {
                "a full power cycle of the server may be needed; if the mode is still the same, look for a BMC that sets it"
            }
            Self::Failed { source: StepError::BarUnchanged { .. }, .. } => {
                "newer firmware of the GPU may help; until then, see with `lspci -vv` which sizes it has, and pass it without a TEE"
            }
            Self::Failed { .. } => {
                "run the same command again: it goes on from where this one ended. If the device stays unwell, `bullion gpu recover ADDRESS`"
            }
        };
        Some(hint.to_owned())
    }
}

/// Observes a device. One that somebody has is not touched, and has no state.
pub fn look<F: Function>(device: &mut Device<F>) -> Observation {
    let state = match &device.held_by {
        Some(by) => Err(Trouble { reason: format!("held by {by}"), needs_restart: false, in_recovery: false }),
        None => observe(&mut device.function, device.product).map_err(|error| error.trouble()),
    };
    Observation {
        address: device.function.address(),
        product: device.product,
        held_by: device.held_by.clone(),
        state,
        bus_peers: device.function.bus_peers(),
    }
}

/// Brings all devices into `mode`. Returns whether anything had to be done. `progress` is told each step before it is done.
pub fn reconcile<F: Function>(
    devices: &mut [Device<F>],
    mode: Mode,
    mut progress: impl FnMut(&Step),
) -> Result<bool, ReconcileError> {
    let mut observations: Vec<_> = devices.iter_mut().map(look).collect();
    let stuck = restart(&observations);
    let mut changed = !stuck.steps.is_empty();
    if changed {
        carry_out(devices, &stuck, &mut progress)?;
        observations = devices.iter_mut().map(look).collect();
    }
    let mut unchanged = None;
    for kind in RESETS {
        if unchanged.is_some() {
            observations = devices.iter_mut().map(look).collect();
        }
        let plan = match plan(&observations, mode, kind) {
            Ok(plan) if plan.steps.is_empty() => return Ok(changed),
            Ok(plan) => plan,
            // That the mode did not change is what is to be mended; the refusal to go further is its consequence.
            Err(refusals) => return Err(unchanged.unwrap_or(ReconcileError::Refused(refusals))),
        };
        changed = true;
        if unchanged.is_none() {
            announce(devices, &observations, &plan);
        }
        match carry_out(devices, &plan, &mut progress) {
            Ok(()) => return Ok(true),
            Err(error @ ReconcileError::Failed { source: StepError::Unchanged { .. }, .. }) => unchanged = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(unchanged.unwrap_or(ReconcileError::Refused(Vec::new())))
}

/// Tells the devices whose mode the plan changes that it begins.
pub(super) fn announce<F: Function>(devices: &mut [Device<F>], observations: &[Observation], plan: &Plan) {
    for device in devices {
        let address = device.function.address();
        let last = plan.steps.iter().rev().find_map(|step| match step.action {
            Action::Verify(mode) if step.address == address => Some(mode),
            _ => None,
        });
        let state = observations.iter().find(|observation| observation.address == address);
        let from = state.and_then(|observation| Some(observation.state.as_ref().ok()?.active));
        if let (Some(from), Some(to)) = (from, last)
            && from != ActiveMode::Valid(to)
        {
            device.function.note(&Event::Changing { from, to });
        }
    }
}

pub(super) fn carry_out<F: Function>(
    devices: &mut [Device<F>],
    plan: &Plan,
    progress: &mut impl FnMut(&Step),
) -> Result<(), ReconcileError> {
    for step in &plan.steps {
        let Some(device) = devices.iter_mut().find(|device| device.function.address() == step.address) else {
            continue;
        };
        progress(step);
        apply(&mut device.function, step).map_err(|source| ReconcileError::Failed { step: step.clone(), source })?;
    }
    Ok(())
}
