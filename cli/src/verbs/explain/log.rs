//! Evidence beside evidence of another launch that the caller trusts: event by event, or register by register. What stands
//! behind an event is told from the event itself.

use std::path::Path;

use measure::eventlog::compare::{Difference, Wanted, differences};
use measure::eventlog::{AlgorithmId, Event, EventLog, EventType};
use spec::Outcome;
use spec::digest::encode_hex;

use super::answer::{Answer, Register, Row};
use super::tdx::NOT_IN_A_LOG;
use super::text;
use crate::evidence_file::{Content, EvidenceFile, TdMeasurement, lenient};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::verbs::eventlog::{Kind, algorithm, harmless, kind, register};
use crate::weigh::unusable;

pub(super) fn compare(
    evidence: &EvidenceFile,
    other: &EvidenceFile,
    mut answer: Answer,
    printer: &Printer,
) -> Result<u8, Failure> {
    match (&evidence.content, &other.content) {
        (Content::EventLog(found), Content::EventLog(wanted)) => {
            let (log, stopped) = lenient(&evidence.path, found)?;
            let (reference, reference_stopped) = lenient(&other.path, wanted)?;
            for (file, stopped) in [(evidence, stopped), (other, reference_stopped)] {
                answer.unknown.extend(stopped.map(|stopped| unread(&file.path, &stopped)));
            }
            logs(&log, &reference, &mut answer)?;
            if kind(&log) == Kind::Tdx {
                answer.not_compared = NOT_IN_A_LOG.to_vec();
            }
        }
        (Content::EventLog(bytes), Content::Tdx(measurement))
        | (Content::Tdx(measurement), Content::EventLog(bytes)) => {
            let file = if matches!(evidence.content, Content::EventLog(_)) { evidence } else { other };
            let (log, _) = lenient(&file.path, bytes)?;
            let replay = log.replay().map_err(|error| unusable(&file.path, &error))?;
            answer.registers.extend(replayed(&replay.rtmr, measurement));
            answer.not_compared = NOT_IN_A_LOG.to_vec();
        }
        (Content::Tdx(found), Content::Tdx(wanted)) => {
            let mrtd = Register::new("MRTD", found.mrtd.to_string(), Some(wanted.mrtd.to_string()));
            answer.registers.push(mrtd);
            answer.registers.extend(replayed(&found.rtmr, wanted));
            answer.registers.extend(beside(found, wanted));
        }
        _ => {
            let message = format!("{} and {} have nothing in common", article(evidence), article(other));
            return Err(Failure::new(Outcome::Usage, message)
                .with_hint("name an image directory, a vm.toml or a manifest.json with --against"));
        }
    }
    answer.tell(printer)
}

fn article(file: &EvidenceFile) -> String {
    let article = if file.kind().starts_with(['S', 'e']) { "an" } else { "a" };
    format!("{article} {}", file.kind())
}

/// The registers of a log, or of another quote, beside those of a quote.
pub(crate) fn replayed(rtmr: &[measure::Digest384; 4], quote: &TdMeasurement) -> Vec<Register> {
    let pairs = rtmr.iter().zip(quote.rtmr).enumerate();
    pairs
        .map(|(n, (found, wanted))| Register::new(format!("RTMR{n}"), found.to_string(), Some(wanted.to_string())))
        .collect()
}

/// What makes a TD another one though its registers are the same: above all DEBUG, and the guest's configuration.
fn beside(found: &TdMeasurement, wanted: &TdMeasurement) -> Vec<Register> {
    let fields = |td: &TdMeasurement| {
        let hex = |bytes: &[u8; 48]| encode_hex(bytes);
        let [owner, owner_config] = &td.owner;
        let bits = |bits: u64| format!("{bits:#018x}");
        [
            ("ATTRIBUTES", bits(td.attributes)),
            ("XFAM", bits(td.xfam)),
            ("MRCONFIGID", hex(&td.mrconfigid)),
            ("MROWNER", hex(owner)),
            ("MROWNERCONFIG", hex(owner_config)),
        ]
    };
    let pairs = fields(found).into_iter().zip(fields(wanted));
    pairs.map(|((name, found), (_, wanted))| Register::new(name, found, Some(wanted))).collect()
}

