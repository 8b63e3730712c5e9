//! `bullion measure tdx`: MRTD and RTMRs of files that no image holds together.

use std::path::Path;
use std::thread;

use launcher::qemu::oracle::{Answer as Told, Devices};
use measure::Digest384;
use measure::shape::Boot;
use measure::tdx::mrtd::{self, PageOrder};
use measure::tdx::{PredictedEvent, registers};
use serde::Serialize;
use spec::{Outcome, Sha256Digest};

use crate::args::{Arguments, MeasureTdx};
use crate::failure::Failure;
use crate::firmware::{FirmwareFile, FirmwareInput, facts};
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::disk::DiskFile;
use crate::weigh::machine::Oracle;
use crate::weigh::registers::{BootFiles, Initrd, Kernel, KnownFirmware};
use crate::weigh::{check_vcpus, unusable, whole_mib};

#[derive(Serialize)]
struct Answer<'a> {
    inputs: Inputs<'a>,
    mrtd: String,
    #[serde(flatten)]
    rtmrs: Rtmrs,
    /// Why registers that were asked for are not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    steps: Vec<Step>,
}

/// Each is left out where its inputs were not given.
#[derive(Default, Serialize)]
struct Rtmrs {
    #[serde(skip_serializing_if = "Option::is_none")]
    rtmr0: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtmr1: Option<String>,
    /// Of a disk, where it was never seen whether such firmware lets the kernel go at the first attempt: where it does, and where
    /// not. What was started is the same. `steps` has the former.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtmr1_one_of: Option<[String; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtmr2: Option<String>,
    /// Zero: nothing extends it before the guest's own software.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtmr3: Option<String>,
}

#[derive(Serialize)]
struct Inputs<'a> {
    firmware: FirmwareInput<'a>,
    page_order: &'static str,
    /// Which events the firmware measures, by the name of its profile; null where that is not known.
    profile: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<Kernel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<Initrd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_sha256: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_mib: Option<u64>,
    /// Whose tables firmware gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    tables: Option<TablesInput<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum TablesInput<'a> {
    /// Those of this version of QEMU, asked for.
    Qemu(String),
    /// Captured ones, in this directory.
    Captured(&'a Path),
}

/// One thing that is measured.
#[derive(Serialize)]
struct Step {
    register: &'static str,
    name: String,
    /// For MRTD: where the section is.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpa: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// For MRTD, what of the section is measured: its content and place, or its place alone. For RTMRs the event's type.
    kind: String,
    /// For MRTD, the register if nothing followed. For RTMRs, what is extended.
    digest: String,
}

/// What RTMRs were asked for, and found.
#[derive(Default)]
struct Predicted<'a> {
    events: Vec<PredictedEvent>,
    boot: Option<BootFiles>,
    disk_sha256: Option<Sha256Digest>,
    /// RTMR1 where the kernel leaves firmware at the second attempt, if it may.
    other_rtmr1: Option<Digest384>,
    tables: Option<TablesInput<'a>>,
}

/// Kernel and initrd, being hashed.
type Hashing<'scope> = thread::ScopedJoinHandle<'scope, Result<Option<BootFiles>, Failure>>;

pub(super) fn run(arguments: &Arguments, verb: &MeasureTdx, printer: &Printer) -> Result<u8, Failure> {
    // What takes longest is begun first.
    thread::scope(|scope| {
        let boot = scope.spawn(|| {
            let line = verb.cmdline.as_deref().unwrap_or_default();
            verb.kernel.as_ref().map(|kernel| BootFiles::read(kernel, verb.initrd.as_deref(), line)).transpose()
        });
        with_boot_files(arguments, verb, boot, printer)
    })
}

