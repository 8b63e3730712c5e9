//! `bullion measure tpm`: the PCRs that an emulated boot leads to. A judge of the engine, never a reference value.

use std::io::Read as _;
use std::path::Path;

use launcher::qemu::oracle::Answer as Told;
use measure::Digest384;
use measure::firmware::volumes;
use measure::tdx::image::{BootEvents, Image, StubInputs, load_options};
use measure::tdx::platform::{Common, FirmwareFacts, PlatformError};
use measure::tdx::unified::Start;
use measure::tdx::{Pcr, PredictedEvent};
use measure::tpm::{self, FirmwareCode};
use measure::uefi::VariableStore;
use measure::{authenticode, linux};
use serde::Serialize;
use spec::pins::{EventJudge, Pins};
use spec::{Outcome, Sha256Digest};

use crate::args::MeasureTpm;
use crate::failure::Failure;
use crate::firmware::{FirmwareFile, FirmwareInput, facts};
use crate::inputs;
use crate::printer::Printer;
use crate::weigh::disk::{DiskFile, unified};
use crate::weigh::registers::verified;
use crate::weigh::unusable;

/// No kernel or initrd that firmware can load is larger.
const MAX_BYTES: u64 = 1 << 32;
/// Firmware ends at 4 GiB, and unpacks into less memory than that.
const MAX_UNPACKED: u64 = 256 << 20;
/// What the kernel's integrity measurement puts into its PCR at run time is not predicted.
const IMA_PCR: usize = 10;
const NOTE: &str =
    "an emulated TPM belongs to the host: these values test the prediction and are nobody's reference values";

#[derive(Serialize)]
struct Answer<'a> {
    note: &'static str,
    inputs: Inputs<'a>,
    #[serde(flatten)]
    pcrs: std::collections::BTreeMap<String, String>,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Inputs<'a> {
    firmware: FirmwareInput<'a>,
    profile: &'static str,
    variables_sha256: Sha256Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_sha256: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_sha256: Option<Sha256Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd_sha256: Option<Sha256Digest>,
    cmdline: &'a str,
}

/// One event.
#[derive(Serialize)]
struct Step {
    pcr: u8,
    event_type: String,
    name: String,
    digest: String,
}

pub(super) fn run(verb: &MeasureTpm, printer: &Printer) -> Result<u8, Failure> {
    let pins = inputs::pins()?;
    let file = FirmwareFile::read(&verb.firmware)?;
    let Prediction { profile, variables, kernel, initrd, pcrs, events } = predict(verb, &file, &pins)?;
    let answer = Answer {
        note: NOTE,
        inputs: Inputs {
            firmware: file.input(&pins),
            profile,
            variables_sha256: variables,
            kernel_sha256: kernel,
            disk_sha256: verb.disk.as_deref().map(sha256).transpose()?,
            initrd_sha256: initrd,
            cmdline: verb.cmdline.as_deref().unwrap_or_default(),
        },
        pcrs: pcrs.into_iter().map(|(number, value)| (format!("pcr{number}"), value.to_string())).collect(),
        steps: events.iter().map(step).collect(),
    };
    show(&answer, verb.steps, printer);
    printer.value(&answer);
    Ok(0)
}

/// What a boot leads to.
pub(crate) struct Prediction {
    profile: &'static str,
    variables: Sha256Digest,
    kernel: Option<Sha256Digest>,
    initrd: Option<Sha256Digest>,
    /// The PCRs that can be told, by number.
    pub(crate) pcrs: Vec<(usize, Digest384)>,
    /// Their events.
    pub(crate) events: Vec<PredictedEvent<Pcr>>,
}

