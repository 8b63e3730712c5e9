//! From observations and a wish to a list of steps. A pure value: what is printed by `--plan` is what is carried out.
//!
//! A node changes as one: all devices leave a mode that excludes the wanted one and are reset, all are staged, all are
//! reset, all are verified; NVSwitches before GPUs.

use std::fmt;

use spec::PciAddress;

use super::access::ResetKind;
use super::knob::{Knob, Knobs, wanted};
use super::mode::{ActiveMode, Mode};
use super::observe::{Observation, State, Trouble};
use super::product::Family;
use super::resizable::BarSize;

/// One thing done to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The device.
    pub address: PciAddress,
    /// Its register layout.
    pub family: Family,
    /// What is done.
    pub action: Action,
}

/// What is done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes a knob.
    Stage(Knob, u16),
    /// Resets the device, keeps it awake, and waits until it has booted.
    Reset(ResetKind),
    /// Reads the active mode and compares.
    Verify(Mode),
    /// Gives a BAR another size, and reads in the device's capability whether it has it; takes it back where not.
    Resize(u8, BarSize),
    /// Reads the size of a BAR in the device's capability, and compares.
    VerifyBar(u8, BarSize),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.action)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(knob, value) => write!(f, "write {value} to {knob}"),
            Self::Reset(kind) => write!(f, "{kind}, keep awake, wait for boot"),
            Self::Verify(mode) => write!(f, "verify that the mode is {mode}"),
            Self::Resize(bar, size) => write!(f, "take it from its driver, resize BAR {bar} to {size}, give it back"),
            Self::VerifyBar(bar, size) => write!(f, "verify that BAR {bar} has {size}"),
        }
    }
}

/// Why a device is not touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody has it.
    #[error("{address} ({name}) is held by {by}")]
    Held {
        /// The device.
        address: PciAddress,
        /// Its name.
        name: &'static str,
        /// Who has it.
        by: String,
    },
    /// It is not well.
    #[error("{address} ({name}): {reason}")]
    Unwell {
        /// The device.
        address: PciAddress,
        /// Its name.
        name: &'static str,
        /// How it is.
        reason: String,
    },
    /// Its mode is not to be set in band.
    #[error("{address} ({name}) hangs on its CPU by NVLink-C2C: its mode cannot be set in band")]
    ChipToChip {
        /// The device.
        address: PciAddress,
        /// Its name.
        name: &'static str,
    },
    /// It does not have the mode.
    #[error("{address} ({name}) has no mode \"{mode}\": {reason}")]
    NoSuchMode {
        /// The device.
        address: PciAddress,
        /// Its name.
        name: &'static str,
        /// The wanted mode.
        mode: Mode,
        /// Why.
        reason: &'static str,
    },
    /// The operator or the BMC has forbidden the change.
    #[error("{address} ({name}): {knob} may not be changed in band (its ALLOW_INB knob is 0)")]
    Forbidden {
        /// The device.
        address: PciAddress,
        /// Its name.
        name: &'static str,
        /// The knob.
        knob: Knob,
    },
    /// A bus reset would reset others.
    #[error("{address} ({name}): a secondary-bus reset would also reset {}", list(.peers))]
    ResetScope {
        /// The device.
        address: PciAddress,
        /// Its name.
        name: &'static str,
        /// The others.
        peers: Vec<PciAddress>,
    },
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Held { .. } => "stop the VM or process first, or unbind the driver",
            Self::Unwell { .. } => "try `bullion gpu recover ADDRESS`",
            Self::Forbidden { .. } => "allow in-band changes of the mode in the BMC, or set the mode there",
            Self::ResetScope { .. } => {
                "name the other functions too, if they are GPUs or NVSwitches; else free them first"
            }
            Self::ChipToChip { .. } | Self::NoSuchMode { .. } => return None,
        })
    }
}

fn list(addresses: &[PciAddress]) -> String {
    addresses.iter().map(PciAddress::to_string).collect::<Vec<_>>().join(", ")
}

/// What is to be done, in order. Empty where everything is as wished.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

/// What restarts the security processors that are stuck. What comes after it can be planned only afterwards.
pub fn restart(observations: &[Observation]) -> Plan {
    let stuck = observations.iter().filter(|observation| {
        observation.held_by.is_none() && observation.state.as_ref().is_err_and(|trouble| trouble.needs_restart)
    });
    let steps = stuck.map(|observation| Step {
        address: observation.address,
        family: observation.product.family,
        action: Action::Reset(ResetKind::Function),
    });
    Plan { steps: steps.collect() }
}

