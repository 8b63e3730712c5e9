//! The knobs of the security processor that decide the mode, and the order in which they may be changed.

use std::collections::BTreeMap;
use std::fmt;

use super::mode::Mode;
use super::product::Family;

/// The number of a PRC knob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Knob(pub u8);

impl Knob {
    /// An older knob that excludes the confidential modes.
    pub const LEGACY_2: Self = Self(2);
    /// Another one.
    pub const LEGACY_4: Self = Self(4);
    /// Development tools (CCD).
    pub const DEVTOOLS: Self = Self(6);
    /// Confidential computing (CCM).
    pub const CONFIDENTIAL: Self = Self(8);
    /// BAR0_DECOUPLER.
    pub const BAR0_DECOUPLER: Self = Self(10);
    /// Another older knob that excludes the confidential modes; Hopper and NVSwitch only.
    pub const LEGACY_34: Self = Self(34);
    /// Whether resets may be coupled (FORCE_RESET_COUPLING).
    pub const RESET_COUPLING: Self = Self(36);
    /// Protected PCIe (PPCIE).
    pub const PROTECTED_PCIE: Self = Self(45);

    /// The knob that says whether this one may be changed in band: 0 means that the operator has forbidden it.
    pub fn allow_in_band(self) -> Option<Self> {
        let gated =
            [Self::DEVTOOLS, Self::CONFIDENTIAL, Self::BAR0_DECOUPLER, Self::RESET_COUPLING, Self::PROTECTED_PCIE];
        gated.contains(&self).then(|| Self(self.0 - 1))
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::DEVTOOLS => f.write_str("CCD"),
            Self::CONFIDENTIAL => f.write_str("CCM"),
            Self::BAR0_DECOUPLER => f.write_str("BAR0_DECOUPLER"),
            Self::RESET_COUPLING => f.write_str("FORCE_RESET_COUPLING"),
            Self::PROTECTED_PCIE => f.write_str("PPCIE"),
            Self(number) => write!(f, "knob {number}"),
        }
    }
}

/// What a device's knobs hold. A knob that is not here does not exist on the device's firmware.
pub type Knobs = BTreeMap<Knob, u16>;

/// The knobs that decide the mode of a family, each with the one that allows its change.
pub fn of_interest(family: Family) -> Vec<Knob> {
    let mut knobs = Vec::new();
    if family.is_switch() {
        knobs.extend([Knob::LEGACY_2, Knob::LEGACY_4, Knob::LEGACY_34]);
    } else {
        knobs.extend([Knob::LEGACY_2, Knob::LEGACY_4, Knob::DEVTOOLS, Knob::CONFIDENTIAL]);
        if family == Family::Hopper {
            knobs.push(Knob::LEGACY_34);
        }
    }
    if family.has_bar0_decoupler() {
        knobs.push(Knob::BAR0_DECOUPLER);
    }
    if family.has_protected_pcie() {
        knobs.push(Knob::PROTECTED_PCIE);
    }
    let gates: Vec<_> = knobs.iter().filter_map(|knob| knob.allow_in_band()).collect();
    knobs.extend(gates);
    knobs
}

/// What the knobs must be for `mode`, in the order in which they are to be written: never development tools without
/// confidential computing, never protected PCIe together with it. Knobs that the device does not have are left out.
pub fn wanted(family: Family, knobs: &Knobs, mode: Mode) -> Vec<(Knob, u16)> {
    let legacy = [(Knob::LEGACY_2, 0), (Knob::LEGACY_4, 0), (Knob::LEGACY_34, 0)];
    let protected_pcie_off = [(Knob::PROTECTED_PCIE, 0)];
    let confidential_off = [(Knob::DEVTOOLS, 0), (Knob::CONFIDENTIAL, 0)];
    let decoupler = |value| [(Knob::BAR0_DECOUPLER, value)];
    let mut order: Vec<(Knob, u16)> = Vec::new();
    match mode {
        Mode::Off => {
            order.extend(decoupler(0));
            order.extend(confidential_off);
            order.extend(protected_pcie_off);
        }
        Mode::On | Mode::Devtools => {
            order.extend(legacy);
            order.extend(protected_pcie_off);
            order.extend(decoupler(if mode == Mode::On { 2 } else { 0 }));
            order.extend([(Knob::CONFIDENTIAL, 1), (Knob::DEVTOOLS, u16::from(mode == Mode::Devtools))]);
        }
        Mode::Ppcie => {
            order.extend(legacy);
            order.extend(confidential_off);
            order.extend(decoupler(2));
            order.push((Knob::PROTECTED_PCIE, 1));
        }
    }
    let has = of_interest(family);
    order.retain(|(knob, _)| has.contains(knob) && knobs.contains_key(knob));
    order
}

/// The mode that the knobs ask for after the next reset; `None` where they contradict each other.
pub fn pending_mode(knobs: &Knobs) -> Option<Mode> {
    let is_set = |knob| knobs.get(&knob).is_some_and(|value| *value != 0);
    match (is_set(Knob::CONFIDENTIAL), is_set(Knob::DEVTOOLS), is_set(Knob::PROTECTED_PCIE)) {
        (false, false, false) => Some(Mode::Off),
        (true, false, false) => Some(Mode::On),
        (true, true, false) => Some(Mode::Devtools),
        (false, false, true) => Some(Mode::Ppcie),
        _ => None,
    }
}
