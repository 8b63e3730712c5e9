//! `bullion ps`: the VMs of this host.

use launcher::Directories;
use launcher::state::{Listed, Phase, list};
use serde::Serialize;
use spec::agent::Workload;

use crate::failure::Failure;
use crate::printer::Printer;

#[derive(Serialize)]
struct Row {
    name: String,
    phase: String,
    running: bool,
    #[serde(flatten)]
    record: serde_json::Value,
}

pub(crate) fn run(printer: &Printer) -> Result<u8, Failure> {
    let listed = list(&Directories::from_environment(), true)?;
    if !listed.is_empty() {
        printer.line(format_args!(
            "{:<24} {:<9} {:<5} {:<5} {:>9} {:>8}  IMAGE",
            "NAME", "PHASE", "TEE", "ACCEL", "READY", "PID"
        ));
    }
    for vm in &listed {
        printer.line(line(vm));
    }
    let rows: Vec<Row> = listed.into_iter().map(row).collect();
    printer.value(&serde_json::json!({ "vms": rows }));
    Ok(0)
}

fn line(vm: &Listed) -> String {
    let Some(record) = &vm.record else { return format!("{:<24} {:<9}", vm.name, "starting") };
    let ready = record.ready_ms.map_or("-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
    let accelerator = record.accelerator.map_or("-".to_owned(), |accelerator| accelerator.to_string());
    let mut text = format!(
        "{:<24} {:<9} {:<5} {:<5} {:>9} {:>8}  {}",
        vm.name,
        phase(record.phase),
        record.tee.to_string(),
        accelerator,
        ready,
        record.supervisor.pid,
        record.image.display()
    );
    match record.workload {
        Some(Workload::Preparing) => text.push_str(&format!("\n{:<24} workload: preparing", "")),
        Some(Workload::Running { restarts }) => {
            text.push_str(&format!("\n{:<24} workload: running, {restarts} restarts", ""));
        }
        Some(Workload::Ended { .. }) | None => {}
    }
    if let Some(before) = record.before.as_ref().filter(|_| record.restarts > 0) {
        text.push_str(&format!("\n{:<24} restarts: {}, the last after: {}", "", record.restarts, before.summary));
    }
    if let Some(exit) = &record.exit {
        text.push_str(&format!("\n{:<24} exit {}: {}", "", exit.code, exit.summary));
    }
    text
}

fn row(vm: Listed) -> Row {
    let phase = vm.record.as_ref().map_or("starting".to_owned(), |record| phase(record.phase));
    let record =
        vm.record.and_then(|record| serde_json::to_value(record).ok()).unwrap_or_else(|| serde_json::json!({}));
    let mut record = record;
    if let Some(map) = record.as_object_mut() {
        for key in ["name", "phase", "running"] {
            map.remove(key);
        }
    }
    Row { name: vm.name, phase, running: vm.running, record }
}

fn phase(phase: Phase) -> String {
    serde_json::to_value(phase).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
