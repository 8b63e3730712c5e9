//! A TD's event log, or the registers of its quote, beside what an image should measure.

use std::path::Path;

use measure::Digest384;
use measure::eventlog::EventLog;
use measure::firmware::Firmware;
use measure::tdx::attributes::Attributes;
use measure::tdx::explain::{self, Difference, differences, load_options_slips, memory_mib};
use measure::tdx::image::load_options;
use measure::tdx::mrtd::{PageOrder, mrtd};
use measure::tdx::{Input, PredictedEvent, Rtmr, profile};
use serde_json::json;
use spec::{Outcome, Tee};

use super::answer::{Answer, Register, Row, Verdict};
use super::log::unread;
use super::{Candidate, Expected, candidates, check_tee, text};
use crate::args::Explain;
use crate::evidence_file::{Content, EvidenceFile, TdMeasurement, lenient};
use crate::failure::Failure;
use crate::firmware::FirmwareFile;
use crate::predict::TdxPrediction;
use crate::printer::Printer;
use crate::verbs::eventlog::{Kind, harmless, kind};
use crate::weigh::unusable;

const RTMRS: [Rtmr; 4] = [Rtmr::Rtmr0, Rtmr::Rtmr1, Rtmr::Rtmr2, Rtmr::Rtmr3];

/// What is compared with, and what may have been launched instead.
struct Context<'a> {
    verb: &'a Explain,
    prediction: TdxPrediction,
    command_line: &'a str,
    kernels: Vec<Candidate>,
    initrds: Vec<Candidate>,
    expected_memory_mib: Option<u64>,
}

impl<'a> Context<'a> {
    fn new(verb: &'a Explain, expected: &'a Expected) -> Result<Self, Failure> {
        check_tee(expected, Tee::Tdx, "its measurements are those of no TD")?;
        let memory = verb.memory.or(expected.vm.as_ref().map(|vm| vm.memory));
        let memory_mib = memory.and_then(spec::size::Size::whole_mib);
        Ok(Self {
            verb,
            prediction: TdxPrediction::new(&expected.directory, &expected.manifest, memory_mib)?,
            command_line: &expected.manifest.command_line,
            kernels: candidates(&verb.kernel)?,
            initrds: candidates(&verb.initrd)?,
            expected_memory_mib: memory_mib,
        })
    }
}

/// A log by itself.
pub(super) fn log(
    verb: &Explain,
    path: &Path,
    bytes: &[u8],
    expected: &Expected,
    mut answer: Answer,
    printer: &Printer,
) -> Result<u8, Failure> {
    let context = Context::new(verb, expected)?;
    let (log, stopped) = read_log(path, bytes)?;
    answer.unknown.extend(stopped.map(|stopped| unread(path, &stopped)));
    let replay = log.replay().map_err(|error| unusable(path, &error))?;
    compare_registers(&replay.rtmr, &context, &mut answer);
    compare_events(&log, &context, &mut answer);
    printer.note("a log is a claim: it counts where it replays to the registers of a quote");
    answer.reasons.extend(context.prediction.reasons);
    answer.tell(printer)
}

/// A quote, and the log behind it where there is one.
pub(super) fn quote(
    verb: &Explain,
    found: &TdMeasurement,
    expected: &Expected,
    mut answer: Answer,
    printer: &Printer,
) -> Result<u8, Failure> {
    let context = Context::new(verb, expected)?;
    let wanted = context.prediction.mrtd;
    answer.registers.push(Register::new("MRTD", found.mrtd.to_string(), wanted.map(|(wanted, _)| wanted.to_string())));
    if wanted.is_some_and(|(wanted, _)| wanted != found.mrtd) {
        answer.differences.push(other_mrtd(found.mrtd, &context)?);
    }
    compare_registers(&found.rtmr, &context, &mut answer);
    beside_the_registers(found, expected, &mut answer)?;
    match &verb.eventlog {
        Some(path) => quoted_log(path, found, &context, &mut answer, printer)?,
        None => registers_alone(found, &context, &mut answer),
    }
    answer.reasons.extend(context.prediction.reasons);
    answer.tell(printer)
}

/// The log, and what it was not read to its end for.
fn read_log<'a>(path: &Path, bytes: &'a [u8]) -> Result<(EventLog<'a>, Option<String>), Failure> {
    let (log, stopped) = lenient(path, bytes)?;
    if kind(&log) != Kind::Tdx {
        let message = format!("{} is the log of a TPM, not of a TD: its PCRs are not predicted here", path.display());
        return Err(Failure::new(Outcome::Usage, message).with_hint("another log can be named with --against"));
    }
    Ok((log, stopped))
}

