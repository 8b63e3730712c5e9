//! `bullion eventlog`: logs of measured boots, read and replayed. What they say is a claim until hardware has signed the
//! registers they lead to; nothing here looks at a signature.

mod quote;

use std::collections::BTreeMap;
use std::path::Path;

use measure::eventlog::{Event, EventLog, EventType, SeparatorRule};
use serde::Serialize;
use spec::Outcome;
use spec::digest::encode_hex;

use crate::args::{self, EventLogAction, LogFile, ReplayLog};
use crate::evidence_file::{CCEL_TABLE, MAX_BYTES};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;

#[derive(Serialize)]
struct Shown<'a> {
    file: &'a Path,
    registers: &'static str,
    algorithms: Vec<String>,
    tolerated: &'a [String],
    events: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    number: usize,
    register: String,
    index: u32,
    #[serde(rename = "type")]
    event_type: String,
    digests: BTreeMap<String, String>,
    /// Whether the data is what was measured; null where the type says nothing about that.
    data_matches: Option<bool>,
    description: String,
    data: String,
    offset: usize,
}

#[derive(Serialize)]
struct Replayed<'a> {
    file: &'a Path,
    events: usize,
    tolerated: &'a [String],
    #[serde(flatten)]
    registers: Registers,
    /// Beside the registers of a quote, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    quote: Option<quote::Compared>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Registers {
    /// `rtmr0` to `rtmr3`.
    Tdx(BTreeMap<String, String>),
    /// By bank, then by number.
    Tpm { pcrs: BTreeMap<String, BTreeMap<u32, String>> },
}

/// Whose registers a log is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tdx,
    Tpm,
}

pub(crate) fn run(verb: &args::EventLog, printer: &Printer) -> Result<u8, Failure> {
    let (EventLogAction::Show(file) | EventLogAction::Replay(ReplayLog { log: file, .. })) = &verb.action;
    let bytes = inputs::read_file(&file.file, MAX_BYTES, "an event log")?;
    let (log, tolerated) = read(&bytes, file)?;
    for what in &tolerated {
        printer.warning(format_args!("tolerated: {what}"));
    }
    match &verb.action {
        EventLogAction::Show(_) => show(file, &log, &tolerated, printer),
        EventLogAction::Replay(replay) => return replayed(replay, &log, &tolerated, printer),
    }
    Ok(0)
}

/// The log, and what of it a strict reading refuses.
fn read<'a>(bytes: &'a [u8], file: &LogFile) -> Result<(EventLog<'a>, Vec<String>), Failure> {
    let refuse =
        |outcome, what: &dyn std::fmt::Display| Failure::new(outcome, format!("{}: {what}", file.file.display()));
    let unreadable = |what: &dyn std::fmt::Display| refuse(Outcome::InputMismatch, what);
    let mut tolerated = Vec::new();
    let log = match EventLog::parse(bytes) {
        Ok(log) => log,
        Err(error) if file.strict => {
            return Err(unreadable(&error).with_hint("without --strict, the events before that are read"));
        }
        Err(error) => {
            tolerated.push(error.to_string());
            let (log, stopped) = EventLog::parse_lenient(bytes).map_err(|error| match bytes.starts_with(b"CCEL") {
                true => unreadable(&error).with_hint(CCEL_TABLE),
                false => unreadable(&error),
            })?;
            tolerated.extend(stopped.map(|stopped| format!("reading ended there: {stopped}")));
            log
        }
    };
    let old = file.edk2_before_202411;
    let rule = if old { SeparatorRule::TwiceInRtmr0 } else { SeparatorRule::OncePerRegister };
    if let Err(error) = log.check_separators(rule) {
        if file.strict {
            let hint = "firmware of before edk2 202411 makes two separators in RTMR0: --edk2-before-202411 admits them";
            return Err(refuse(Outcome::Refused, &error).with_hint(hint));
        }
        tolerated.push(error.to_string());
    }
    Ok((log, tolerated))
}

/// A TPM's firmware always extends PCR 0; TDX firmware extends registers 1 to 4, by SHA-384 only.
pub(super) fn kind(log: &EventLog<'_>) -> Kind {
    let extended = |event: &&Event<'_>| event.event_type != EventType::EV_NO_ACTION;
    let is_tdx = |event: &Event<'_>| (1..=4).contains(&event.index) && event.sha384().is_some();
    if log.events.iter().filter(extended).all(is_tdx) { Kind::Tdx } else { Kind::Tpm }
}

pub(super) fn register(kind: Kind, index: u32) -> String {
    match (kind, index) {
        (Kind::Tdx, 1..=4) => format!("RTMR{}", index - 1),
        (Kind::Tdx, _) => format!("register {index}"),
        (Kind::Tpm, _) => format!("PCR {index}"),
    }
}

