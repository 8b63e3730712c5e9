//! A TD's event log, or the registers of its quote, beside what an image should measure.

mod input;
mod tables;

use std::path::Path;

use launcher::qemu::oracle::Devices;
use measure::Digest384;
use measure::eventlog::EventLog;
use measure::shape::Boot;
use measure::tdx::attributes::Attributes;
use measure::tdx::explain::{Difference, differences};
use measure::tdx::{Input, PredictedEvent, Rtmr, registers};
use spec::pins::Pins;
use spec::vm::Vm;
use spec::{Outcome, Tee};
use store::Store;

use super::answer::{Answer, Register, Row, UNKNOWN_CONFIGURATION, Verdict};
use super::log::unread;
use super::{Candidate, Expected, candidates, check_tee, vcpus};
use crate::args::Explain;
use crate::evidence_file::{Content, EvidenceFile, TdMeasurement, lenient};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;
use crate::verbs::eventlog::{Kind, harmless, kind};
use crate::weigh::machine::Machine;
use crate::weigh::prediction::{TdxPrediction, WantedMachine};
use crate::weigh::{unusable, whole_mib};
use input::{differing, key, other_input, other_mrtd};
use tables::Tables;

/// What makes a TD the expected one beside the registers that a log leads to.
pub(super) const NOT_IN_A_LOG: [&str; 6] = ["MRTD", "ATTRIBUTES", "XFAM", "MRCONFIGID", "MROWNER", "MROWNERCONFIG"];
const RTMRS: [Rtmr; 4] = [Rtmr::Rtmr0, Rtmr::Rtmr1, Rtmr::Rtmr2, Rtmr::Rtmr3];

/// What is compared with, and what may have been launched instead.
pub(super) struct Context<'a> {
    verb: &'a Explain,
    prediction: TdxPrediction,
    command_line: &'a str,
    kernels: Vec<Candidate>,
    initrds: Vec<Candidate>,
    expected_memory_mib: Option<u64>,
    pins: Pins,
    /// None where RTMR0 is not predicted, or from captured tables.
    tables: Option<Tables<'a>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        verb: &'a Explain,
        expected: &'a Expected,
        store: &'a Store,
        printer: &'a Printer,
    ) -> Result<Self, Failure> {
        check_tee(expected, Tee::Tdx, "its measurements are those of no TD")?;
        let boot = match expected.vm.as_ref().map(|vm| vm.boot) {
            Some(spec::vm::Boot::Disk) => Boot::Disk,
            Some(spec::vm::Boot::Kernel) | None => Boot::Kernel,
        };
        let memory = verb.memory.or(expected.vm.as_ref().map(|vm| vm.memory));
        let memory_mib = memory.map(whole_mib).transpose()?;
        let devices = expected.vm.as_ref().map(Devices::of).unwrap_or_default();
        let machine = Machine { qemu: &verb.qemu, store, printer, devices };
        let (vcpus, captured) = (vcpus(verb, expected)?, verb.acpi.as_deref());
        let wanted = WantedMachine { boot, vcpus, memory_mib, captured, machine };
        let image = (expected.directory.as_path(), &expected.manifest);
        let prediction = TdxPrediction::new(image.0, image.1, &wanted)?;
        let tables = Tables::new(&wanted, &prediction, image).filter(|_| captured.is_none());
        Ok(Self {
            verb,
            prediction,
            tables,
            command_line: &expected.manifest.command_line,
            kernels: candidates(&verb.kernel)?,
            initrds: candidates(&verb.initrd)?,
            expected_memory_mib: memory_mib,
            pins: inputs::pins()?,
        })
    }
}

/// A log by itself.
pub(super) fn log(
    context: &mut Context<'_>,
    path: &Path,
    bytes: &[u8],
    mut answer: Answer,
    printer: &Printer,
) -> Result<u8, Failure> {
    let (log, stopped) = read_log(path, bytes)?;
    answer.unknown.extend(stopped.map(|stopped| unread(path, &stopped)));
    let replay = log.replay().map_err(|error| unusable(path, &error))?;
    context.prediction.choose(|events| differences(&log, events, &[], &[Rtmr::Rtmr1]).len());
    compare_registers(&replay.rtmr, context, &mut answer);
    answer.not_compared = NOT_IN_A_LOG.to_vec();
    compare_events(&log, context, &mut answer)?;
    printer.note("a log is a claim: it counts where it replays to the registers of a quote");
    answer.reasons.extend(context.prediction.reasons.iter().cloned());
    answer.tell(printer)
}

