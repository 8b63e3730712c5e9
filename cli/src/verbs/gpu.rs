//! `bullion gpu`: GPUs and NVSwitches, their modes, and the way back for those that do not answer.

use std::path::Path;

use launcher::Directories;
use launcher::gpu::access::{Function, ResetKind};
use launcher::gpu::mode::Mode;
use launcher::gpu::plan::{plan, restart};
use launcher::gpu::reconcile::{Device, ReconcileError, look, reconcile};
use launcher::gpu::recover::recover;
use launcher::gpu::survey::{Seen, survey};
use launcher::gpu::sysfs::{Claim, Found, PROCFS, SYSFS, SysfsFunction, find};
use launcher::gpu::tally::{Counted, Tally};
use serde_json::{Value, json};
use spec::{Outcome, PciAddress};

use crate::args::{Gpu, GpuAction};
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) fn run(verb: &Gpu, printer: &Printer) -> Result<u8, Failure> {
    match &verb.action {
        GpuAction::List => list(printer),
        GpuAction::Labels => labels(printer),
        GpuAction::SetMode { mode, addresses, plan: false, .. } => set_mode((*mode).into(), addresses, printer),
        GpuAction::SetMode { mode, addresses, .. } => show_plan((*mode).into(), addresses, printer),
        GpuAction::Recover { address } => bring_back(*address, printer),
    }
}

fn find_all() -> Result<Vec<Found>, Failure> {
    let sysfs = Path::new(SYSFS);
    find(sysfs, Path::new(PROCFS)).map_err(|error| Failure::file("listing PCI devices in", sysfs, &error))
}

fn open(found: &Found, tally: &Tally) -> Option<Device<Counted<SysfsFunction>>> {
    let product = found.product?;
    let function = tally.count(SysfsFunction::open(Path::new(SYSFS), found.address));
    Some(Device { function, product, held_by: found.held_by.clone() })
}

fn survey_host() -> Result<Vec<Seen>, Failure> {
    let sysfs = Path::new(SYSFS);
    survey(sysfs, Path::new(PROCFS), &Directories::from_environment())
        .map_err(|error| Failure::file("listing PCI devices in", sysfs, &error))
}

fn list(printer: &Printer) -> Result<u8, Failure> {
    let devices = survey_host()?;
    if devices.is_empty() {
        printer.note("this host has no NVIDIA GPU or NVSwitch");
    } else {
        let head = ["ADDRESS", "MODEL", "MODE", "PENDING", "NODE", "GROUP", "DRIVER", "POWER", "SERIAL", "VM", "STATE"];
        printer.line(row(head.map(str::to_owned)));
    }
    devices.iter().for_each(|seen| printer.line(line(seen)));
    let values: Vec<_> = devices.iter().map(value).collect();
    printer.value(&json!({ "devices": values }));
    Ok(0)
}

fn row(cells: [String; 11]) -> String {
    let [address, model, mode, pending, node, group, driver, power, serial, vm, state] = cells;
    format!(
        "{address:<13} {model:<24} {mode:<9} {pending:<9} {node:>4} {group:>5}  {driver:<10} {power:<6} {serial:<16} \
         {vm:<12} {state}"
    )
}

fn serial(seen: &Seen) -> Option<String> {
    seen.state().and_then(|state| state.serial).map(|serial| format!("{serial:016x}"))
}

fn line(seen: &Seen) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let found = &seen.found;
    let health = match (&seen.observation, seen.trouble()) {
        (None, _) => "not known to have a confidential mode".to_owned(),
        (Some(_), None) => "well".to_owned(),
        (Some(_), Some(_)) if seen.guest.is_some() => "in use".to_owned(),
        (Some(_), Some(trouble)) => trouble.reason.clone(),
    };
    let conflict = || seen.state().map(|_| "conflict".to_owned());
    row([
        found.address.to_string(),
        found.product.map_or_else(|| format!("10de:{:04x}", found.device_id), |product| product.name.to_owned()),
        or_dash(seen.mode().map(|mode| mode.to_string())),
        or_dash(seen.pending().map(|mode| mode.to_string()).or_else(conflict)),
        or_dash(found.numa_node.map(|node| node.to_string())),
        or_dash(found.iommu_group.map(|group| group.to_string())),
        or_dash(found.driver.clone()),
        or_dash(found.power_state.clone()),
        or_dash(serial(seen)),
        or_dash(seen.guest.as_ref().map(|guest| guest.name.clone())),
        health,
    ])
}

fn value(seen: &Seen) -> Value {
    let found = &seen.found;
    json!({
        "address": found.address,
        "device_id": format!("{:04x}", found.device_id),
        "model": found.product.map(|product| product.name),
        "family": found.product.map(|product| product.family.to_string()),
        "mode": seen.mode().map(|mode| mode.to_string()),
        "pending_mode": seen.pending(),
        "serial": serial(seen),
        "numa_node": found.numa_node,
        "iommu_group": found.iommu_group,
        "driver": found.driver,
        "power_state": found.power_state,
        "vm": seen.guest.as_ref().map(|guest| &guest.name),
        "held_by": found.held_by,
        "trouble": seen.trouble().map(|trouble| &trouble.reason),
    })
}

