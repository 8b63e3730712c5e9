//! `bullion selftest`: what only real hardware can show, looked at without changing it unless that is asked for.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use launcher::Directories;
use launcher::gpu::access::{Function, ResetKind};
use launcher::gpu::mode::{ActiveMode, Mode};
use launcher::gpu::observe::Observation;
use launcher::gpu::plan::{Refusal, plan};
use launcher::gpu::product::Product;
use launcher::gpu::reconcile::{Device, look, reconcile};
use launcher::gpu::sysfs::{Claim, Found, PROCFS, SYSFS, SysfsFunction, find};
use launcher::gpu::tally::Tally;
use launcher::gpu::trace::{Recorded, Traced};
use serde_json::{Value, json};
use spec::Outcome;

use crate::args::{Selftest, SelftestAction, SelftestGpu};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;

/// What this cannot see.
const UNCHECKED: &str =
    "not checked: evidence and firmware of the GPU, NVLink, memory, and what a guest's driver makes of it";

/// No trace of a device is near this.
const MAX_TRACE_BYTES: u64 = 64 << 20;

pub(crate) fn run(verb: &Selftest, printer: &Printer) -> Result<u8, Failure> {
    let SelftestAction::Gpu(words) = &verb.action;
    let tested = match &words.replay {
        Some(file) => vec![replay(file)?],
        None => test_host(words, printer)?,
    };
    for device in &tested {
        device.lines.iter().for_each(|line| printer.line(line));
    }
    printer.note(UNCHECKED);
    let well = tested.iter().all(|device| device.well);
    let values: Vec<_> = tested.into_iter().map(|device| device.value).collect();
    printer.value(&json!({ "well": well, "devices": values, "unchecked": UNCHECKED }));
    Ok(if well { 0 } else { Outcome::HostCannot.code() })
}

/// What came of one device.
struct Tested {
    lines: Vec<String>,
    value: Value,
    well: bool,
}

fn test_host(words: &SelftestGpu, printer: &Printer) -> Result<Vec<Tested>, Failure> {
    let sysfs = Path::new(SYSFS);
    let found =
        find(sysfs, Path::new(PROCFS)).map_err(|error| Failure::file("listing PCI devices in", sysfs, &error))?;
    if let Some(missing) = words.addresses.iter().find(|address| found.iter().all(|found| found.address != **address)) {
        let text = format!("{missing} is not an NVIDIA GPU or NVSwitch of this host");
        return Err(Failure::new(Outcome::HostCannot, text));
    }
    let tally = Tally::default();
    let tested = test_all(&found, words, &tally, printer);
    if let Err(error) = tally.save(&Directories::from_environment()) {
        printer.note(format_args!("what happened to the devices is not counted: {error}"));
    }
    tested
}

fn test_all(found: &[Found], words: &SelftestGpu, tally: &Tally, printer: &Printer) -> Result<Vec<Tested>, Failure> {
    let mut tested = Vec::new();
    for found in found.iter().filter(|found| words.addresses.is_empty() || words.addresses.contains(&found.address)) {
        let Some(product) = found.product else {
            printer.note(format_args!("{} [10de:{:04x}] has no confidential mode", found.address, found.device_id));
            continue;
        };
        tested.push(test(found, product, words, (tally, printer))?);
    }
    if tested.is_empty() {
        return Err(Failure::new(Outcome::HostCannot, "this host has no GPU or NVSwitch with a confidential mode"));
    }
    Ok(tested)
}

fn test(
    found: &Found,
    product: Product,
    words: &SelftestGpu,
    (tally, printer): (&Tally, &Printer),
) -> Result<Tested, Failure> {
    let sysfs = Path::new(SYSFS);
    let _claim = Claim::take(sysfs, found.address)?;
    let function = tally.count(SysfsFunction::open(sysfs, found.address));
    let Some(directory) = &words.trace else {
        return run_device(Device { function, product, held_by: found.held_by.clone() }, words, printer)
            .map(|(told, _)| told);
    };
    let path = directory.join(format!("{}.jsonl", found.address));
    let file = std::fs::create_dir_all(directory).and_then(|()| File::create(&path));
    let file = file.map_err(|error| Failure::file("creating", &path, &error))?;
    let function = Traced::new(function, product, BufWriter::new(file));
    let (told, device) = run_device(Device { function, product, held_by: found.held_by.clone() }, words, printer)?;
    device.function.finish().map_err(|error| Failure::file("writing", &path, &error))?;
    Ok(told)
}