/// A quote, and the log behind it where there is one.
pub(super) fn quote(
    context: &mut Context<'_>,
    found: &TdMeasurement,
    expected: &Expected,
    mut answer: Answer,
    printer: &Printer,
) -> Result<u8, Failure> {
    let wanted = context.prediction.mrtd;
    answer.registers.push(Register::new("MRTD", found.mrtd.to_string(), wanted.map(|(wanted, _)| wanted.to_string())));
    if wanted.is_some_and(|(wanted, _)| wanted != found.mrtd) {
        answer.differences.push(other_mrtd(found.mrtd, context)?);
    }
    let [_, rtmr1, ..] = found.rtmr;
    context.prediction.choose(|events| usize::from(registers(events)[1] != rtmr1));
    compare_registers(&found.rtmr, context, &mut answer);
    beside_the_registers(found, expected, &mut answer)?;
    match &context.verb.eventlog {
        Some(path) => quoted_log(path, found, context, &mut answer, printer)?,
        None => registers_alone(found, context, &mut answer)?,
    }
    answer.reasons.extend(context.prediction.reasons.iter().cloned());
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
    compare_events(&log, context, answer)?;
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
fn registers_alone(found: &TdMeasurement, context: &Context<'_>, answer: &mut Answer) -> Result<(), Failure> {
    for (register, value) in RTMRS.into_iter().zip(found.rtmr) {
        let wanted = context.prediction.register(register);
        if wanted.is_none_or(|wanted| wanted == value) {
            continue;
        }
        let row = match other_input(register, value, context) {
            None if register == Rtmr::Rtmr0 => tables::behind_register(value, context)?,
            row => row,
        };
        let row = row.unwrap_or_else(|| {
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
    Ok(())
}

fn compare_events(log: &EventLog<'_>, context: &Context<'_>, answer: &mut Answer) -> Result<(), Failure> {
    let prediction = &context.prediction;
    let found = differences(log, &prediction.events, &prediction.unknown, &prediction.registers);
    for difference in found.iter().copied() {
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
    tables::name_machine(log, &found, context, answer)
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

/// MROWNER and MROWNERCONFIG: a launch leaves both zero.
fn owner(found: &TdMeasurement, answer: &mut Answer) {
    for (name, value) in ["MROWNER", "MROWNERCONFIG"].into_iter().zip(found.owner) {
        let value = Digest384(value);
        let register = Register::new(name, value.to_string(), Some(Digest384::ZERO.to_string()));
        if register.verdict == Verdict::Differs {
            let text = format!("{name} is not zero, as a launch by Bullion leaves it: somebody else launched this");
            let found = Some(value.to_string());
            answer.differences.push(Row { input: "owner".into(), kind: "differs", found, text, ..Row::default() });
        }
        answer.registers.push(register);
    }
}

/// ATTRIBUTES beside `[tdx]`. QEMU sets PKS where its CPU has protection keys for supervisor pages: that bit may be either.
fn attributes_of_vm(found: u64, vm: Option<&Vm>, answer: &mut Answer) {
    let Some(vm) = vm else { return answer.not_compared.push("ATTRIBUTES") };
    let wanted = vm.tdx.unwrap_or_default().bits() | (found & Attributes::PKS.0);
    let register = Register::new("ATTRIBUTES", format!("{found:#x}"), Some(format!("{wanted:#x}")));
    if register.verdict == Verdict::Differs && !answer.differences.iter().any(|row| row.input == "attributes") {
        let text = "ATTRIBUTES are not those of [tdx]: the guest runs by other rules than were agreed".to_owned();
        answer.differences.push(Row { input: "attributes".into(), kind: "differs", text, ..Row::default() });
    }
    answer.registers.push(register);
}

/// What a quote says beside the registers: ATTRIBUTES, and MRCONFIGID, of which only a VM description says what it should be.
fn beside_the_registers(found: &TdMeasurement, expected: &Expected, answer: &mut Answer) -> Result<(), Failure> {
    let refusals = Attributes(found.attributes).refusals();
    if !refusals.is_empty() {
        let text = format!("ATTRIBUTES {:#x} are unfit for a release guest: {}", found.attributes, refusals.join(", "));
        let found = Some(format!("{:#x}", found.attributes));
        answer.differences.push(Row { input: "attributes".into(), kind: "differs", found, text, ..Row::default() });
    }
    attributes_of_vm(found.attributes, expected.vm.as_ref(), answer);
    // It follows from the host's processor and the firmware: nobody says what it should be.
    answer.not_compared.push("XFAM");
    owner(found, answer);
    let given = Digest384(found.mrconfigid);
    let Some(vm) = &expected.vm else {
        // Zero is no configuration; any other is one that this side does not know.
        if given != Digest384::ZERO {
            answer.registers.push(Register::new("MRCONFIGID", given.to_string(), None));
            answer.reasons.push(UNKNOWN_CONFIGURATION.to_owned());
        }
        return Ok(());
    };
    let wanted = vm.guest.mrconfigid().map_err(|error| Failure::new(Outcome::Internal, error.to_string()))?;
    let register = Register::new("MRCONFIGID", given.to_string(), Some(wanted.to_string()));
    if register.verdict == Verdict::Differs {
        let text = "MRCONFIGID is not that of [guest]: the guest was given another configuration".to_owned();
        answer.differences.push(Row { input: "guest_configuration".into(), kind: "differs", text, ..Row::default() });
    }
    answer.registers.push(register);
    Ok(())
}