/// The node's labels, as a feature file of node-feature-discovery has them.
fn labels(printer: &Printer) -> Result<u8, Failure> {
    let labels = launcher::gpu::labels::labels(&survey_host()?);
    labels.iter().for_each(|(name, value)| printer.line(format_args!("{name}={value}")));
    let map: serde_json::Map<String, Value> =
        labels.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect();
    printer.value(&json!({ "labels": map }));
    Ok(0)
}

/// Devices, and the right to change them.
type Chosen = (Vec<Device<Counted<SysfsFunction>>>, Vec<Claim>);

/// Adds what was counted to what is kept, once the devices are done with.
fn keep(tally: &Tally, printer: &Printer) {
    if let Err(error) = tally.save(&Directories::from_environment()) {
        printer.note(format_args!("what happened to the devices is not counted: {error}"));
    }
}

/// The devices that were named, or all; each taken, so that nobody else changes them meanwhile.
fn choose(addresses: &[PciAddress], tally: &Tally) -> Result<Chosen, Failure> {
    let found = find_all()?;
    if let Some(missing) = addresses.iter().find(|address| found.iter().all(|found| found.address != **address)) {
        return Err(no_such_device(*missing));
    }
    let mut devices = Vec::new();
    let mut claims = Vec::new();
    for found in found.iter().filter(|found| addresses.is_empty() || addresses.contains(&found.address)) {
        match open(found, tally) {
            Some(device) => devices.push(device),
            None if addresses.is_empty() => continue,
            None => return Err(unknown_device(found)),
        }
        claims.push(Claim::take(Path::new(SYSFS), found.address)?);
    }
    if devices.is_empty() {
        return Err(Failure::new(Outcome::HostCannot, "this host has no GPU or NVSwitch with a confidential mode"));
    }
    Ok((devices, claims))
}

fn no_such_device(address: PciAddress) -> Failure {
    Failure::new(Outcome::HostCannot, format!("{address} is not an NVIDIA GPU or NVSwitch of this host"))
        .with_hint("`bullion gpu list` shows those there are")
}

fn unknown_device(found: &Found) -> Failure {
    let text =
        format!("{} is 10de:{:04x}, which is not known to have a confidential mode", found.address, found.device_id);
    Failure::new(Outcome::HostCannot, text)
}

fn set_mode(mode: Mode, addresses: &[PciAddress], printer: &Printer) -> Result<u8, Failure> {
    let tally = Tally::default();
    let (mut devices, _claims) = choose(addresses, &tally)?;
    let addresses: Vec<_> = devices.iter().map(|device| device.function.address()).collect();
    let reconciled = reconcile(&mut devices, mode, |step| printer.note(step));
    drop(devices);
    keep(&tally, printer);
    let changed = reconciled?;
    printer.line(format_args!("mode {mode}: {}", if changed { "set and verified" } else { "already set" }));
    printer.value(&json!({ "mode": mode, "changed": changed, "devices": addresses }));
    Ok(0)
}

fn show_plan(mode: Mode, addresses: &[PciAddress], printer: &Printer) -> Result<u8, Failure> {
    let (mut devices, _claims) = choose(addresses, &Tally::default())?;
    let observations: Vec<_> = devices.iter_mut().map(look).collect();
    let mut planned = restart(&observations);
    if planned.steps.is_empty() {
        planned = plan(&observations, mode, ResetKind::Function).map_err(ReconcileError::Refused)?;
    } else {
        printer.note("a security processor is stuck: what comes after its restart cannot be planned yet");
    }
    if planned.steps.is_empty() {
        printer.line(format_args!("mode {mode}: already set"));
    }
    planned.steps.iter().for_each(|step| printer.line(step));
    let steps: Vec<_> = planned.steps.iter().map(ToString::to_string).collect();
    printer.value(&json!({ "mode": mode, "steps": steps }));
    Ok(0)
}

fn bring_back(address: PciAddress, printer: &Printer) -> Result<u8, Failure> {
    let found = find_all()?;
    let found = found.iter().find(|found| found.address == address).ok_or_else(|| no_such_device(address))?;
    let family = found.product.ok_or_else(|| unknown_device(found))?.family;
    if let Some(by) = &found.held_by {
        return Err(Failure::new(Outcome::HostCannot, format!("{address} is held by {by}"))
            .with_hint("stop the VM or process first, or unbind the driver"));
    }
    let _claim = Claim::take(Path::new(SYSFS), address)?;
    let tally = Tally::default();
    let mut function = tally.count(SysfsFunction::open(Path::new(SYSFS), address));
    let mut attempts = Vec::new();
    let recovered = recover(&mut function, family, |attempt| {
        let result = attempt.result.as_ref().map_or_else(ToString::to_string, |()| "well".to_owned());
        printer.note(format_args!("{} ({}): {result}", attempt.rung, attempt.rung.why()));
        attempts.push(json!({ "rung": attempt.rung.to_string(), "result": result }));
    });
    keep(&tally, printer);
    recovered?;
    printer.line(format_args!("{address}: well"));
    printer.value(&json!({ "address": address, "attempts": attempts }));
    Ok(0)
}
