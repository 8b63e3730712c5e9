//! What is done to a guest's GPUs and NVSwitches before each start: into their mode, and through a bus reset each.
//!
//! A guest that was killed leaves a secure session in its GPU that a function-level reset does not end, and that stops the
//! next guest's driver (dstack, pull request 1048). So every device goes through a secondary-bus reset at every attach,
//! whatever state it seems to be in, and its mode is read again afterwards.

use spec::PciAddress;

use super::access::{Function, ResetKind};
use super::mode::Mode;
use super::observe::Observation;
use super::plan::{Action, Plan, Refusal, Step, plan};
use super::reconcile::{Device, ReconcileError, announce, carry_out, look};
use super::resizable::{BarSize, Resize};
use super::topology::Member;

/// The resets that are tried for each device.
const KIND: ResetKind = ResetKind::Bus;

/// What a launch does to GPUs and NVSwitches: a part of its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preparation {
    /// The mode they are brought into; NVSwitches stay `off` unless it is `ppcie`.
    pub mode: Mode,
    /// The devices.
    pub members: Vec<Member>,
    /// The BARs that get another size.
    pub resizes: Vec<Resize>,
    /// All functions that the guest gets: a reset may reach these, and no other.
    pub company: Vec<PciAddress>,
}

impl Preparation {
    /// The steps for each device, a line each: what is known before a device is touched.
    pub fn lines(&self) -> Vec<String> {
        let line = |member: &Member| {
            let mode = target(member.product.family.is_switch(), self.mode);
            let resize = self.resizes.iter().find(|resize| resize.address == member.address);
            let resized = resize.map(|resize| format!("{resize}, ")).unwrap_or_default();
            format!(
                "{} {}: {resized}kept awake, mode {mode} set where it differs, {KIND} by VFIO or the bridge above, \
                 boot awaited, mode {mode} verified",
                member.address, member.product.name
            )
        };
        self.members.iter().map(line).collect()
    }
}

fn target(is_switch: bool, mode: Mode) -> Mode {
    if is_switch && mode != Mode::Ppcie { Mode::Off } else { mode }
}

/// Gives BARs their size, and brings the devices into `mode` and through a bus reset each. `progress` is told each step before it is
/// done.
pub fn attach<F: Function>(
    devices: &mut [Device<F>],
    mode: Mode,
    resizes: &[Resize],
    mut progress: impl FnMut(&Step),
) -> Result<(), ReconcileError> {
    let observations: Vec<_> = devices.iter_mut().map(look).collect();
    // What a killed guest left may be what keeps a device from answering.
    let revive = revive(&observations);
    // Whether that helped is for the next look to say.
    let _ = carry_out(devices, &revive, &mut progress);
    let observations: Vec<_> = devices.iter_mut().map(look).collect();
    let steps = attach_plan(&observations, mode, resizes).map_err(ReconcileError::Refused)?;
    announce(devices, &observations, &steps);
    carry_out(devices, &steps, &mut progress)
}

/// Bus resets of the devices that are unwell and nobody's, where the reset reaches nothing else.
fn revive(observations: &[Observation]) -> Plan {
    let ours = |peer: &PciAddress| observations.iter().any(|observation| observation.address == *peer);
    let sick = observations.iter().filter(|observation| {
        observation.held_by.is_none() && observation.state.is_err() && observation.bus_peers.iter().all(ours)
    });
    Plan { steps: sick.map(|observation| step(observation, Action::Reset(KIND))).collect() }
}

/// The plan of a change of mode, and a bus reset and a look at the mode for each device that it would leave without; BARs get their
/// size before, and are looked at once more after the resets, in which the kernel keeps it.
pub fn attach_plan(observations: &[Observation], mode: Mode, resizes: &[Resize]) -> Result<Plan, Vec<Refusal>> {
    let mut steps = plan(observations, mode, KIND)?.steps;
    let is_reset = |address, steps: &[Step]| {
        steps.iter().any(|step| step.address == address && step.action == Action::Reset(KIND))
    };
    let left: Vec<_> = observations.iter().filter(|observation| !is_reset(observation.address, &steps)).collect();
    let refusals: Vec<_> = left.iter().filter_map(|observation| out_of_scope(observation, observations)).collect();
    if !refusals.is_empty() {
        return Err(refusals);
    }
    steps.extend(left.iter().map(|observation| step(observation, Action::Reset(KIND))));
    let verify = |observation: &&Observation| {
        step(observation, Action::Verify(target(observation.product.family.is_switch(), mode)))
    };
    steps.extend(left.iter().map(verify));
    let all = |action: fn(u8, BarSize) -> Action| {
        let of = move |observation: &Observation| {
            let resize = resizes.iter().find(|resize| resize.address == observation.address)?;
            Some(step(observation, action(resize.bar, resize.to)))
        };
        observations.iter().filter_map(of).collect::<Vec<_>>()
    };
    Ok(Plan { steps: [all(Action::Resize), steps, all(Action::VerifyBar)].concat() })
}

fn out_of_scope(observation: &Observation, all: &[Observation]) -> Option<Refusal> {
    let ours = |peer: &&PciAddress| all.iter().any(|other| other.address == **peer);
    let peers: Vec<_> = observation.bus_peers.iter().filter(|peer| !ours(peer)).copied().collect();
    let (address, name) = (observation.address, observation.product.name);
    (!peers.is_empty()).then_some(Refusal::ResetScope { address, name, peers })
}

fn step(observation: &Observation, action: Action) -> Step {
    Step { address: observation.address, family: observation.product.family, action }
}