fn run_device<F: Function>(
    mut device: Device<F>,
    words: &SelftestGpu,
    printer: &Printer,
) -> Result<(Tested, Device<F>), Failure> {
    let observation = look(&mut device);
    let mut told = tell(&observation);
    if let (true, Ok(state)) = (words.change_modes && told.well, &observation.state) {
        let before = match state.active {
            ActiveMode::Valid(mode) => mode,
            ActiveMode::Invalid => Mode::Off,
        };
        let other = match (before, device.product.family.is_switch()) {
            (Mode::Off, true) => Mode::Ppcie,
            (Mode::Off, false) => Mode::On,
            _ => Mode::Off,
        };
        for mode in [other, before] {
            reconcile(std::slice::from_mut(&mut device), mode, |step| printer.note(step))?;
            told.lines.push(format!("{}: changed to {mode}, and verified", observation.address));
        }
    }
    Ok((told, device))
}

fn replay(file: &Path) -> Result<Tested, Failure> {
    let unusable = |reason: String| Failure::new(Outcome::InputMismatch, format!("{}: {reason}", file.display()));
    let text = String::from_utf8(inputs::read_file(file, MAX_TRACE_BYTES, "a trace")?)
        .map_err(|_| unusable("this is not a trace: it is not text".to_owned()))?;
    let function = Recorded::parse(&text).map_err(|error| unusable(error.to_string()))?;
    let product = function.product();
    Ok(tell(&look(&mut Device { function, product, held_by: None })))
}

/// What a device is like, and what each change of its mode would do.
fn tell(observation: &Observation) -> Tested {
    let address = observation.address;
    let mut lines = vec![format!("{address}: {} ({})", observation.product.name, observation.product.family)];
    let mut plans = serde_json::Map::new();
    let well = match &observation.state {
        Err(trouble) => {
            lines.push(format!("{address}: {}", trouble.reason));
            false
        }
        Ok(state) => {
            let pending = state.pending().map_or("contradictory".to_owned(), |mode| mode.to_string());
            lines.push(format!("{address}: awake, booted, mode {}, after a reset {pending}", state.active));
            let knobs: Vec<_> = state.knobs.iter().map(|(knob, value)| format!("{knob} {value}")).collect();
            lines.push(format!("{address}: knobs: {}", knobs.join(", ")));
            for mode in [Mode::Off, Mode::On, Mode::Ppcie] {
                let steps = would(observation, mode);
                lines.push(format!("{address}: to {mode}: {}", steps.join("; ")));
                plans.insert(mode.to_string(), json!(steps));
            }
            true
        }
    };
    let peers: Vec<_> = observation.bus_peers.iter().map(ToString::to_string).collect();
    if !peers.is_empty() {
        lines.push(format!("{address}: a bus reset would also reset {}", peers.join(", ")));
    }
    let state = observation.state.as_ref().ok();
    let value = json!({
        "address": address,
        "model": observation.product.name,
        "mode": state.map(|state| state.active.to_string()),
        "pending_mode": state.and_then(|state| state.pending()),
        "serial": state.and_then(|state| state.serial).map(|serial| format!("{serial:016x}")),
        "trouble": observation.state.as_ref().err().map(|trouble| &trouble.reason),
        "bus_peers": peers,
        "would": plans,
    });
    Tested { lines, value, well }
}

fn would(observation: &Observation, mode: Mode) -> Vec<String> {
    match plan(std::slice::from_ref(observation), mode, ResetKind::Bus) {
        Ok(plan) if plan.steps.is_empty() => vec!["nothing".to_owned()],
        Ok(plan) => plan.steps.iter().map(|step| step.action.to_string()).collect(),
        Err(refusals) => refusals.iter().map(Refusal::to_string).collect(),
    }
}
