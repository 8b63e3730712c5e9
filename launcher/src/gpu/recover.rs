//! The ladder by which a device that does not answer is brought back, one rung after the other until it is well.

use std::fmt;

use super::access::{Function, ResetKind};
use super::fsp::{FspError, couple_reset, read_knob, write_knob};
use super::knob::Knob;
use super::product::Family;
use super::register::{Unwell, wait_for_boot};
use spec::{Diagnostic, Outcome, PciAddress};

/// A rung of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Wakes the device and keeps it awake.
    Wake,
    /// Resets it.
    Reset(ResetKind),
    /// Has its security processor make the next secondary-bus reset a fundamental one, and resets it. Hopper's alone.
    Fundamental,
}

impl Rung {
    /// All rungs, from the gentlest.
    pub const LADDER: [Self; 5] = [
        Self::Wake,
        Self::Reset(ResetKind::Function),
        Self::Reset(ResetKind::Bus),
        Self::Fundamental,
        Self::Reset(ResetKind::Reenumerate),
    ];

    /// Whether devices of the family have it.
    fn is_of(self, family: Family) -> bool {
        self != Self::Fundamental || family == Family::Hopper
    }

    /// Whether it resets all that is behind the port.
    fn resets_bus(self) -> bool {
        matches!(self, Self::Fundamental | Self::Reset(ResetKind::Bus | ResetKind::Reenumerate))
    }

    /// What it does, and for which trouble.
    pub fn why(self) -> &'static str {
        match self {
            Self::Wake => "a device asleep in D3 reads all ones",
            Self::Reset(ResetKind::Function) => "restarts the firmware; leaves the link and the secure session alone",
            Self::Reset(ResetKind::Bus) => "ends a secure session that a killed VM left behind",
            Self::Fundamental => "starts it as after a loss of power, where its security processor still answers",
            Self::Reset(ResetKind::Reenumerate) => "the kernel forgets the device and assigns its BARs again",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wake => f.write_str("wake"),
            Self::Reset(kind) => kind.fmt(f),
            Self::Fundamental => f.write_str("fundamental reset"),
        }
    }
}

/// What a rung came to.
#[derive(Debug)]
pub struct Attempt {
    /// The rung.
    pub rung: Rung,
    /// How the device was afterwards.
    pub result: Result<(), RungError>,
}

/// Why a rung did not help.
#[derive(Debug, thiserror::Error)]
pub enum RungError {
    /// The device is still unwell.
    #[error(transparent)]
    Unwell(#[from] Unwell),
    /// Its security processor does not couple resets.
    #[error(transparent)]
    Fsp(#[from] FspError),
    /// Its firmware cannot.
    #[error("its firmware has no knob that couples resets")]
    NoCoupling,
    /// The operator has forbidden it.
    #[error("{} may not be changed in band (its ALLOW_INB knob is 0)", Knob::RESET_COUPLING)]
    Forbidden,
}

/// Why no more was tried.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// All rungs were tried.
    #[error("{address} is still unwell after every rung of the ladder")]
    Exhausted {
        /// The device.
        address: PciAddress,
        /// How it is.
        #[source]
        source: RungError,
    },
    /// The next rung would reset others.
    #[error("{address}: the next rung, a secondary-bus reset, would also reset {}", peers(.others))]
    Scope {
        /// The device.
        address: PciAddress,
        /// The others.
        others: Vec<PciAddress>,
    },
}

impl Diagnostic for RecoverError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Exhausted { .. } => {
                "only a full power cycle of the server is left, then a look at its firmware".to_owned()
            }
            Self::Scope { .. } => "free the other functions first, or reset the whole board".to_owned(),
        })
    }
}

fn peers(addresses: &[PciAddress]) -> String {
    addresses.iter().map(PciAddress::to_string).collect::<Vec<_>>().join(", ")
}

/// Climbs until the device is well. `progress` is told each attempt.
pub fn recover<F: Function + ?Sized>(
    function: &mut F,
    family: Family,
    mut progress: impl FnMut(&Attempt),
) -> Result<(), RecoverError> {
    let address = function.address();
    let mut last = RungError::Unwell(Unwell::Absent);
    for rung in Rung::LADDER.into_iter().filter(|rung| rung.is_of(family)) {
        let others = function.bus_peers();
        if rung.resets_bus() && !others.is_empty() {
            return Err(RecoverError::Scope { address, others });
        }
        let attempt = Attempt { rung, result: climb(function, family, rung) };
        progress(&attempt);
        match attempt.result {
            Ok(()) => return Ok(()),
            Err(unwell) => last = unwell,
        }
    }
    Err(RecoverError::Exhausted { address, source: last })
}

fn climb<F: Function + ?Sized>(function: &mut F, family: Family, rung: Rung) -> Result<(), RungError> {
    let mut allowed_here = false;
    match rung {
        Rung::Wake => {}
        Rung::Reset(kind) => function.reset(kind).map_err(Unwell::from)?,
        Rung::Fundamental => {
            allowed_here = couple(function, family)?;
            function.reset(ResetKind::Bus).map_err(Unwell::from)?;
        }
    }
    function.pin_power().map_err(Unwell::from)?;
    wait_for_boot(function, family)?;
    if allowed_here {
        // It is left as it was found.
        write_knob(function, family, Knob::RESET_COUPLING, 0)?;
    }
    Ok(())
}

/// Couples the next reset. Returns whether the knob that allows it had to be set.
fn couple<F: Function + ?Sized>(function: &mut F, family: Family) -> Result<bool, RungError> {
    let allowed = read_knob(function, family, Knob::RESET_COUPLING)?.ok_or(RungError::NoCoupling)?;
    if allowed == 0 {
        let gate = Knob::RESET_COUPLING.allow_in_band();
        let gate = gate.map(|gate| read_knob(function, family, gate)).transpose()?.flatten();
        if gate == Some(0) {
            return Err(RungError::Forbidden);
        }
        write_knob(function, family, Knob::RESET_COUPLING, 1)?;
    }
    couple_reset(function, family)?;
    Ok(allowed == 0)
}
