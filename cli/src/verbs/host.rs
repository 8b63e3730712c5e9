//! `bullion host`: what this host can do.

pub(crate) mod prepare;

use launcher::HostFacts;
use launcher::host::check::{Line, Qemu, Status, check, mark_mended, worst};
use launcher::qemu::Features;
use serde_json::json;
use spec::Outcome;

use crate::args::{Arguments, Host, HostAction, HostCheck};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;

pub(crate) fn run(arguments: &Arguments, verb: &Host, printer: &Printer) -> Result<u8, Failure> {
    match &verb.action {
        HostAction::Check(verb) => run_check(arguments, verb, printer),
        HostAction::Prepare(verb) => prepare::run(verb, printer),
        HostAction::Restore(verb) => prepare::restore(verb, printer),
    }
}

fn run_check(arguments: &Arguments, verb: &HostCheck, printer: &Printer) -> Result<u8, Failure> {
    let vm = verb.vm.as_deref().map(inputs::vm).transpose()?;
    let facts = HostFacts::probe();
    let needs = vm.as_ref().map(|(vm, _)| prepare::needs(vm, &facts)).transpose()?;
    let features = features(arguments, verb);
    let qemu = match &features {
        Ok(Some(features)) => Qemu::Known(features),
        Ok(None) => Qemu::NotFetched,
        Err(reason) => Qemu::Unusable(reason),
    };
    let mut lines = check(&facts, qemu, needs.as_ref());
    let (_, preparation) = prepare::plan(&facts, needs.as_ref(), None, false);
    if preparation.refusals.is_empty() {
        let prepared = launcher::host::prepare::after(&facts, &preparation.steps);
        mark_mended(&mut lines, &check(&prepared, qemu, needs.as_ref()));
    }
    for line in &lines {
        printer.line(line);
    }
    let worst = worst(&lines);
    printer.value(&json!({ "worst": worst, "lines": lines, "facts": facts }));
    let refusals = count(&lines, Status::Refusal);
    let summary = format!("refusals: {refusals}, warnings: {}", count(&lines, Status::Warning));
    printer.note(match &vm {
        Some((vm, _)) if refusals > 0 => format!("{summary}: \"{}\" will not start here", vm.name),
        _ => summary,
    });
    Ok(if worst == Status::Refusal { Outcome::HostCannot.code() } else { 0 })
}

fn count(lines: &[Line], status: Status) -> usize {
    lines.iter().filter(|line| line.status == status).count()
}

/// What the QEMU that would be run can do; none where the pinned one is not there.
fn features(arguments: &Arguments, verb: &HostCheck) -> Result<Option<Features>, String> {
    let told = |failure: Failure| failure.messages.join(": ");
    let store = inputs::open_store(arguments).map_err(told)?;
    match crate::tree::qemu(&verb.qemu, &store) {
        Ok((_hold, program)) => Features::of(&program, store.root()).map(Some).map_err(|error| told(error.into())),
        Err(failure) if failure.outcome == Outcome::InputMismatch => Ok(None),
        Err(failure) => Err(told(failure)),
    }
}