fn compare_registers(found: &[Digest384; 4], context: &Context<'_>, answer: &mut Answer) {
    for (register, value) in RTMRS.into_iter().zip(found) {
        // No software that Bullion puts into an image extends RTMR3; what anything else extends is not known.
        let untouched = register == Rtmr::Rtmr3 && *value == Digest384::ZERO;
        let expected = if untouched { Some(*value) } else { context.prediction.register(register) };
        let name = register.to_string().to_uppercase();
        answer.registers.push(Register::new(name, value.to_string(), expected.map(|value| value.to_string())));
    }
}

/// The log behind a quote counts register by register, where it replays to it.
fn quoted_log(
    path: &Path,
    found: &TdMeasurement,
    context: &Context<'_>,
    answer: &mut Answer,
    printer: &Printer,
) -> Result<(), Failure> {
    let EvidenceFile { content: Content::EventLog(bytes), .. } = EvidenceFile::read(path)? else {
        return Err(Failure::new(Outcome::Usage, format!("{} is not an event log", path.display())));
    };
    // What it leads to is compared with the quote: an end that cannot be read is missed there.
    let (log, stopped) = read_log(path, &bytes)?;
    stopped.iter().for_each(|stopped| printer.warning(format_args!("{}: {stopped}", path.display())));
    let replay = log.replay().map_err(|error| unusable(path, &error))?.rtmr;
    let parted: Vec<_> = (0..4).filter(|n| replay.get(*n) != found.rtmr.get(*n)).map(|n| format!("RTMR{n}")).collect();
    if !parted.is_empty() {
        let message = format!("{} does not replay to {} of the quote", path.display(), parted.join(", "));
        answer.reasons.push(format!("{message}: it is not the log of that boot, or not all of it"));
    }
    let before = answer.differences.len();
    compare_events(&log, context, answer);
    // What a log says of a register that it does not lead to proves nothing.
    let is_proven = |row: &Row| row.register.as_ref().is_none_or(|register| !parted.contains(register));
    let added = answer.differences.split_off(before);
    answer.differences.extend(added.into_iter().filter(is_proven));
    answer.unknown.retain(is_proven);
    answer.unknown.extend(parted.iter().map(|register| Row {
        input: "log".to_owned(),
        kind: "unknown",
        register: Some(register.clone()),
        text: "the log does not lead to what the quote has".to_owned(),
        ..Row::default()
    }));
    Ok(())
}

/// Without a log: the one other input that would explain a register, else what it depends on.
fn registers_alone(found: &TdMeasurement, context: &Context<'_>, answer: &mut Answer) {
    for (register, value) in RTMRS.into_iter().zip(found.rtmr) {
        let wanted = context.prediction.register(register);
        if wanted.is_none_or(|wanted| wanted == value) {
            continue;
        }
        let row = other_input(register, value, context).unwrap_or_else(|| {
            let events = context.prediction.events.iter().filter(|event| event.register == register);
            let mut inputs: Vec<_> = events
                .filter(|event| !matches!(event.input, Input::Fixed(_)))
                .map(|event| event.input.to_string())
                .collect();
            inputs.dedup();
            let text = format!("one or more of: {}; the log would tell (--eventlog)", inputs.join(", "));
            Row { input: "register".into(), kind: "differs", text, ..Row::default() }
        });
        answer.differences.push(Row { register: Some(register.to_string().to_uppercase()), ..row });
    }
}

/// One input whose known alternatives lead to this register.
fn other_input(register: Rtmr, value: Digest384, context: &Context<'_>) -> Option<Row> {
    let prediction = &context.prediction;
    let tried = |input: Input, digests: &[Option<Digest384>]| {
        explain::substitution(value, register, &prediction.events, input, digests)
    };
    let row = |input: &str, value, text| {
        Some(Row { input: input.into(), kind: "differs", value: Some(value), text, ..Row::default() })
    };
    let hobs = prediction.layout.as_ref().map(explain::td_hobs).unwrap_or_default();
    let digests: Vec<_> = hobs.iter().map(|(_, digest)| Some(*digest)).collect();
    if let Some((mib, _)) = tried(Input::TdHob, &digests).and_then(|index| hobs.get(index)) {
        return row("memory", json!(mib), memory_text(*mib, context));
    }
    for (input, files) in [(Input::Kernel, &context.kernels), (Input::Initrd, &context.initrds)] {
        let digests: Vec<_> = files.iter().map(|file| of_file(input, file)).collect();
        if let Some(file) = tried(input, &digests).and_then(|index| files.get(index)) {
            return row(key(input), json!(file.name), format!("the {input} is {}", file.name));
        }
    }
    if tried(Input::Initrd, &[None]).is_some() {
        return row("initrd", json!(null), "there was no initrd".to_owned());
    }
    let lines = lines(context);
    let digests: Vec<_> = lines.iter().map(|line| Some(line.digest)).collect();
    let line = tried(Input::CommandLine, &digests).and_then(|index| lines.get(index))?;
    Some(line_row(line, context))
}

