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
    /// Writes back the knob that a fundamental reset needed. No rung of the ladder: it comes after the last, and is told where it fails.
    WriteBack,
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
            Self::WriteBack => "the knob is to be left as it was found",
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
            Self::WriteBack => write!(f, "write-back of {}", Knob::RESET_COUPLING),
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

/// Climbs until the device is well. `progress` is told each attempt. However it ends, the knob of coupled resets is written back;
/// where that fails, `progress` is told, and the device is as well as it was.
pub fn recover<F: Function + ?Sized>(
    function: &mut F,
    family: Family,
    mut progress: impl FnMut(&Attempt),
) -> Result<(), RecoverError> {
    let mut was_set = false;
    let climbed = climb_ladder(function, family, &mut was_set, &mut progress);
    if was_set && let Err(error) = write_knob(function, family, Knob::RESET_COUPLING, 0) {
        progress(&Attempt { rung: Rung::WriteBack, result: Err(error.into()) });
    }
    climbed
}

fn climb_ladder<F: Function + ?Sized>(
    function: &mut F,
    family: Family,
    was_set: &mut bool,
    progress: &mut impl FnMut(&Attempt),
) -> Result<(), RecoverError> {
    let address = function.address();
    let mut last = RungError::Unwell(Unwell::Absent);
    for rung in Rung::LADDER.into_iter().filter(|rung| rung.is_of(family)) {
        let others = function.bus_peers();
        if rung.resets_bus() && !others.is_empty() {
            return Err(RecoverError::Scope { address, others });
        }
        let attempt = Attempt { rung, result: climb(function, family, rung, was_set) };
        progress(&attempt);
        match attempt.result {
            Ok(()) => return Ok(()),
            Err(unwell) => last = unwell,
        }
    }
    Err(RecoverError::Exhausted { address, source: last })
}

/// `was_set` becomes true once the knob of coupled resets may have been set.
fn climb<F: Function + ?Sized>(
    function: &mut F,
    family: Family,
    rung: Rung,
    was_set: &mut bool,
) -> Result<(), RungError> {
    match rung {
        Rung::Wake | Rung::WriteBack => {}
        Rung::Reset(kind) => function.reset(kind).map_err(Unwell::from)?,
        Rung::Fundamental => {
            couple(function, family, was_set)?;
            function.reset(ResetKind::Bus).map_err(Unwell::from)?;
        }
    }
    function.pin_power().map_err(Unwell::from)?;
    Ok(wait_for_boot(function, family)?)
}

/// Couples the next reset, and sets the knob that allows it where it has to.
fn couple<F: Function + ?Sized>(function: &mut F, family: Family, was_set: &mut bool) -> Result<(), RungError> {
    let allowed = read_knob(function, family, Knob::RESET_COUPLING)?.ok_or(RungError::NoCoupling)?;
    if allowed == 0 {
        let gate = Knob::RESET_COUPLING.allow_in_band();
        let gate = gate.map(|gate| read_knob(function, family, gate)).transpose()?.flatten();
        if gate == Some(0) {
            return Err(RungError::Forbidden);
        }
        // An answer that does not come says nothing of whether it was written.
        *was_set = true;
        write_knob(function, family, Knob::RESET_COUPLING, 1)?;
    }
    Ok(couple_reset(function, family)?)
}
