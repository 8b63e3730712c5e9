//! Event logs in the format of the TCG (PC Client Platform Firmware Profile 1.06, section 10), which TPM firmware keeps per
//! PCR and TDX firmware per measurement register (CCEL; register index 1 to 4 is RTMR0 to RTMR3).
//!
//! A log is only a claim: what counts is that it replays to registers that hardware signed, and event data counts only
//! where its digest says so ([`Event::data_matches`]).

mod cause;
pub mod compare;
mod describe;
mod event_type;
mod parse;
mod pcr;
mod replay;

use alloc::vec::Vec;

pub use cause::Cause;
pub use event_type::EventType;
pub use parse::EventLogError;
pub use pcr::PcrError;
pub use replay::{DuplicateSeparator, Replay, ReplayError, SeparatorRule};

use crate::digest::Digest384;

/// A hash algorithm by its TPM_ALG_ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlgorithmId(pub u16);

impl AlgorithmId {
    /// SHA-1.
    pub const SHA1: Self = Self(0x4);
    /// SHA-256.
    pub const SHA256: Self = Self(0xb);
    /// SHA-384.
    pub const SHA384: Self = Self(0xc);
    /// SHA-512.
    pub const SHA512: Self = Self(0xd);

    /// Its name as TPM tools write it; `None` for others.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::SHA1 => "sha1",
            Self::SHA256 => "sha256",
            Self::SHA384 => "sha384",
            Self::SHA512 => "sha512",
            _ => return None,
        })
    }
}

/// The first event of a log: which algorithms it uses, and what the platform says of itself.
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

    /// Whether the data is what was measured; `None` where the type says nothing about that, or there is no SHA-384.
    pub fn data_matches(&self) -> Option<bool> {
        let digest = self.sha384()?;
        self.event_type.digest_covers_data().then(|| Digest384::of(self.data) == digest)
    }
}

/// A log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLog<'a> {
    /// The first event.
    pub spec_id: SpecId<'a>,
    /// All others, in order.
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

    /// Reads as many events as can be read, and says what stopped it, if anything did. Fails only without a first event.
    pub fn parse_lenient(bytes: &'a [u8]) -> Result<(Self, Option<EventLogError>), EventLogError> {
        parse::parse(bytes, parse::Mode::Lenient)
    }
}
