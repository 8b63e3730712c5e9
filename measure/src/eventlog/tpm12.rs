//! Logs of TPMs of version 1.2: a row of TCG_PCR_EVENT with a SHA-1 each (TCG PC Client Specific Implementation Specification
//! for Conventional BIOS 1.21, section 11.3.1; EFI firmware writes the same, TCG EFI Protocol 1.22, section 8.1).
//!
//! Nothing says that such a log is one: it is told by a first event that could be the first of a boot.

use alloc::vec::Vec;

use super::parse::CUT_OFF;
use super::{AlgorithmId, Event, EventType, SpecId};
use crate::read::Reader;

/// Signatures of the first event, where it is EV_NO_ACTION (BIOS 1.21, section 11.3.4.1; EFI Protocol 1.22, section 7.4).
const SIGNATURES: [&[u8; 16]; 2] = [b"Spec ID Event00\0", b"Spec ID Event02\0"];
/// PCRs of a TPM of version 1.2.
const PCRS: u32 = 24;

/// Whether `bytes` start as a log of this kind does: with EV_NO_ACTION of one of its signatures, or with an event of a known
/// type that was extended into a PCR.
pub(super) fn is_log(bytes: &[u8]) -> bool {
    let Ok(first) = event(&mut Reader::new(bytes), 0) else { return false };
    match first.event_type {
        EventType::EV_NO_ACTION => SIGNATURES.iter().any(|signature| first.data.starts_with(*signature)),
        // Reserved: nothing extends it, and files that are something else have zeroes there.
        EventType::EV_PREBOOT_CERT => false,
        event_type => {
            let extended = first.digests.iter().any(|(_, digest)| digest.iter().any(|byte| *byte != 0));
            event_type.name().is_some() && first.index < PCRS && extended
        }
    }
}

/// What the log says of itself: nothing.
pub(super) fn spec_id() -> SpecId<'static> {
    SpecId { algorithms: Vec::from([(AlgorithmId::SHA1, 20)]), vendor: &[] }
}

/// TCG_PCR_EVENT.
pub(super) fn event<'a>(reader: &mut Reader<'a>, offset: usize) -> Result<Event<'a>, &'static str> {
    let event = (|| {
        let (index, event_type) = (reader.u32()?, EventType(reader.u32()?));
        let digest = reader.bytes(20)?;
        let length = usize::try_from(reader.u32()?).ok()?;
        let digests = Vec::from([(AlgorithmId::SHA1, digest)]);
        Some(Event { index, event_type, digests, data: reader.bytes(length)?, offset })
    })();
    event.ok_or(CUT_OFF)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::super::EventLog;
    use super::*;
    use crate::digest::encode_hex;

    fn row(index: u32, event_type: u32, digest: [u8; 20], data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        [&index.to_le_bytes()[..], &event_type.to_le_bytes(), &digest, &length, data].concat()
    }

    /// SHA-1 of four zero bytes, which ends what firmware measures into a PCR.
    fn separator(index: u32) -> Vec<u8> {
        let digest = AlgorithmId::SHA1.digest(&[&[0; 4]]).unwrap().try_into().unwrap();
        row(index, 4, digest, &[0; 4])
    }

    /// PCRs of many published TPM 1.2 logs hold b2a83b0e...: nothing but a separator was measured.
    #[test]
    fn a_separator_alone() {
        for first in [row(0, 3, [0; 20], b"Spec ID Event02\0and the rest"), Vec::new()] {
            let bytes = [first, separator(2), vec![0xff; 40]].concat();
            let log = EventLog::parse(&bytes).unwrap();
            assert!(log.events.iter().all(|event| event.data_matches() != Some(false)));
            let pcrs = log.replay_pcrs(AlgorithmId::SHA1).unwrap();
            assert_eq!(pcrs.keys().collect::<Vec<_>>(), [&2]);
            assert_eq!(encode_hex(&pcrs[&2]), "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236");
            assert!(log.replay().is_err(), "no TDX registers");
        }
    }

    #[test]
    fn what_could_not_start_a_boot_is_no_log() {
        let other_signature = row(0, 3, [0; 20], b"Spec ID Event01\0");
        let not_extended = row(0, 8, [0; 20], b"");
        let reserved = row(0, 0, [1; 20], b"");
        let (no_pcr, unknown) = (row(24, 8, [1; 20], b""), row(0, 0x99, [1; 20], b""));
        for bytes in [other_signature, not_extended, reserved, no_pcr, unknown, vec![0; 64]] {
            assert!(EventLog::parse_lenient(&bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_log_that_is_cut_off_is_read_to_there() {
        let bytes = [separator(0), separator(1)].concat();
        let cut = bytes.get(..bytes.len() - 1).unwrap();
        assert!(EventLog::parse(cut).is_err());
        let (log, stopped) = EventLog::parse_lenient(cut).unwrap();
        assert_eq!((log.events.len(), stopped.is_some()), (1, true));
    }
}