fn with_boot_files(
    arguments: &Arguments,
    verb: &MeasureTdx,
    boot: Hashing<'_>,
    printer: &Printer,
) -> Result<u8, Failure> {
    let file = FirmwareFile::read(&verb.firmware)?;
    let pins = inputs::pins()?;
    let (order, page_order) =
        if verb.two_pass { (PageOrder::TwoPass, "two-pass") } else { (PageOrder::SinglePass, "single-pass") };
    let firmware = file.parse()?;
    // MRTD hashes the firmware, the registers kernel and initrd: neither waits for the other.
    let (sections, predicted) = thread::scope(|scope| {
        let sections = scope.spawn(|| mrtd::steps(&firmware, order));
        let predicted = predict(arguments, verb, (&file, boot), &pins);
        (sections.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), predicted)
    });
    let sections = sections.map_err(|error| unusable(&file.path, &error))?;
    let digest = match sections.last() {
        Some(last) => last.digest,
        None => mrtd::mrtd(&firmware, order).map_err(|error| unusable(&file.path, &error))?,
    };
    let (predicted, refusal) = match predicted {
        Ok(predicted) => (predicted, None),
        Err(failure) if failure.outcome == Outcome::Refused => (Predicted::default(), Some(failure)),
        Err(failure) => return Err(failure),
    };
    let profile = pins.find(&file.sha256).and_then(|pin| facts(pin).ok()).map(|facts| facts.profile.name);
    let rtmrs = rtmrs(&predicted);
    let steps = sections.iter().map(section).chain(predicted.events.iter().map(event)).collect();
    let (boot, tables, disk_sha256) = (predicted.boot, predicted.tables, predicted.disk_sha256);
    let cmdline = boot.as_ref().map(|boot| boot.command_line.clone());
    let (kernel, initrd) = boot.map_or((None, None), |boot| (Some(boot.kernel), boot.initrd));
    let answer = Answer {
        inputs: Inputs {
            firmware: file.input(&pins),
            page_order,
            profile,
            kernel,
            initrd,
            cmdline,
            disk_sha256,
            vcpus: verb.vcpus,
            memory_mib: verb.memory.and_then(spec::size::Size::whole_mib),
            tables,
        },
        mrtd: digest.to_string(),
        rtmrs,
        refused: refusal.as_ref().map(|failure| failure.messages.join(": ")),
        steps,
    };
    show(&answer, verb.steps, printer);
    printer.value(&answer);
    if let Some(failure) = refusal {
        printer.text_failure(&failure);
        return Ok(failure.outcome.code());
    }
    Ok(0)
}

/// The events of the registers whose inputs were given.
fn predict<'a>(
    arguments: &Arguments,
    verb: &'a MeasureTdx,
    (file, boot): (&FirmwareFile, Hashing<'_>),
    pins: &spec::pins::Pins,
) -> Result<Predicted<'a>, Failure> {
    let mut predicted = Predicted::default();
    if verb.kernel.is_none() && verb.disk.is_none() && verb.memory.is_none() {
        return Ok(predicted);
    }
    let mut known = KnownFirmware::find(file, pins)?;
    let disk = verb.disk.as_deref().map(DiskFile::read).transpose()?;
    if let (Some(path), Some(disk)) = (&verb.disk, &disk) {
        known = known.starting_disk(path, disk)?;
    } else if let Some(kernel) = &verb.kernel {
        known = known.starting(kernel)?;
    }
    let memory_mib = verb.memory.map(whole_mib).transpose()?;
    // QEMU may have to be asked for the tables; kernel and initrd are hashed meanwhile.
    let tables = memory_mib.map(|memory_mib| tables(arguments, verb, &file.bytes, memory_mib)).transpose();
    let boot = boot.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let mut qemu_version = None;
    if let (Some((told, tables)), Some(memory_mib)) = (tables?, memory_mib) {
        qemu_version = told.qemu_version;
        predicted.tables = Some(tables);
        predicted.events = match verb.disk.is_some() && verb.disk_at.is_none() {
            true => known.platform_of_disk(&told.fw_cfg, memory_mib)?,
            false => known.platform_starting(&told.fw_cfg, memory_mib, verb.disk_at)?,
        };
    }
    if let Some(boot) = boot? {
        predicted.events.extend(known.image(&boot, qemu_version)?);
        predicted.boot = Some(boot);
    }
    if let (Some(path), Some(disk)) = (&verb.disk, &disk) {
        let mut may_be = known.disk(disk).into_iter();
        predicted.events.extend(may_be.next().unwrap_or_default());
        predicted.other_rtmr1 = may_be.next().map(|events| registers(&events)[1]);
        let (_, sha256) = store::hash_file(path).map_err(|error| Failure::file("reading", path, &error))?;
        predicted.disk_sha256 = Some(sha256);
    }
    Ok(predicted)
}

