//! Event logs in the format of the TCG (PC Client Platform Firmware Profile 1.06, section 10), which TPM firmware keeps per
//! PCR and TDX firmware per measurement register (CCEL; register index 1 to 4 is RTMR0 to RTMR3). Logs of TPMs of version 1.2,
//! with SHA-1 only (PC Client Specific Implementation Specification for Conventional BIOS 1.21, section 11), are read too.
//!
//! A log is only a claim: what counts is that it replays to registers that hardware signed, and event data counts only
//! where its digest says so ([`Event::data_matches`]).

mod algorithm;
mod cause;
pub mod compare;
mod describe;
mod event_type;
mod parse;
mod pcr;
mod replay;
mod tpm12;

use alloc::vec::Vec;

pub use algorithm::AlgorithmId;
pub use cause::Cause;
pub use event_type::EventType;
pub use parse::EventLogError;
pub use pcr::PcrError;
pub use replay::{DuplicateSeparator, Replay, ReplayError, SeparatorRule};

use crate::digest::Digest384;

/// What the first event of a log says: which algorithms it uses, and what the platform says of itself. A log of a TPM of
/// version 1.2 has SHA-1 and no vendor information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecId<'a> {
    /// The algorithms, with the size of each digest.
    pub algorithms: Vec<(AlgorithmId, u16)>,
    /// Vendor information.
    pub vendor: &'a [u8],
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The PCR, or the measurement register of TDX (1 is RTMR0).
    pub index: u32,
    /// What was measured.
    pub event_type: EventType,
    /// The digests that were extended, by algorithm.
    pub digests: Vec<(AlgorithmId, &'a [u8])>,
    /// What the log says about it.
    pub data: &'a [u8],
    /// Where in the log it starts, in bytes.
    pub offset: usize,
}

impl Event<'_> {
    /// The digest of one algorithm.
    pub fn digest(&self, algorithm: AlgorithmId) -> Option<&[u8]> {
        self.digests.iter().find(|(id, _)| *id == algorithm).map(|(_, digest)| *digest)
    }

    /// The SHA-384 digest.
    pub fn sha384(&self) -> Option<Digest384> {
        self.digest(AlgorithmId::SHA384)?.try_into().ok().map(Digest384)
    }

    /// Whether the data is what was measured, by every digest of a known algorithm; `None` where the type says nothing about
    /// that, or no algorithm is known.
    pub fn data_matches(&self) -> Option<bool> {
        if !self.event_type.digest_covers_data() {
            return None;
        }
        let of = |(id, digest): &(AlgorithmId, &[u8])| Some(id.digest(&[self.data])? == *digest);
        self.digests.iter().filter_map(of).reduce(|all, matches| all && matches)
    }
}

/// A log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog<'a> {
    /// What the first event says.
    pub spec_id: SpecId<'a>,
    /// All others, in order; of a log of a TPM of version 1.2 the first too.
    pub events: Vec<Event<'a>>,
}

impl<'a> EventLog<'a> {
    /// Reads a log strictly: every event has one digest of each algorithm, in the order of the first event, and nothing
    /// but padding (all 0xff or all zero) follows the last.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        match parse::parse(bytes, parse::Mode::Strict)? {
            (log, None) => Ok(log),
            (_, Some(error)) => Err(error),
        }
    }

    /// Reads as many events as can be read, and says what stopped it, if anything did. Fails only where the first
    /// event is that of no log.
    pub fn parse_lenient(bytes: &'a [u8]) -> Result<(Self, Option<EventLogError>), EventLogError> {
        parse::parse(bytes, parse::Mode::Lenient)
    }
}