/// Predicts the PCRs of the boot that these words describe, with this firmware.
pub(crate) fn predict(verb: &MeasureTpm, file: &FirmwareFile, pins: &Pins) -> Result<Prediction, Failure> {
    let variables = FirmwareFile::read(&verb.variables)?;
    let facts = known(file, pins)?;
    let kernel = verb.kernel.as_deref().map(read).transpose()?;
    let initrd = verb.initrd.as_deref().map(read).transpose()?;
    let cmdline = verb.cmdline.as_deref().unwrap_or_default();
    let store = VariableStore::parse(&variables.bytes).map_err(|error| unusable(&variables.path, &error))?;
    let fw_cfg = Told::import(&verb.fw_cfg)?.fw_cfg;
    let refused = |error: PlatformError| Failure::new(Outcome::Refused, format!("{}: {error}", file.path.display()));
    let disk = verb.disk.as_deref().map(DiskFile::read).transpose()?;
    let image = match (&verb.disk, &disk, &verb.kernel, &kernel) {
        (Some(path), Some(disk), ..) => Some((path, &disk.program)),
        (.., Some(path), Some(kernel)) => Some((path, kernel)),
        _ => None,
    };
    let enrolled = facts.verifies_by(&store).map_err(refused)?;
    let has_keys = enrolled.is_some();
    let authority =
        enrolled.zip(image).map(|(enrolled, (path, image))| verified(path, image, &enrolled)).transpose()?;
    let mut common = Common::new(&facts, &store, &fw_cfg, authority).map_err(refused)?;
    if let Some(slot) = verb.disk_at {
        common = common.starting_disk(slot, &fw_cfg).map_err(refused)?;
    }
    let boot = match (&disk, &verb.kernel, &kernel) {
        (Some(disk), ..) => disk_boot(&facts, disk, has_keys)?,
        (None, Some(path), Some(kernel)) => match linux::version(kernel) {
            Ok(version) => direct_boot(&facts, (path, kernel, version), initrd.as_deref(), cmdline)?,
            Err(_) => unified_boot(verb, (path, kernel), has_keys)?,
        },
        // The arguments need one of both.
        _ => return Err(Failure::new(Outcome::Usage, "there is neither --kernel nor --disk")),
    };
    // Such builds have SMM.
    let code = if facts.has_secure_boot { None } else { Some(code(file, &facts)?) };
    let mut events = tpm::events(code.as_ref(), &common, &boot);
    let pcrs = tpm::pcrs(&events).into_iter().enumerate();
    let is_told = |number: usize| number != IMA_PCR && (number != 0 || code.is_some());
    let pcrs = pcrs.filter(|(number, _)| is_told(*number)).collect();
    events.retain(|event| event.register != Pcr(0) || code.is_some());
    Ok(Prediction {
        profile: facts.profile.name,
        variables: variables.sha256,
        kernel: kernel.as_deref().map(Sha256Digest::of),
        initrd: initrd.as_deref().map(Sha256Digest::of),
        pcrs,
        events,
    })
}

