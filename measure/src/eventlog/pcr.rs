//! From the events of a TPM's log to the PCRs of one bank (TPM 2.0 Library, part 1, "Extend"; PC Client Platform Firmware
//! Profile 1.06, section 10.4.5.3 for the start value of PCR 0).

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::{AlgorithmId, Event, EventLog, EventType};

/// A log whose PCRs cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcrError {
    /// The bank's algorithm is not known.
    #[error("PCRs of algorithm {:#x} are not replayed: only SHA-1, SHA-256, SHA-384 and SHA-512 are", .0.0)]
    Algorithm(AlgorithmId),
    /// An event has no digest for the bank, or one of another size.
    #[error("event {0} has no digest of this bank")]
    NoDigest(usize),
    /// An event is for a PCR that no TPM has.
    #[error("event {event} is for PCR {index}: there are 0 to 23")]
    Register {
        /// The event, from 0.
        event: usize,
        /// The PCR that it names.
        index: u32,
    },
}

impl EventLog<'_> {
    /// The PCRs of one bank that the log extends, by number. PCRs 17 to 22 start at ones, the others at zeroes; PCR 0 at the
    /// locality that the log says the TPM was started from.
    pub fn replay_pcrs(&self, bank: AlgorithmId) -> Result<BTreeMap<u32, Vec<u8>>, PcrError> {
        const PCRS: u32 = 24;
        let size = bank.digest_size().ok_or(PcrError::Algorithm(bank))?;
        let locality = self.events.iter().find_map(startup_locality).unwrap_or_default();
        let mut pcrs: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (number, event) in self.events.iter().enumerate() {
            if event.event_type == EventType::EV_NO_ACTION {
                continue;
            }
            if event.index >= PCRS {
                return Err(PcrError::Register { event: number, index: event.index });
            }
            let digest = event.digests.iter().find(|(algorithm, _)| *algorithm == bank).map(|(_, digest)| *digest);
            let digest = digest.filter(|digest| digest.len() == size).ok_or(PcrError::NoDigest(number))?;
            let pcr = pcrs.entry(event.index).or_insert_with(|| start(event.index, size, locality));
            *pcr = bank.digest(&[pcr, digest]).ok_or(PcrError::Algorithm(bank))?;
        }
        Ok(pcrs)
    }
}

fn start(index: u32, size: usize, locality: u8) -> Vec<u8> {
    let mut value = vec![if (17..=22).contains(&index) { 0xff } else { 0 }; size];
    if let Some(last) = value.last_mut().filter(|_| index == 0) {
        *last = locality;
    }
    value
}

/// TCG_EfiStartupLocalityEvent.
fn startup_locality(event: &Event<'_>) -> Option<u8> {
    let rest = event.data.strip_prefix(b"StartupLocality\0")?;
    rest.first().copied().filter(|_| event.event_type == EventType::EV_NO_ACTION && event.index == 0)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::super::SpecId;
    use super::*;

    fn event(index: u32, event_type: EventType, digest: &'static [u8], data: &'static [u8]) -> Event<'static> {
        Event { index, event_type, digests: Vec::from([(AlgorithmId::SHA256, digest)]), data, offset: 0 }
    }

    fn log(events: Vec<Event<'static>>) -> EventLog<'static> {
        EventLog { spec_id: SpecId { algorithms: Vec::from([(AlgorithmId::SHA256, 32)]), vendor: b"" }, events }
    }

    /// The value of PCR 1 to 7 of every TPM that measured a separator and nothing else.
    #[test]
    fn a_separator_alone() {
        const SEPARATOR: &[u8] =
            b"\xdf\x3f\x61\x98\x04\xa9\x2f\xdb\x40\x57\x19\x2d\xc4\x3d\xd7\x48\xea\x77\x8a\xdc\x52\xbc\x49\x8c\xe8\x05\x24\xc0\x14\xb8\x11\x19";
        let pcrs = log(Vec::from([event(7, EventType::EV_SEPARATOR, SEPARATOR, &[0; 4])]))
            .replay_pcrs(AlgorithmId::SHA256)
            .unwrap();
        assert_eq!(pcrs.len(), 1);
        assert_eq!(
            crate::Digest256(pcrs[&7].clone().try_into().unwrap()),
            crate::Digest256::from_hex("3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969").unwrap()
        );
    }

    #[test]
    fn start_values() {
        const ZERO: &[u8] = &[0; 32];
        let all = Vec::from([
            event(0, EventType::EV_NO_ACTION, ZERO, b"StartupLocality\0\x03"),
            event(0, EventType::EV_S_CRTM_VERSION, ZERO, b""),
            event(17, EventType::EV_EVENT_TAG, ZERO, b""),
        ]);
        let pcrs = log(all).replay_pcrs(AlgorithmId::SHA256).unwrap();
        let mut of_locality = [0; 64];
        of_locality[31] = 3;
        assert_eq!(pcrs[&0], Sha256::digest(of_locality).to_vec());
        assert_eq!(pcrs[&17], Sha256::digest([[0xff; 32], [0; 32]].concat()).to_vec());
    }

    #[test]
    fn what_cannot_be_replayed_is_said() {
        let one = log(Vec::from([event(24, EventType::EV_SEPARATOR, &[0; 32], b"")]));
        assert_eq!(one.replay_pcrs(AlgorithmId::SHA256), Err(PcrError::Register { event: 0, index: 24 }));
        let unknown = AlgorithmId(0x12);
        assert_eq!(one.replay_pcrs(unknown), Err(PcrError::Algorithm(unknown)));
        let one = log(Vec::from([event(1, EventType::EV_SEPARATOR, &[0; 32], b"")]));
        assert_eq!(one.replay_pcrs(AlgorithmId::SHA384), Err(PcrError::NoDigest(0)));
    }
}