/// The tables that firmware gets: captured ones, or those of the QEMU that is asked.
fn tables<'a>(
    arguments: &Arguments,
    verb: &'a MeasureTdx,
    firmware: &[u8],
    memory_mib: u64,
) -> Result<(Told, TablesInput<'a>), Failure> {
    if let Some(directory) = &verb.acpi {
        return Ok((Told::import(directory)?, TablesInput::Captured(directory)));
    }
    let vcpus = verb.vcpus.unwrap_or(1);
    check_vcpus(&[vcpus])?;
    let store = inputs::open_store(arguments)?;
    let boot = if verb.disk.is_some() { Boot::Disk } else { Boot::Kernel };
    let told = Oracle::new(&verb.qemu, &store, Devices::default()).ask(firmware, boot, vcpus, memory_mib)?;
    let version = told.qemu_version.unwrap_or_default().map(|number| number.to_string()).join(".");
    Ok((told, TablesInput::Qemu(version)))
}

fn rtmrs(predicted: &Predicted<'_>) -> Rtmrs {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = registers(&predicted.events).map(|digest| digest.to_string());
    let platform = predicted.tables.is_some();
    let image = predicted.boot.is_some() || predicted.disk_sha256.is_some();
    let other = predicted.other_rtmr1.map(|digest| digest.to_string());
    Rtmrs {
        rtmr0: platform.then_some(rtmr0),
        rtmr1: (image && other.is_none()).then(|| rtmr1.clone()),
        rtmr1_one_of: other.map(|other| [rtmr1, other]),
        rtmr2: image.then_some(rtmr2),
        rtmr3: (platform || image).then_some(rtmr3),
    }
}

fn section(step: &mrtd::Step) -> Step {
    Step {
        register: "mrtd",
        name: step.section_type.to_string(),
        gpa: Some(step.gpa),
        size: Some(step.size),
        kind: if step.content_measured { "content" } else { "place" }.to_owned(),
        digest: step.digest.to_string(),
    }
}

fn event(event: &PredictedEvent) -> Step {
    use measure::tdx::Rtmr;
    Step {
        register: match event.register {
            Rtmr::Rtmr0 => "rtmr0",
            Rtmr::Rtmr1 => "rtmr1",
            Rtmr::Rtmr2 => "rtmr2",
            Rtmr::Rtmr3 => "rtmr3",
        },
        name: event.input.to_string(),
        gpa: None,
        size: None,
        kind: event.event_type.to_string(),
        digest: event.digest.to_string(),
    }
}

fn show(answer: &Answer<'_>, steps: bool, printer: &Printer) {
    let inputs = &answer.inputs;
    inputs.firmware.lines().iter().for_each(|line| printer.line(line));
    if let Some(kernel) = &inputs.kernel {
        printer.line(format_args!("kernel    {}, authenticode sha384 {}", kernel.version, kernel.authenticode_sha384));
        let initrd = inputs.initrd.as_ref().map_or("none".to_owned(), |initrd| format!("sha384 {}", initrd.sha384));
        printer.line(format_args!("initrd    {initrd}"));
        printer.line(format_args!("cmdline   {:?}", inputs.cmdline.as_deref().unwrap_or_default()));
    }
    match &inputs.tables {
        Some(TablesInput::Qemu(version)) => printer.line(format_args!("tables    of QEMU {version}")),
        Some(TablesInput::Captured(directory)) => {
            printer.line(format_args!("tables    captured, in {}", directory.display()));
        }
        None => {}
    }
    for step in answer.steps.iter().filter(|_| steps) {
        match (step.gpa, step.size) {
            (Some(gpa), Some(size)) => printer.line(format_args!(
                "  {gpa:#014x}  {size:#8x} bytes  {:<7}  {:<7}  {}",
                step.name, step.kind, step.digest
            )),
            _ => printer.line(format_args!("  {}  {:<34}  {}  {}", step.register, step.kind, step.digest, step.name)),
        }
    }
    printer.line(format_args!("tdx  MRTD  {}  ({})", answer.mrtd, inputs.page_order));
    let rtmrs = &answer.rtmrs;
    if let Some([first, second]) = &rtmrs.rtmr1_one_of {
        printer.line(format_args!("tdx  RTMR1 {first}, or, where the kernel's first ExitBootServices fails,"));
        printer.line(format_args!("           {second}"));
    }
    for (name, value) in
        [("RTMR0", &rtmrs.rtmr0), ("RTMR1", &rtmrs.rtmr1), ("RTMR2", &rtmrs.rtmr2), ("RTMR3", &rtmrs.rtmr3)]
    {
        if let Some(value) = value {
            printer.line(format_args!("tdx  {name} {value}"));
        }
    }
}
