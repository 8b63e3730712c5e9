//! Why a TDX register is not the expected one: the log of the guest beside the predicted events, register by register, and
//! the input behind each event that differs.
//!
//! A log is worth reading only after it was replayed to registers that hardware signed.

use alloc::vec::Vec;

use super::event::PredictedEvent;
use super::image::load_options;
use super::profile::Profile;
use super::td_hob;
use crate::command_line;
use crate::digest::Digest384;
use crate::eventlog::{Event, EventLog, EventType};
use crate::firmware::TdxLayout;

/// One place where log and prediction part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The event is there, with another digest.
    Digest {
        /// The event in the log, from 0.
        event: usize,
        /// What was predicted.
        expected: PredictedEvent,
        /// What was extended; `None` where the log has no SHA-384.
        found: Option<Digest384>,
    },
    /// An event was predicted and is not there.
    Missing {
        /// What was predicted.
        expected: PredictedEvent,
    },
    /// An event is there and was not predicted.
    Unexpected {
        /// The event in the log, from 0.
        event: usize,
    },
}

/// An event of a log with its number.
type Numbered<'l, 'a> = (usize, &'l Event<'a>);

/// All differences, those of RTMR0 first; within a register in the order of the log. None means that the log is as
/// predicted, for the registers that `predicted` has events of.
pub fn differences(log: &EventLog<'_>, predicted: &[PredictedEvent]) -> Vec<Difference> {
    let mut registers: Vec<_> = predicted.iter().map(|event| event.register).collect();
    registers.sort_unstable();
    registers.dedup();
    let mut differences = Vec::new();
    for register in registers {
        let is_extended =
            |event: &Event<'_>| event.index == register.log_index() && event.event_type != EventType::EV_NO_ACTION;
        let logged: Vec<_> = log.events.iter().enumerate().filter(|(_, event)| is_extended(event)).collect();
        let expected: Vec<_> = predicted.iter().copied().filter(|event| event.register == register).collect();
        align(&logged, &expected, &mut differences);
    }
    differences
}

/// Walks both lists. Where they part, an event that comes later on one side only is taken as missing or unexpected.
fn align(mut logged: &[Numbered<'_, '_>], mut expected: &[PredictedEvent], out: &mut Vec<Difference>) {
    loop {
        let (event, wanted) = match (logged.split_first(), expected.split_first()) {
            (None, None) => return,
            (Some(((event, _), rest)), None) => {
                out.push(Difference::Unexpected { event: *event });
                logged = rest;
                continue;
            }
            (None, Some((wanted, rest))) => {
                out.push(Difference::Missing { expected: *wanted });
                expected = rest;
                continue;
            }
            (Some(event), Some(wanted)) => (event, wanted),
        };
        let (((number, found), later_logged), (wanted, later_expected)) = (event, wanted);
        match step(found, later_logged, wanted, later_expected) {
            Step::Same => (logged, expected) = (later_logged, later_expected),
            Step::Differs => {
                let (event, found) = (*number, found.sha384());
                out.push(Difference::Digest { event, expected: *wanted, found });
                (logged, expected) = (later_logged, later_expected);
            }
            Step::Unexpected => {
                out.push(Difference::Unexpected { event: *number });
                logged = later_logged;
            }
            Step::Missing => {
                out.push(Difference::Missing { expected: *wanted });
                expected = later_expected;
            }
        }
    }
}

enum Step {
    Same,
    Differs,
    Unexpected,
    Missing,
}

fn step(
    found: &Event<'_>,
    later_logged: &[Numbered<'_, '_>],
    wanted: &PredictedEvent,
    later_expected: &[PredictedEvent],
) -> Step {
    let is = |event: &Event<'_>, wanted: &PredictedEvent| {
        event.event_type == wanted.event_type && event.sha384() == Some(wanted.digest)
    };
    if is(found, wanted) {
        return Step::Same;
    }
    let comes = later_logged.iter().position(|(_, event)| is(event, wanted));
    let came = later_expected.iter().position(|wanted| is(found, wanted));
    match (comes, came) {
        (Some(comes), Some(came)) if comes > came => Step::Missing,
        (Some(_), _) => Step::Unexpected,
        (None, Some(_)) => Step::Missing,
        (None, None) if found.event_type == wanted.event_type => Step::Differs,
        (None, None) if later_expected.iter().any(|wanted| wanted.event_type == found.event_type) => Step::Missing,
        (None, None) => Step::Unexpected,
    }
}

/// How much memory a guest had whose TD HOB has this digest, in MiB: whole GiB up to 4 TiB, and every 128 MiB below 8 GiB.
pub fn memory_mib(td_hob: Digest384, layout: &TdxLayout) -> Option<u64> {
    let small = (1..64_u64).map(|step| step.saturating_mul(128));
    let large = (8..=4096_u64).map(|gib| gib.saturating_mul(1024));
    small.chain(large).find(|mib| td_hob::digest(layout, *mib).is_ok_and(|digest| digest == td_hob))
}

/// What happened to a command line whose load options have this digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptionsSlip {
    /// What is different about the line; `None` where it is as expected.
    pub how: Option<&'static str>,
    /// Whether firmware named an initrd.
    pub has_initrd: bool,
    /// The profile of the firmware that passed it on.
    pub profile: &'static str,
}

/// Searches the ways in which a command line is commonly spoilt, with and without an initrd, for every firmware known.
pub fn load_options_slip(found: Digest384, line: &str, profiles: &[&'static Profile]) -> Option<LoadOptionsSlip> {
    let variants = command_line::variants(line.as_bytes());
    for (how, bytes) in &variants {
        // Variants are cut or extended at ASCII characters: they are text as the line was.
        let Ok(text) = core::str::from_utf8(bytes) else { continue };
        for profile in profiles {
            for has_initrd in [true, false] {
                if load_options(profile, text, has_initrd) == found {
                    return Some(LoadOptionsSlip { how: *how, has_initrd, profile: profile.name });
                }
            }
        }
    }
    None
}