/// What is known of the firmware, by its pin.
fn known<'a>(file: &FirmwareFile, pins: &'a Pins) -> Result<FirmwareFacts<'a>, Failure> {
    let refused = |reason: String| {
        Failure::new(Outcome::Refused, format!("{}: {reason}", file.path.display()))
            .with_hint("use Debian's OVMF_CODE_4M.fd of 2026.08")
    };
    let pin =
        pins.find(&file.sha256).ok_or_else(|| refused("it is not pinned: its events are not known".to_owned()))?;
    if !pin.events_judged_by.contains(&EventJudge::EmulatedLog) {
        return Err(refused("no log that it wrote for a TPM was ever compared with a prediction".to_owned()));
    }
    facts(pin).map_err(|error| refused(error.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: std::io::Error| Failure::file("reading", path, &error);
    let mut bytes = Vec::new();
    let file = store::open_regular(path).map_err(unreadable)?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// A bzImage that QEMU gives to firmware.
fn direct_boot(
    facts: &FirmwareFacts<'_>,
    (path, kernel, version): (&Path, &[u8], &str),
    initrd: Option<&[u8]>,
    cmdline: &str,
) -> Result<BootEvents, Failure> {
    if linux::stub_measures(version) != Some(true) {
        let message = format!("{}: what the stub of Linux {version} measures is not known", path.display());
        return Err(Failure::new(Outcome::Refused, message).with_hint("use Linux 6.9 or later"));
    }
    let stub = StubInputs {
        load_options: load_options(facts.profile, cmdline, initrd.is_some()),
        initrd: initrd.map(Digest384::of),
    };
    let kernel = authenticode::sha384(kernel).map_err(|error| unusable(path, &error))?;
    Ok(Image { profile: *facts.profile, kernel, stub: Some(stub) }.boot_events())
}

/// A unified kernel image that QEMU gives to firmware.
fn unified_boot(verb: &MeasureTpm, (path, image): (&Path, &[u8]), has_keys: bool) -> Result<BootEvents, Failure> {
    if verb.initrd.is_some() || verb.cmdline.is_some() {
        let message = format!("{} is no bzImage: initrd and command line would be its own", path.display());
        return Err(Failure::new(Outcome::Usage, message).with_hint("leave out --initrd and --cmdline"));
    }
    Ok(unified(path, image)?.boot_events(Start::Kernel, has_keys))
}

/// A disk that firmware starts.
fn disk_boot(facts: &FirmwareFacts<'_>, disk: &DiskFile, has_keys: bool) -> Result<BootEvents, Failure> {
    let seen = facts.profile.disk_boot.and_then(|boot| boot.first_exit_fails);
    let first_exit_fails = seen.ok_or_else(|| {
        let message = format!("what {} firmware measures when it starts a disk was never seen", facts.profile.name);
        Failure::new(Outcome::Refused, message)
    })?;
    Ok(disk.image.boot_events(disk.start(first_exit_fails), has_keys))
}

fn sha256(path: &Path) -> Result<Sha256Digest, Failure> {
    store::hash_file(path).map(|(_, sha256)| sha256).map_err(|error| Failure::file("reading", path, &error))
}

/// What PCR 0 covers: the firmware's volumes as it unpacks them.
fn code<'a>(file: &FirmwareFile, facts: &FirmwareFacts<'a>) -> Result<FirmwareCode<'a>, Failure> {
    let refused = |reason: String| Failure::new(Outcome::InputMismatch, format!("{}: {reason}", file.path.display()));
    let packed = volumes::packed(&file.bytes).ok_or_else(|| refused("it has no packed volumes".to_owned()))?;
    let decoder =
        liblzma::stream::Stream::new_lzma_decoder(MAX_UNPACKED).map_err(|error| refused(error.to_string()))?;
    let mut unpacked = Vec::new();
    liblzma::read::XzDecoder::new_stream(packed, decoder)
        .take(MAX_UNPACKED)
        .read_to_end(&mut unpacked)
        .map_err(|error| refused(format!("its packed volumes are damaged: {error}")))?;
    let digests = volumes::digests(&unpacked).unwrap_or_default();
    let [pei_volume, dxe_volume] = digests[..] else {
        return Err(refused(format!("it has {} packed volumes, expected two", digests.len())));
    };
    let bios = facts.bios.ok_or_else(|| refused("its version text is not known".to_owned()))?;
    Ok(FirmwareCode { version: bios.version, pei_volume, dxe_volume })
}

fn step(event: &PredictedEvent<Pcr>) -> Step {
    Step {
        pcr: event.register.0,
        event_type: event.event_type.to_string(),
        name: event.input.to_string(),
        digest: event.digest.to_string(),
    }
}

fn show(answer: &Answer<'_>, steps: bool, printer: &Printer) {
    answer.inputs.firmware.lines().iter().for_each(|line| printer.line(line));
    printer.line(format_args!("profile   {}", answer.inputs.profile));
    if steps {
        for step in &answer.steps {
            printer
                .line(format_args!("  PCR {:<2}  {:<34}  {}  {}", step.pcr, step.event_type, step.digest, step.name));
        }
    }
    for number in 0..16 {
        if let Some(value) = answer.pcrs.get(&format!("pcr{number}")) {
            printer.line(format_args!("tpm  PCR {number:<2}  {value}"));
        }
    }
    printer.line(format_args!("{NOTE}"));
}
