//! The ladder by which a device that does not answer is brought back, one rung after the other until it is well.

use std::fmt;

use super::access::{Function, ResetKind};
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
}

impl Rung {
    /// All rungs, from the gentlest.
    pub const LADDER: [Self; 4] = [
        Self::Wake,
        Self::Reset(ResetKind::Function),
        Self::Reset(ResetKind::Bus),
        Self::Reset(ResetKind::Reenumerate),
    ];

    /// What it does, and for which trouble.
    pub fn why(self) -> &'static str {
        match self {
            Self::Wake => "a device asleep in D3 reads all ones",
            Self::Reset(ResetKind::Function) => "restarts the firmware; leaves the link and the secure session alone",
            Self::Reset(ResetKind::Bus) => "ends a secure session that a killed VM left behind",
            Self::Reset(ResetKind::Reenumerate) => "the kernel forgets the device and assigns its BARs again",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wake => f.write_str("wake"),
            Self::Reset(kind) => kind.fmt(f),
        }
    }
}

/// What a rung came to.
#[derive(Debug)]
pub struct Attempt {
    /// The rung.
    pub rung: Rung,
    /// How the device was afterwards.
    pub result: Result<(), Unwell>,
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
        source: Unwell,
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
    let mut last = Unwell::Absent;
    for rung in Rung::LADDER {
        let resets_bus = matches!(rung, Rung::Reset(kind) if kind != ResetKind::Function);
        let others = function.bus_peers();
        if resets_bus && !others.is_empty() {
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

fn climb<F: Function + ?Sized>(function: &mut F, family: Family, rung: Rung) -> Result<(), Unwell> {
    if let Rung::Reset(kind) = rung {
        function.reset(kind)?;
    }
    function.pin_power()?;
    wait_for_boot(function, family)
}
