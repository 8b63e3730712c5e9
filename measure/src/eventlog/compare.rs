//! An event log beside the events that were expected, register by register: which event differs, which is missing, which
//! is there and should not be. One event too many does not make all that follow it differ.

use alloc::vec::Vec;

use super::{AlgorithmId, Event, EventType};

/// An event that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The PCR, or the measurement register of TDX (1 is RTMR0).
    pub index: u32,
    /// How the log calls it.
    pub event_type: EventType,
    /// What is extended; `None` where only the type is known.
    pub digest: Option<&'a [u8]>,
}

/// One place where the log is not, or cannot be said to be, as expected. Events and wanted events are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The event is there, with another digest.
    Digest {
        /// The event in the log.
        event: usize,
        /// The one that was wanted.
        wanted: usize,
    },
    /// An event is not there.
    Missing {
        /// The one that was wanted.
        wanted: usize,
    },
    /// An event is there that was not wanted.
    Unexpected {
        /// The event in the log.
        event: usize,
    },
    /// The event is there, and what it should be is not known.
    Unknown {
        /// The event in the log.
        event: usize,
        /// The one that was wanted.
        wanted: usize,
    },
}

/// All differences in the registers that `registers` names, in its order; within a register in the order of the log.
/// EV_NO_ACTION is not extended, and not looked at.
pub fn differences(
    events: &[Event<'_>],
    bank: AlgorithmId,
    wanted: &[Wanted<'_>],
    registers: &[u32],
) -> Vec<Difference> {
    let mut found = Vec::new();
    for register in registers {
        let logged = events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.index == *register && event.event_type != EventType::EV_NO_ACTION);
        let logged: Vec<_> = logged.map(|(number, event)| (number, event.event_type, event.digest(bank))).collect();
        let expected: Vec<_> = wanted.iter().enumerate().filter(|(_, wanted)| wanted.index == *register).collect();
        align(&logged, &expected, &mut found);
    }
    found
}

/// An event of a log: its number, type and digest.
type Logged<'a> = (usize, EventType, Option<&'a [u8]>);
type Expected<'w, 'a> = (usize, &'w Wanted<'a>);

/// Walks both lists. Where they part, an event that comes later on one side only is taken as missing or unexpected.
fn align(mut logged: &[Logged<'_>], mut expected: &[Expected<'_, '_>], out: &mut Vec<Difference>) {
    loop {
        let ((event, later_logged), (wanted, later_expected)) = match (logged.split_first(), expected.split_first()) {
            (None, None) => return,
            (Some(((event, ..), rest)), None) => {
                out.push(Difference::Unexpected { event: *event });
                logged = rest;
                continue;
            }
            (None, Some(((wanted, _), rest))) => {
                out.push(Difference::Missing { wanted: *wanted });
                expected = rest;
                continue;
            }
            (Some(event), Some(wanted)) => (event, wanted),
        };
        let step = step(event, later_logged, wanted.1, later_expected);
        let (event, wanted) = (event.0, wanted.0);
        match step {
            Step::Same => {}
            Step::Differs => out.push(Difference::Digest { event, wanted }),
            Step::Unknown => out.push(Difference::Unknown { event, wanted }),
            Step::Unexpected => out.push(Difference::Unexpected { event }),
            Step::Missing => out.push(Difference::Missing { wanted }),
        }
        if step != Step::Missing {
            logged = later_logged;
        }
        if step != Step::Unexpected {
            expected = later_expected;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Same,
    Differs,
    Unknown,
    Unexpected,
    Missing,
}

fn step(
    event: &Logged<'_>,
    later_logged: &[Logged<'_>],
    wanted: &Wanted<'_>,
    later_expected: &[Expected<'_, '_>],
) -> Step {
    let is = |(_, event_type, digest): &Logged<'_>, wanted: &Wanted<'_>| {
        *event_type == wanted.event_type && digest.is_some() && *digest == wanted.digest
    };
    if is(event, wanted) {
        return Step::Same;
    }
    let same_type = event.1 == wanted.event_type;
    let comes = later_logged.iter().position(|event| is(event, wanted));
    let came = later_expected.iter().position(|(_, wanted)| is(event, wanted));
    match (comes, came) {
        (Some(comes), Some(came)) if comes > came => Step::Missing,
        (Some(_), _) => Step::Unexpected,
        (None, Some(_)) => Step::Missing,
        (None, None) if same_type && wanted.digest.is_none() => Step::Unknown,
        (None, None) if same_type => Step::Differs,
        (None, None) if later_expected.iter().any(|(_, wanted)| wanted.event_type == event.1) => Step::Missing,
        (None, None) => Step::Unexpected,
    }
}
