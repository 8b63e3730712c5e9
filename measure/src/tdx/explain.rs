//! Why a TDX register is not the expected one: the log of the guest beside the predicted events, register by register, and
//! the input behind each event that differs.
//!
//! A log is worth reading only after it was replayed to registers that hardware signed.

use alloc::string::String;
use alloc::vec::Vec;

use super::event::{Input, PredictedEvent, Rtmr};
use super::image::load_options;
use super::profile::Profile;
use super::td_hob;
use crate::command_line;
use crate::digest::Digest384;
use crate::eventlog::compare::{self, Wanted};
use crate::eventlog::{AlgorithmId, Event, EventLog};
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
    /// The event is there, and its input is one of those that the caller does not know. The digest in `expected` means
    /// nothing.
    Unknown {
        /// The event in the log, from 0.
        event: usize,
        /// Which event it is.
        expected: PredictedEvent,
    },
}

/// All differences in the registers that `registers` names, in its order; within a register in the order of the log. None
/// means that the log is as predicted. Events whose input is in `unknown` are expected with any digest.
pub fn differences(
    log: &EventLog<'_>,
    predicted: &[PredictedEvent],
    unknown: &[Input],
    registers: &[Rtmr],
) -> Vec<Difference> {
    let wanted: Vec<_> = predicted
        .iter()
        .map(|event| Wanted {
            index: event.register.log_index(),
            event_type: event.event_type,
            digest: (!unknown.contains(&event.input)).then_some(&event.digest.0[..]),
        })
        .collect();
    let registers: Vec<_> = registers.iter().map(|register| register.log_index()).collect();
    let found = compare::differences(&log.events, AlgorithmId::SHA384, &wanted, &registers);
    let expected = |wanted: usize| predicted.get(wanted).copied();
    let difference = |found: compare::Difference| {
        Some(match found {
            compare::Difference::Digest { event, wanted } => {
                let found = log.events.get(event).and_then(Event::sha384);
                Difference::Digest { event, expected: expected(wanted)?, found }
            }
            compare::Difference::Missing { wanted } => Difference::Missing { expected: expected(wanted)? },
            compare::Difference::Unexpected { event } => Difference::Unexpected { event },
            compare::Difference::Unknown { event, wanted } => {
                Difference::Unknown { event, expected: expected(wanted)? }
            }
        })
    };
    found.into_iter().filter_map(difference).collect()
}

/// How much memory a guest had whose TD HOB has this digest, in MiB: whole GiB up to 4 TiB, and every 128 MiB below 8 GiB.
pub fn memory_mib(td_hob: Digest384, layout: &TdxLayout) -> Option<u64> {
    td_hobs(layout).into_iter().find(|(_, digest)| *digest == td_hob).map(|(mib, _)| mib)
}

/// What happened to a command line whose load options have this digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptionsSlip {
    /// What is different about the line; `None` where it is as expected.
    pub how: Option<&'static str>,
    /// The line.
    pub line: String,
    /// Whether firmware named an initrd.
    pub has_initrd: bool,
    /// The profile of the firmware that passed it on.
    pub profile: &'static str,
}

/// The ways in which a command line is commonly spoilt, with and without an initrd, for every firmware known, each with the
/// digest of its load options. The line as it should be comes first.
pub fn load_options_slips(line: &str, profiles: &[&'static Profile]) -> Vec<(LoadOptionsSlip, Digest384)> {
    let mut slips = Vec::new();
    for (how, bytes) in &command_line::variants(line.as_bytes()) {
        // Variants are cut or extended at ASCII characters: they are text as the line was.
        let Ok(text) = core::str::from_utf8(bytes) else { continue };
        for profile in profiles {
            for has_initrd in [true, false] {
                let slip = LoadOptionsSlip { how: *how, line: text.into(), has_initrd, profile: profile.name };
                slips.push((slip, load_options(profile, text, has_initrd)));
            }
        }
    }
    slips
}

/// The slip by which a command line got load options of this digest.
pub fn load_options_slip(found: Digest384, line: &str, profiles: &[&'static Profile]) -> Option<LoadOptionsSlip> {
    load_options_slips(line, profiles).into_iter().find(|(_, digest)| *digest == found).map(|(slip, _)| slip)
}

/// Which of `alternatives`, put in the place of the event of `input`, leads `register` to `found`; `None` for none. An
/// alternative without a digest is the event left out. For registers of which there is no log.
pub fn substitution(
    found: Digest384,
    register: Rtmr,
    predicted: &[PredictedEvent],
    input: Input,
    alternatives: &[Option<Digest384>],
) -> Option<usize> {
    let of_register = || predicted.iter().filter(|event| event.register == register);
    of_register().any(|event| event.input == input).then_some(())?;
    alternatives.iter().position(|alternative| {
        let value = of_register().fold(Digest384::ZERO, |value, event| {
            let digest = if event.input == input { *alternative } else { Some(event.digest) };
            digest.map_or(value, |digest| value.extended(&digest))
        });
        value == found
    })
}

/// TD HOB digests of [`memory_mib`]'s sizes, each with its size in MiB.
pub fn td_hobs(layout: &TdxLayout) -> Vec<(u64, Digest384)> {
    let small = (1..64_u64).map(|step| step.saturating_mul(128));
    let large = (8..=4096_u64).map(|gib| gib.saturating_mul(1024));
    small.chain(large).filter_map(|mib| Some((mib, td_hob::digest(layout, mib).ok()?))).collect()
}
