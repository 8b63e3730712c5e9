//! From events to the values that the registers must hold.

use super::{EventLog, EventType};
use crate::digest::Digest384;

/// RTMR0 to RTMR3 after all events of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The registers.
    pub rtmr: [Digest384; 4],
}

/// A log that cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An event has no SHA-384 digest.
    #[error("event {0} has no SHA-384 digest: TDX registers cannot be replayed")]
    NoDigest(usize),
    /// An event is for a register that TDX does not have, or that firmware cannot extend.
    #[error("event {event} is for register {index}: RTMR0 to RTMR3 are 1 to 4")]
    Register {
        /// The event, from 0.
        event: usize,
        /// The register that it names.
        index: u32,
    },
}

/// How often EV_SEPARATOR may come. It ends what firmware measures before it starts other code, so a second one lets code
/// that runs later look like firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeparatorRule {
    /// Once per register: edk2 since 202411.
    OncePerRegister,
    /// Twice in RTMR0, which stands for PCR 1 and PCR 7: edk2 before 202411.
    TwiceInRtmr0,
}

/// A register with more separators than the rule allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event} is separator number {number} of register {index}: what follows may not be what it says")]
pub struct DuplicateSeparator {
    /// The event, from 0.
    pub event: usize,
    /// The register as logged (1 is RTMR0).
    pub index: u32,
    /// Which separator of that register it is, from 1.
    pub number: usize,
}

impl EventLog<'_> {
    /// Extends every event into its register, starting from zero. EV_NO_ACTION is logged and not extended.
    pub fn replay(&self) -> Result<Replay, ReplayError> {
        let mut rtmr = [Digest384::ZERO; 4];
        for (number, event) in self.events.iter().enumerate() {
            if event.event_type == EventType::EV_NO_ACTION {
                continue;
            }
            let register = usize::try_from(event.index).ok().and_then(|index| rtmr.get_mut(index.checked_sub(1)?));
            let register = register.ok_or(ReplayError::Register { event: number, index: event.index })?;
            *register = register.extended(&event.sha384().ok_or(ReplayError::NoDigest(number))?);
        }
        Ok(Replay { rtmr })
    }

    /// Refuses a log with more separators in a register than firmware makes.
    pub fn check_separators(&self, rule: SeparatorRule) -> Result<(), DuplicateSeparator> {
        for (number, event) in self.events.iter().enumerate() {
            let is_same =
                |other: &super::Event<'_>| other.event_type == EventType::EV_SEPARATOR && other.index == event.index;
            let before = self.events.iter().take(number).filter(|other| is_same(other)).count();
            let allowed = if rule == SeparatorRule::TwiceInRtmr0 && event.index == 1 { 2 } else { 1 };
            if event.event_type == EventType::EV_SEPARATOR && before >= allowed {
                return Err(DuplicateSeparator { event: number, index: event.index, number: before.saturating_add(1) });
            }
        }
        Ok(())
    }
}