/// The digest that a file has in the place of a kernel or an initrd.
fn of_file(input: Input, file: &Candidate) -> Option<Digest384> {
    match input {
        Input::Kernel => measure::authenticode::sha384(&file.bytes).ok(),
        _ => Some(Digest384::of(&file.bytes)),
    }
}

fn compare_events(log: &EventLog<'_>, context: &Context<'_>, answer: &mut Answer) {
    let prediction = &context.prediction;
    for difference in differences(log, &prediction.events, &prediction.unknown, &prediction.registers) {
        match difference {
            Difference::Digest { event, expected, found } => {
                let row = differing(event, &expected, found, context);
                answer.differences.push(located(row, &expected));
            }
            Difference::Missing { expected } => {
                let text = format!("an event is missing: {}", expected.input);
                let row = Row { kind: "missing", expected: Some(expected.digest.to_string()), text, ..Row::default() };
                answer.differences.push(located(row, &expected));
            }
            Difference::Unexpected { event } => answer.differences.extend(unexpected(log, event)),
            Difference::Unknown { event, expected } => {
                let text = format!("{}: what it should be is not known", expected.input);
                let row = Row { kind: "unknown", event: Some(event), text, ..Row::default() };
                answer.unknown.push(located(row, &expected));
            }
        }
    }
}

fn located(row: Row, expected: &PredictedEvent) -> Row {
    let input = if row.input.is_empty() { key(expected.input).to_owned() } else { row.input.clone() };
    Row { input, register: Some(expected.register.to_string().to_uppercase()), ..row }
}

fn unexpected(log: &EventLog<'_>, event: usize) -> Option<Row> {
    let found = log.events.get(event)?;
    let cause = found.cause();
    Some(Row {
        input: cause.key.to_owned(),
        kind: "unexpected",
        register: Some(format!("RTMR{}", found.index.saturating_sub(1))),
        event: Some(event),
        found: found.sha384().map(|digest| digest.to_string()),
        text: format!("an event that was not predicted: {}", harmless(&cause.text)),
        ..Row::default()
    })
}

/// An event with another digest: which input, and what it was where that can be found out.
fn differing(event: usize, expected: &PredictedEvent, found: Option<Digest384>, context: &Context<'_>) -> Row {
    let mut row = Row {
        kind: "differs",
        event: Some(event),
        expected: Some(expected.digest.to_string()),
        found: found.map(|digest| digest.to_string()),
        text: format!("the {} is another", expected.input),
        ..Row::default()
    };
    let Some(found) = found else {
        row.text = format!("the {} has no SHA-384", expected.input);
        return row;
    };
    match expected.input {
        Input::TdHob => {
            let mib = context.prediction.layout.as_ref().and_then(|layout| memory_mib(found, layout));
            if let Some(mib) = mib {
                row.text = memory_text(mib, context);
                row.value = Some(json!(mib));
            }
        }
        Input::Kernel | Input::Initrd => named_file(expected.input, found, context, &mut row),
        Input::CommandLine => {
            if let Some(line) = lines(context).iter().find(|line| line.digest == found) {
                let Row { text, details, value, .. } = line_row(line, context);
                (row.text, row.details, row.value) = (text, details, value);
            } else {
                row.details
                    .push("a log has no command line, only its digest: name what the guest had with --cmdline".into());
            }
        }
        Input::AcpiLoader | Input::AcpiRsdp | Input::AcpiTables => {
            row.details.push("other vCPUs, other devices, or another version of QEMU".to_owned());
        }
        _ => {}
    }
    row
}

fn named_file(input: Input, found: Digest384, context: &Context<'_>, row: &mut Row) {
    let files = if input == Input::Kernel { &context.kernels } else { &context.initrds };
    if let Some(file) = files.iter().find(|file| of_file(input, file) == Some(found)) {
        row.text = format!("the {input} is {}", file.name);
        row.value = Some(json!(file.name));
    } else if input == Input::Kernel {
        row.details.push("another kernel, or a QEMU before 10.2, which writes into the kernel's header".to_owned());
    }
}

fn memory_text(mib: u64, context: &Context<'_>) -> String {
    let expected = context.expected_memory_mib.map(|mib| format!(", expected {mib} MiB")).unwrap_or_default();
    format!("the guest has {mib} MiB of memory{expected}")
}

