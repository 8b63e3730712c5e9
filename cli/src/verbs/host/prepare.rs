//! `bullion host prepare` and `restore`: the plan shown, carried out, and undone.

use std::path::Path;

use launcher::host::check::Needs;
use launcher::host::choose::chosen;
use launcher::host::prepare::{self, Group, LocalMachine, Preparation, Undone};
use launcher::{Directories, HostFacts, PlanError};
use nix::unistd::geteuid;
use serde_json::json;
use spec::Outcome;
use spec::vm::Vm;

use crate::args::{HostPrepare, HostRestore};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;

/// What preparing this host for a VM, or for guests in general, comes to.
pub(crate) fn plan(
    facts: &HostFacts,
    needs: Option<&Needs>,
    group: Option<&Group>,
    persist: bool,
) -> (LocalMachine, Preparation) {
    let machine = LocalMachine::new(Path::new("/"), &prepare::journal(&Directories::from_environment()));
    let preparation = prepare::steps(&machine, facts, needs, group, persist);
    (machine, preparation)
}

/// What a VM needs, with a function chosen for each that it asks for by kind.
pub(crate) fn needs(vm: &Vm, facts: &HostFacts) -> Result<Needs, Failure> {
    let chosen = chosen(vm, facts).map_err(|line| PlanError::Unmet { vm: vm.name.clone(), line })?;
    Ok(Needs::of(&chosen))
}

pub(super) fn run(verb: &HostPrepare, printer: &Printer) -> Result<u8, Failure> {
    let vm = verb.vm.as_deref().map(inputs::vm).transpose()?;
    let facts = HostFacts::probe();
    let needs = vm.as_ref().map(|(vm, _)| needs(vm, &facts)).transpose()?;
    let group = verb.group.as_deref().map(group).transpose()?;
    let (mut machine, preparation) = plan(&facts, needs.as_ref(), group.as_ref(), verb.persist);
    let Preparation { steps, refusals, notes } = &preparation;
    steps.iter().for_each(|step| printer.line(step));
    refusals.iter().for_each(|line| printer.line(line));
    notes.iter().for_each(|note| printer.note(note));
    let answer = |done: usize| json!({ "steps": steps, "refusals": refusals, "notes": notes, "done": done });
    if !refusals.is_empty() {
        printer.value(&answer(0));
        printer.note("nothing was changed");
        return Ok(Outcome::HostCannot.code());
    }
    if !verb.yes || steps.is_empty() {
        printer.value(&answer(0));
        printer.note(match steps.len() {
            0 => "this host is ready: nothing is to be changed".to_owned(),
            count => format!("steps: {count}; nothing was changed yet: --yes carries them out"),
        });
        return Ok(0);
    }
    root()?;
    let _lock = prepare::lock(&Directories::from_environment())?;
    let mut done = 0;
    prepare::prepare(&mut machine, steps, &facts.boot_id, |_| done += 1)?;
    printer.value(&answer(done));
    printer.note(format_args!("changes: {done}; `bullion host restore` undoes them"));
    Ok(0)
}

pub(super) fn restore(verb: &HostRestore, printer: &Printer) -> Result<u8, Failure> {
    let facts = HostFacts::probe();
    let directories = Directories::from_environment();
    let mut machine = LocalMachine::new(Path::new("/"), &prepare::journal(&directories));
    if verb.plan {
        let journal = prepare::undoable(&machine, &facts.boot_id)?;
        journal.entries().iter().rev().for_each(|entry| printer.line(format_args!("undo      {}", entry.change)));
        printer.value(&json!({ "changes": journal.entries() }));
        return Ok(0);
    }
    root()?;
    let _lock = prepare::lock(&directories)?;
    let mut told = Vec::new();
    let busy = prepare::restore(&mut machine, &facts.boot_id, |change, undone| {
        let (word, reason) = match undone {
            Undone::Done => ("undone", None),
            Undone::Foreign(reason) => ("left", Some(reason)),
            Undone::Busy(reason) => ("in use", Some(reason)),
            Undone::Failed(reason) => ("failed", Some(reason)),
        };
        let because = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        printer.line(format_args!("{word:<9} {change}{because}"));
        told.push(json!({ "change": change, "result": word, "reason": reason }));
    })?;
    printer.value(&json!({ "changes": told, "kept": busy }));
    match (told.len(), busy) {
        (0, _) => printer.note("nothing is to be undone"),
        (_, 0) => {}
        (_, busy) => printer.note(format_args!("kept for later: {busy}; run it again when they are free")),
    }
    Ok(if busy > 0 { Outcome::HostCannot.code() } else { 0 })
}

fn root() -> Result<(), Failure> {
    match geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(Outcome::HostCannot, "changing this host takes root").with_hint("run it as root")),
    }
}

fn group(name: &str) -> Result<Group, Failure> {
    match nix::unistd::Group::from_name(name) {
        Ok(Some(group)) => Ok(Group { name: name.to_owned(), number: group.gid.as_raw() }),
        _ => Err(Failure::new(Outcome::Usage, format!("this host has no group \"{name}\""))),
    }
}