/// What brings all devices into `mode` (NVSwitches into `off` unless it is `ppcie`), with resets of `kind`.
pub fn plan(observations: &[Observation], mode: Mode, kind: ResetKind) -> Result<Plan, Vec<Refusal>> {
    let mut devices = Vec::new();
    let mut refusals = Vec::new();
    for observation in observations {
        match Device::new(observation, mode) {
            Ok(device) => devices.push(device),
            Err(refusal) => refusals.push(refusal),
        }
    }
    devices.sort_by_key(|device| (!device.family().is_switch(), device.observation.address));
    for device in &devices {
        refusals.extend(device.refusals(kind, &observations.iter().map(|o| o.address).collect::<Vec<_>>()));
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let leaving: Vec<_> = devices.iter().filter(|device| device.must_leave()).collect();
    let mut steps = round(&leaving, |_| Mode::Off, kind);
    let left =
        |device: &&Device<'_>| leaving.iter().any(|other| other.observation.address == device.observation.address);
    let changing: Vec<_> = devices.iter().filter(|device| left(device) || !device.is_settled()).collect();
    steps.extend(round_after(&changing, left, kind));
    Ok(Plan { steps })
}

/// Stages `mode` on all devices, then resets each, then verifies each.
fn round(devices: &[&Device<'_>], mode: impl Fn(&Device<'_>) -> Mode, kind: ResetKind) -> Vec<Step> {
    let mut steps = Vec::new();
    for device in devices {
        steps.extend(device.stage(&device.state.knobs, mode(device)));
    }
    steps.extend(devices.iter().map(|device| device.step(Action::Reset(kind))));
    steps.extend(devices.iter().map(|device| device.step(Action::Verify(mode(device)))));
    steps
}

/// The last round: devices that were taken through `off` start from there.
fn round_after<'a>(devices: &[&Device<'a>], left: impl Fn(&&Device<'a>) -> bool, kind: ResetKind) -> Vec<Step> {
    let mut steps = Vec::new();
    for device in devices {
        let mut knobs = device.state.knobs.clone();
        if left(device) {
            knobs.extend(wanted(device.family(), &device.state.knobs, Mode::Off));
        }
        steps.extend(device.stage(&knobs, device.target));
    }
    let resetting: Vec<_> = devices.iter().filter(|device| left(device) || !device.is_active()).collect();
    steps.extend(resetting.iter().map(|device| device.step(Action::Reset(kind))));
    steps.extend(devices.iter().map(|device| device.step(Action::Verify(device.target))));
    steps
}

struct Device<'a> {
    observation: &'a Observation,
    state: &'a State,
    target: Mode,
}

impl<'a> Device<'a> {
    fn new(observation: &'a Observation, mode: Mode) -> Result<Self, Refusal> {
        let (address, name) = (observation.address, observation.product.name);
        if let Some(by) = &observation.held_by {
            return Err(Refusal::Held { address, name, by: by.clone() });
        }
        if observation.product.chip_to_chip {
            return Err(Refusal::ChipToChip { address, name });
        }
        let unwell = |trouble: &Trouble| Refusal::Unwell { address, name, reason: trouble.reason.clone() };
        let state = observation.state.as_ref().map_err(unwell)?;
        let target = if observation.product.family.is_switch() && mode != Mode::Ppcie { Mode::Off } else { mode };
        Ok(Self { observation, state, target })
    }

    fn family(&self) -> Family {
        self.observation.product.family
    }

    fn step(&self, action: Action) -> Step {
        Step { address: self.observation.address, family: self.family(), action }
    }

    /// The writes that take `knobs` to `mode`.
    fn stage(&self, knobs: &Knobs, mode: Mode) -> Vec<Step> {
        wanted(self.family(), knobs, mode)
            .into_iter()
            .filter(|(knob, value)| knobs.get(knob) != Some(value))
            .map(|(knob, value)| self.step(Action::Stage(knob, value)))
            .collect()
    }

    fn is_active(&self) -> bool {
        self.state.active == ActiveMode::Valid(self.target)
    }

    /// Whether nothing is to be done: the mode is active, and stays after a reset.
    fn is_settled(&self) -> bool {
        self.is_active() && self.stage(&self.state.knobs, self.target).is_empty()
    }

    /// Whether the active mode excludes the wanted one, so that the way goes through `off`.
    fn must_leave(&self) -> bool {
        use Mode::{Devtools, On, Ppcie};
        matches!(
            (self.state.active, self.target),
            (ActiveMode::Valid(Ppcie), On | Devtools) | (ActiveMode::Valid(On | Devtools) | ActiveMode::Invalid, Ppcie)
        )
    }

    fn refusals(&self, kind: ResetKind, ours: &[PciAddress]) -> Vec<Refusal> {
        let (address, name) = (self.observation.address, self.observation.product.name);
        let mut refusals = Vec::new();
        if let Some(reason) = self.lacks() {
            refusals.push(Refusal::NoSuchMode { address, name, mode: self.target, reason });
        }
        if self.is_settled() {
            return refusals;
        }
        let mut staged = self.stage(&self.state.knobs, self.target);
        if self.must_leave() {
            staged.extend(self.stage(&self.state.knobs, Mode::Off));
        }
        for step in staged {
            let Action::Stage(knob, _) = step.action else { continue };
            let gate = knob.allow_in_band().and_then(|gate| self.state.knobs.get(&gate));
            let refusal = Refusal::Forbidden { address, name, knob };
            if gate == Some(&0) && !refusals.contains(&refusal) {
                refusals.push(refusal);
            }
        }
        let peers: Vec<_> = self.observation.bus_peers.iter().filter(|peer| !ours.contains(peer)).copied().collect();
        if kind != ResetKind::Function && !peers.is_empty() {
            refusals.push(Refusal::ResetScope { address, name, peers });
        }
        refusals
    }

    /// Why the device cannot be in its target mode.
    fn lacks(&self) -> Option<&'static str> {
        let has = |knob| self.state.knobs.contains_key(&knob);
        match self.target {
            Mode::Ppcie if !self.family().has_protected_pcie() => {
                Some("protected PCIe is for Hopper; use \"on\", also for several GPUs")
            }
            Mode::Ppcie if !has(Knob::PROTECTED_PCIE) => Some("its firmware is too old for protected PCIe"),
            Mode::On | Mode::Devtools if !has(Knob::CONFIDENTIAL) => {
                Some("its firmware has no knob for confidential computing")
            }
            _ => None,
        }
    }
}