/// A log that was not read to its end: what stands there was not compared.
pub(super) fn unread(path: &Path, stopped: &str) -> Row {
    let text = format!("{}: {stopped}; what follows was not compared", path.display());
    Row { input: "log".to_owned(), kind: "unknown", text, ..Row::default() }
}

/// Compares in the strongest algorithm that both logs have.
fn logs(log: &EventLog<'_>, reference: &EventLog<'_>, answer: &mut Answer) -> Result<(), Failure> {
    let has = |log: &EventLog<'_>, wanted: AlgorithmId| log.spec_id.algorithms.iter().any(|(id, _)| *id == wanted);
    let banks = [AlgorithmId::SHA512, AlgorithmId::SHA384, AlgorithmId::SHA256, AlgorithmId::SHA1];
    let bank = banks
        .into_iter()
        .find(|bank| has(log, *bank) && has(reference, *bank))
        .ok_or_else(|| Failure::new(Outcome::InputMismatch, "the two logs have no hash algorithm in common"))?;
    let wanted: Vec<_> = reference
        .events
        .iter()
        .filter(|event| event.event_type != EventType::EV_NO_ACTION)
        .map(|event| (event, Wanted { index: event.index, event_type: event.event_type, digest: event.digest(bank) }))
        .collect();
    if wanted.is_empty() {
        let text = "the log that is compared with has no events".to_owned();
        answer.unknown.push(Row { input: "log".to_owned(), kind: "unknown", text, ..Row::default() });
    }
    let mut registers: Vec<u32> = log.events.iter().chain(&reference.events).map(|event| event.index).collect();
    registers.sort_unstable();
    registers.dedup();
    let plain: Vec<_> = wanted.iter().map(|(_, wanted)| *wanted).collect();
    for difference in differences(&log.events, bank, &plain, &registers) {
        let (event, reference) = match difference {
            Difference::Digest { event, wanted } | Difference::Unknown { event, wanted } => (Some(event), Some(wanted)),
            Difference::Missing { wanted } => (None, Some(wanted)),
            Difference::Unexpected { event } => (Some(event), None),
        };
        let reference = reference.and_then(|index| wanted.get(index)).map(|(event, _)| *event);
        let found = event.and_then(|number| Some((number, log.events.get(number)?)));
        answer.differences.extend(row(found, reference, kind(log), bank));
    }
    Ok(())
}

/// One difference between two logs; `None` where neither has an event.
fn row(found: Option<(usize, &Event<'_>)>, reference: Option<&Event<'_>>, of: Kind, bank: AlgorithmId) -> Option<Row> {
    let event = found.map(|(_, event)| event);
    let cause = reference.or(event)?.cause();
    let kind = match (event, reference) {
        (Some(_), Some(_)) => "differs",
        (None, _) => "missing",
        (_, None) => "unexpected",
    };
    let digest =
        |event: &Event<'_>| event.digest(bank).map(|digest| format!("{}:{}", algorithm(bank), encode_hex(digest)));
    let mut row = Row {
        input: cause.key.to_owned(),
        kind,
        register: Some(register(of, reference.or(event)?.index)),
        event: found.map(|(number, _)| number),
        expected: reference.and_then(digest),
        found: event.and_then(digest),
        text: format!("{}: {}", verb_of(kind), harmless(&cause.text)),
        ..Row::default()
    };
    if let (Some(event), Some(reference)) = (event, reference) {
        row.details = details(event, reference);
    }
    Some(row)
}

fn verb_of(kind: &str) -> &'static str {
    match kind {
        "missing" => "an event is missing",
        "unexpected" => "an event that was not expected",
        _ => "differs",
    }
}

/// What the data of two events say, where they say anything. Command lines of boot loaders are compared word by word.
fn details(event: &Event<'_>, reference: &Event<'_>) -> Vec<String> {
    let (found, expected) = (event.description(), reference.description());
    if event.data == reference.data {
        return Vec::new();
    }
    let lines = match event.event_type {
        EventType::EV_IPL => text::difference(&expected, &found),
        _ if found == expected => Vec::new(),
        _ => vec![format!("- {expected}"), format!("+ {found}")],
    };
    let unproven = event.data_matches() == Some(false);
    let warning = unproven.then(|| "the data of this event is not what was measured".to_owned());
    lines.iter().map(|line| harmless(line)).chain(warning).collect()
}