/// A command line that may have been measured.
struct Line {
    /// What is different about the expected line; `None` for a line that was named.
    how: Option<String>,
    line: String,
    digest: Digest384,
}

/// The lines that were named, then the expected one as slips of hand leave it, each as every known firmware passes it on.
fn lines(context: &Context<'_>) -> Vec<Line> {
    let mut lines = Vec::new();
    for line in &context.verb.cmdline {
        for profile in profile::ALL {
            for has_initrd in [true, false] {
                let digest = load_options(profile, line, has_initrd);
                lines.push(Line { how: None, line: line.clone(), digest });
            }
        }
    }
    for (slip, digest) in load_options_slips(context.command_line, &profile::ALL) {
        let initrd = if slip.has_initrd { "" } else { ", without an initrd" };
        let how = slip.how.unwrap_or("as expected");
        let how = Some(format!("{how}{initrd}, as firmware of {} passes it on", slip.profile));
        lines.push(Line { how, line: slip.line, digest });
    }
    lines
}

fn line_row(line: &Line, context: &Context<'_>) -> Row {
    let text = match &line.how {
        Some(how) => format!("the kernel command line was measured {how}"),
        None => "the kernel command line is the one that was named".to_owned(),
    };
    let details = text::difference(context.command_line, &line.line);
    Row { input: "cmdline".into(), kind: "differs", value: Some(json!(line.line)), text, details, ..Row::default() }
}

/// MRTD depends on the firmware and on the order of its pages.
fn other_mrtd(found: Digest384, context: &Context<'_>) -> Result<Row, Failure> {
    let row = |input: &str, value, text| Row {
        input: input.into(),
        kind: "differs",
        register: Some("MRTD".into()),
        value,
        text,
        ..Row::default()
    };
    if context.prediction.mrtd.is_some_and(|(_, two_pass)| two_pass == found) {
        let text =
            "all pages of a section were added before they were measured, as QEMU trees around 8.2 do".to_owned();
        return Ok(row("page_order", Some(json!("two-pass")), text));
    }
    for path in &context.verb.firmware {
        let file = FirmwareFile::read(path)?;
        let firmware: Firmware<'_> = file.parse()?;
        let orders = [PageOrder::SinglePass, PageOrder::TwoPass];
        if orders.iter().any(|order| mrtd(&firmware, *order).is_ok_and(|mrtd| mrtd == found)) {
            let name = path.display().to_string();
            return Ok(row("firmware", Some(json!(name)), format!("the firmware is {name}")));
        }
    }
    let text = "the firmware is another: name what may have been launched with --firmware".to_owned();
    Ok(row("firmware", None, text))
}

/// What a quote says beside the registers: ATTRIBUTES, and MRCONFIGID where a VM description says what it should be.
fn beside_the_registers(found: &TdMeasurement, expected: &Expected, answer: &mut Answer) -> Result<(), Failure> {
    let refusals = Attributes(found.attributes).refusals();
    if !refusals.is_empty() {
        let text = format!("ATTRIBUTES {:#x} are unfit for a release guest: {}", found.attributes, refusals.join(", "));
        let found = Some(format!("{:#x}", found.attributes));
        answer.differences.push(Row { input: "attributes".into(), kind: "differs", found, text, ..Row::default() });
    }
    let Some(vm) = &expected.vm else { return Ok(()) };
    let wanted = vm.guest.mrconfigid().map_err(|error| Failure::new(Outcome::Internal, error.to_string()))?;
    let register = Register::new("MRCONFIGID", Digest384(found.mrconfigid).to_string(), Some(wanted.to_string()));
    if register.verdict == Verdict::Differs {
        let text = "MRCONFIGID is not that of [guest]: the guest was given another configuration".to_owned();
        answer.differences.push(Row { input: "guest_configuration".into(), kind: "differs", text, ..Row::default() });
    }
    answer.registers.push(register);
    Ok(())
}

/// An input for machines, with the words that `measure` uses for events of logs.
fn key(input: Input) -> &'static str {
    match input {
        Input::TdHob => "memory",
        Input::VariableStore => "variable_store",
        Input::Variable(_) => "secure_boot",
        Input::AcpiLoader | Input::AcpiRsdp | Input::AcpiTables => "acpi",
        Input::FwCfg(_) => "fw_cfg",
        Input::Smbios => "smbios",
        Input::Kernel => "kernel",
        Input::CommandLine => "cmdline",
        Input::Initrd => "initrd",
        _ => "fixed",
    }
}
