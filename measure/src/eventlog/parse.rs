//! From bytes to events.

use alloc::vec::Vec;

use super::{AlgorithmId, Event, EventLog, EventType, SpecId, tpm12};
use crate::read::Reader;

/// A log that cannot be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventLogError {
    /// The first event is not the one that says which algorithms follow.
    #[error("this is not a TCG event log: {0}")]
    Header(&'static str),
    /// An event is cut off or impossible.
    #[error("the event log is damaged at offset {offset:#x}: {reason}")]
    Event {
        /// Where the event starts.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// How much is forgiven.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Strict,
    Lenient,
}

/// Reads events until the end, padding, or the first that cannot be read.
pub(super) fn parse(bytes: &[u8], mode: Mode) -> Result<(EventLog<'_>, Option<EventLogError>), EventLogError> {
    let mut reader = Reader::new(bytes);
    let is_tpm12 = tpm12::is_log(bytes);
    let spec_id = if is_tpm12 { tpm12::spec_id() } else { header(&mut reader, mode)? };
    let mut events = Vec::new();
    while !is_padding(reader.rest()) {
        let offset = bytes.len().saturating_sub(reader.rest().len());
        let next =
            if is_tpm12 { tpm12::event(&mut reader, offset) } else { event(&mut reader, &spec_id, offset, mode) };
        match next {
            Ok(event) => events.push(event),
            Err(reason) => {
                return Ok((EventLog { spec_id, events }, Some(EventLogError::Event { offset, reason })));
            }
        }
    }
    Ok((EventLog { spec_id, events }, None))
}

/// Logs are areas of fixed size, filled up with 0xff or zeroes.
fn is_padding(rest: &[u8]) -> bool {
    rest.iter().all(|byte| *byte == 0xff) || rest.iter().all(|byte| *byte == 0)
}

/// TCG_PCR_EVENT that holds TCG_EfiSpecIDEvent.
fn header<'a>(reader: &mut Reader<'a>, mode: Mode) -> Result<SpecId<'a>, EventLogError> {
    let event = (|| {
        let (_index, event_type, digest) = (reader.u32()?, EventType(reader.u32()?), reader.array::<20>()?);
        let length = usize::try_from(reader.u32()?).ok()?;
        Some((event_type, digest, reader.bytes(length)?))
    })();
    let (event_type, digest, data) = event.ok_or(EventLogError::Header("it is cut off"))?;
    if event_type != EventType::EV_NO_ACTION || digest != [0; 20] {
        return Err(EventLogError::Header("its first event is not EV_NO_ACTION"));
    }
    let mut data = Reader::new(data);
    if data.array() != Some(*b"Spec ID Event03\0") {
        return Err(EventLogError::Header("its first event has another signature"));
    }
    let spec_id = (|| {
        // Platform class, version and errata, size of a UINTN: of no consequence.
        data.array::<8>()?;
        let count = data.u32()?;
        let algorithms =
            (0..count).map(|_| Some((AlgorithmId(data.u16()?), data.u16()?))).collect::<Option<Vec<_>>>()?;
        let vendor_length = usize::from(data.u8()?);
        Some(SpecId { algorithms, vendor: data.bytes(vendor_length)? })
    })();
    let spec_id = spec_id.ok_or(EventLogError::Header("its first event is cut off"))?;
    if mode == Mode::Strict && !data.rest().is_empty() {
        return Err(EventLogError::Header("its first event is longer than what it holds"));
    }
    let ids = || spec_id.algorithms.iter().map(|(id, _)| *id);
    let repeated = ids().enumerate().any(|(index, id)| ids().take(index).any(|other| other == id));
    if spec_id.algorithms.is_empty() || repeated {
        return Err(EventLogError::Header("its algorithms are none, or one is named twice"));
    }
    Ok(spec_id)
}

pub(super) const CUT_OFF: &str = "an event is cut off";

/// TCG_PCR_EVENT2.
fn event<'a>(
    reader: &mut Reader<'a>,
    spec_id: &SpecId<'_>,
    offset: usize,
    mode: Mode,
) -> Result<Event<'a>, &'static str> {
    let (index, event_type) = reader.u32().zip(reader.u32()).ok_or(CUT_OFF)?;
    let count = reader.u32().ok_or(CUT_OFF)?;
    let mut digests = Vec::new();
    for _ in 0..count {
        let id = AlgorithmId(reader.u16().ok_or(CUT_OFF)?);
        let known = spec_id.algorithms.iter().find(|(algorithm, _)| *algorithm == id);
        let (_, size) = known.ok_or("an event has a digest of an algorithm that the log does not name")?;
        digests.push((id, reader.bytes(usize::from(*size)).ok_or(CUT_OFF)?));
    }
    let expected = spec_id.algorithms.iter().map(|(id, _)| id);
    if mode == Mode::Strict && !digests.iter().map(|(id, _)| id).eq(expected) {
        return Err("an event does not have one digest of each algorithm");
    }
    let length = reader.u32().and_then(|length| usize::try_from(length).ok()).ok_or(CUT_OFF)?;
    let data = reader.bytes(length).ok_or(CUT_OFF)?;
    Ok(Event { index, event_type: EventType(event_type), digests, data, offset })
}