pub(super) fn algorithm(id: measure::eventlog::AlgorithmId) -> String {
    id.name().map_or_else(|| format!("{:#x}", id.0), str::to_owned)
}

fn show(file: &LogFile, log: &EventLog<'_>, tolerated: &[String], printer: &Printer) {
    let kind = kind(log);
    let rows: Vec<Row> = log.events.iter().enumerate().map(|(number, event)| row(kind, number, event)).collect();
    for row in &rows {
        let digest = row.digests.get("sha384").or_else(|| row.digests.values().next_back());
        let digest = digest.map_or("-", |digest| digest.get(..16).unwrap_or(digest));
        let mark = if row.data_matches == Some(false) { "  DATA IS NOT WHAT WAS MEASURED" } else { "" };
        printer.line(format_args!(
            "{:>4}  {:<6}  {:<32}  {digest:<16}  {}{mark}",
            row.number, row.register, row.event_type, row.description
        ));
    }
    printer.value(&Shown {
        file: &file.file,
        registers: if kind == Kind::Tdx { "rtmr" } else { "pcr" },
        algorithms: log.spec_id.algorithms.iter().map(|(id, _)| algorithm(*id)).collect(),
        tolerated,
        events: rows,
    });
}

fn row(kind: Kind, number: usize, event: &Event<'_>) -> Row {
    Row {
        number,
        register: register(kind, event.index),
        index: event.index,
        event_type: event.event_type.to_string(),
        digests: event.digests.iter().map(|(id, digest)| (algorithm(*id), encode_hex(digest))).collect(),
        data_matches: event.data_matches(),
        description: harmless(&event.description()),
        data: encode_hex(event.data),
        offset: event.offset,
    }
}

/// Text of a log without what could drive a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c) { '\u{fffd}' } else { c })
        .collect()
}

fn replayed(verb: &ReplayLog, log: &EventLog<'_>, tolerated: &[String], printer: &Printer) -> Result<u8, Failure> {
    let file = &verb.log.file;
    let registers =
        registers(log).map_err(|error| Failure::new(Outcome::InputMismatch, format!("{}: {error}", file.display())))?;
    let quote = verb.quote.as_deref().map(|path| quote::Compared::new(path, file, log)).transpose()?;
    match &registers {
        Registers::Tdx(rtmrs) => {
            rtmrs.iter().for_each(|(name, value)| printer.line(format_args!("{} {value}", name.to_uppercase())));
        }
        Registers::Tpm { pcrs } => {
            for (bank, values) in pcrs {
                values.iter().for_each(|(pcr, value)| printer.line(format_args!("{bank}  PCR {pcr:<2}  {value}")));
            }
        }
    }
    match &quote {
        Some(quote) => quote.show(printer),
        None => printer.note("a log is a claim: compare these values with registers that hardware signed"),
    }
    let code = quote.as_ref().map_or(0, quote::Compared::code);
    printer.value(&Replayed { file, events: log.events.len(), tolerated, registers, quote });
    Ok(code)
}

fn registers(log: &EventLog<'_>) -> Result<Registers, Box<dyn std::error::Error>> {
    if kind(log) == Kind::Tdx {
        let rtmrs = log.replay()?.rtmr;
        return Ok(Registers::Tdx(
            (0..).zip(rtmrs).map(|(n, value): (u32, _)| (format!("rtmr{n}"), value.to_string())).collect(),
        ));
    }
    let mut pcrs = BTreeMap::new();
    let mut refused = None;
    for (bank, _) in &log.spec_id.algorithms {
        match log.replay_pcrs(*bank) {
            Ok(values) => {
                let values = values.into_iter().map(|(pcr, value)| (pcr, encode_hex(&value))).collect();
                pcrs.insert(algorithm(*bank), values);
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if pcrs.is_empty() => Err(error.into()),
        _ => Ok(Registers::Tpm { pcrs }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_log_cannot_drive_a_terminal() {
        assert_eq!(harmless("PK\u{1b}[2J\u{9b}1m\u{202e}x\n"), "PK\u{fffd}[2J\u{fffd}1m\u{fffd}x\u{fffd}");
        assert_eq!(harmless("variable Boot0000 Größe"), "variable Boot0000 Größe");
    }

    #[test]
    fn registers_have_the_names_of_their_vendor() {
        assert_eq!(register(Kind::Tdx, 1), "RTMR0");
        assert_eq!(register(Kind::Tdx, 4), "RTMR3");
        assert_eq!(register(Kind::Tdx, 0), "register 0");
        assert_eq!(register(Kind::Tpm, 1), "PCR 1");
    }
}
