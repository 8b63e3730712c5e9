//! The measured values of two images side by side, and what is measured otherwise where they differ.
//!
//! What the manifests hold is taken from them; what one lacks of the other is predicted as `measure` does. PCRs are of a machine that
//! is no part of an image, and compared where one is named.

use std::collections::{BTreeMap, BTreeSet};

use image::compare::{Changed, Predicted, ValueChange, compare_values, of_snp, of_tdx, predicted};
use image::measured::{RTMR, RTMR_OF_DISK};
use measure::Digest384;
use measure::shape::{Boot, SnpShape};
use measure::tdx::{Input, Pcr, PredictedEvent, Rtmr};
use spec::manifest::{Manifest, SnpReference, TdxPlatform, artifact};
use store::Image;

use crate::args::{DiffTpm, MeasureTpm};
use crate::failure::Failure;
use crate::firmware::FirmwareFile;
use crate::inputs;
use crate::printer::Printer;
use crate::verbs::measure::tpm;
use crate::weigh::disk::DiskFile;
use crate::weigh::machine::Machine;
use crate::weigh::registers::KnownFirmware;
use crate::weigh::{self, SnpWanted, reference};

const PCRS: [&str; 16] = [
    "PCR 0", "PCR 1", "PCR 2", "PCR 3", "PCR 4", "PCR 5", "PCR 6", "PCR 7", "PCR 8", "PCR 9", "PCR 10", "PCR 11",
    "PCR 12", "PCR 13", "PCR 14", "PCR 15",
];

/// Every value that is predicted of either image.
pub(super) fn compare(
    images: [&Image; 2],
    artifacts: &Changed,
    tpm: &DiffTpm,
    machine: &Machine<'_>,
) -> Result<Vec<ValueChange>, Failure> {
    let [before, after] = images;
    let complete = |image: &Image| complete(image, [&before.manifest, &after.manifest], machine);
    let mut values = compare_values(&complete(before)?, &complete(after)?, artifacts, |name| {
        [before, after].iter().any(|image| image.manifest.artifacts.contains_key(name))
    });
    name_inputs(&mut values, images);
    values.extend(pcrs(images, artifacts, tpm)?);
    Ok(values)
}

/// What the image's manifest holds, and what can be predicted of what it lacks: of the shapes that either manifest has.
fn complete(image: &Image, both: [&Manifest; 2], machine: &Machine<'_>) -> Result<Vec<Predicted>, Failure> {
    let (directory, manifest) = (&image.directory, &image.manifest);
    let mut all = predicted(manifest);
    let has = |name: &str| manifest.artifacts.contains_key(name);
    let mut more = Vec::new();
    if has(artifact::FIRMWARE_SNP) {
        for shape in snp_shapes(both) {
            if !all.iter().any(|held| is_same(held, &of_snp(&shape))) {
                let wanted = SnpWanted {
                    vcpus: &[shape.vcpus],
                    cpus: std::slice::from_ref(&shape.cpu),
                    signature: Some(shape.cpu_signature).filter(|signature| *signature != 0),
                    sev_features: shape.sev_features,
                };
                more.extend(weigh::snp(directory, manifest, &wanted)?.iter().map(of_snp));
            }
        }
    }
    let shapes = tdx_shapes(both);
    if has(artifact::FIRMWARE_TDX) && lacks_tdx(manifest, &shapes) {
        let tdx = reference::tdx(directory, manifest, &shapes, machine).or_else(|failure| {
            if shapes.is_empty() {
                return Err(failure);
            }
            let reason = failure.messages.join(": ");
            machine.printer.note(format_args!("RTMR0 of {} is not predicted: {reason}", directory.display()));
            reference::tdx(directory, manifest, &[], machine)
        })?;
        more.extend(of_tdx(&tdx));
    }
    for value in more {
        if !all.iter().any(|held| is_same(held, &value)) {
            all.push(value);
        }
    }
    Ok(all)
}

fn is_same(a: &Predicted, b: &Predicted) -> bool {
    (a.name, &a.shape) == (b.name, &b.shape)
}

/// The SNP shapes of either manifest; where there are none, the one that `measure` takes.
fn snp_shapes(both: [&Manifest; 2]) -> Vec<SnpReference> {
    let all: Vec<SnpReference> = both.iter().flat_map(|manifest| manifest.references.snp.clone()).collect();
    if !all.is_empty() {
        return all;
    }
    vec![SnpReference {
        vcpus: 1,
        cpu: "EPYC-v4".to_owned(),
        cpu_signature: 0,
        sev_features: SnpShape::SNP_ACTIVE,
        launch_digest: spec::Sha384Digest([0; 48]),
        id_block: None,
    }]
}

/// The platform parts of a manifest: of direct boots, and of the disk.
fn platforms(manifest: &Manifest) -> [Option<&TdxPlatform>; 2] {
    let tdx = manifest.references.tdx.first();
    [
        tdx.and_then(|tdx| tdx.platform.as_ref()),
        tdx.and_then(|tdx| tdx.disk.as_ref()).and_then(|disk| disk.platform.as_ref()),
    ]
}

fn shapes_of(platform: Option<&TdxPlatform>) -> impl Iterator<Item = (u32, u64)> {
    platform.into_iter().flat_map(|platform| &platform.rtmr0).map(|of| (of.vcpus, of.memory_mib))
}

fn tdx_shapes(both: [&Manifest; 2]) -> Vec<(u32, u64)> {
    let all: BTreeSet<_> = both.into_iter().flat_map(platforms).flat_map(shapes_of).collect();
    all.into_iter().collect()
}

/// Whether a manifest has not all registers of these shapes.
fn lacks_tdx(manifest: &Manifest, shapes: &[(u32, u64)]) -> bool {
    let Some(tdx) = manifest.references.tdx.first() else { return true };
    let lacks = |platform| shapes.iter().any(|shape| !shapes_of(platform).any(|held| held == *shape));
    let [direct, disk] = platforms(manifest);
    let has_disk = manifest.artifacts.contains_key(artifact::DISK);
    tdx.image.is_none() || lacks(direct) || (has_disk && (tdx.disk.is_none() || lacks(disk)))
}

/// Says what is measured otherwise in registers of TDX that have moved.
fn name_inputs(values: &mut [ValueChange], [before, after]: [&Image; 2]) {
    for (boot, names) in [(Boot::Kernel, RTMR), (Boot::Disk, RTMR_OF_DISK)] {
        let moved =
            |value: &ValueChange| value.before.is_some() && value.after.is_some() && value.before != value.after;
        if !values.iter().any(|value| names.contains(&value.name) && moved(value)) {
            continue;
        }
        // Of what has no events on one side, nothing can be said; the value itself is there all the same.
        let [Ok(was), Ok(is)] = [before, after].map(|image| events(image, boot)) else { continue };
        let events = [was, is];
        let qemu = [before, after].map(|image| {
            let [direct, disk] = platforms(&image.manifest);
            let platform = if boot == Boot::Disk { disk } else { direct };
            platform.map(|platform| format!("QEMU {}", platform.qemu_version))
        });
        for value in values.iter_mut().filter(|value| moved(value)) {
            let Some(number) = names.iter().position(|name| *name == value.name) else { continue };
            let register = [Rtmr::Rtmr0, Rtmr::Rtmr1, Rtmr::Rtmr2].get(number).copied();
            let otherwise = register.map(|register| otherwise(&events, register)).unwrap_or_default();
            value.inputs = otherwise.iter().map(ToString::to_string).collect();
            if let ([Some(was), Some(is)], 0) = (&qemu, number)
                && was != is
            {
                value.inputs.push(format!("{was} -> {is}"));
            }
        }
    }
}

/// The events of RTMR1 and RTMR2.
fn events(image: &Image, boot: Boot) -> Result<Vec<PredictedEvent>, Failure> {
    let (directory, manifest) = (&image.directory, &image.manifest);
    let file = weigh::image_firmware(directory, manifest, artifact::FIRMWARE_TDX)?;
    let pins = inputs::pins()?;
    let known = KnownFirmware::find(&file, &pins)?;
    match boot {
        Boot::Kernel => known.image(&reference::boot_files(directory, manifest)?, None),
        Boot::Disk => {
            let disk = DiskFile::read(&directory.join(artifact::DISK))?;
            Ok(known.disk(&disk).into_iter().next().unwrap_or_default())
        }
    }
}

/// What is measured otherwise into a register: inputs that have other digests, or other numbers of them.
fn otherwise<R: Copy + PartialEq>(events: &[Vec<PredictedEvent<R>>; 2], register: R) -> Vec<Input> {
    let [before, after] = events.each_ref().map(|events| {
        let mut by_input: BTreeMap<Input, Vec<Digest384>> = BTreeMap::new();
        for event in events.iter().filter(|event| event.register == register) {
            by_input.entry(event.input).or_default().push(event.digest);
        }
        by_input
    });
    let inputs: BTreeSet<Input> = before.keys().chain(after.keys()).copied().collect();
    inputs.into_iter().filter(|input| before.get(input) != after.get(input)).collect()
}

/// The artifact behind an event that firmware, stub or kernel measure of an image.
fn artifact_of(input: Input) -> Option<&'static str> {
    Some(match input {
        Input::Kernel | Input::UnifiedSection(".linux") => artifact::KERNEL,
        Input::Initrd | Input::UnifiedSection(".initrd") => artifact::INITRD,
        Input::CommandLine | Input::UnifiedSection(".cmdline") => artifact::COMMAND_LINE,
        Input::UnifiedImage | Input::UnifiedSection(_) => artifact::UKI,
        Input::PartitionTable => artifact::DISK,
        _ => return None,
    })
}

/// The PCRs of both images in the machine that is named.
fn pcrs(images: [&Image; 2], artifacts: &Changed, words: &DiffTpm) -> Result<Vec<ValueChange>, Failure> {
    let DiffTpm { tpm_firmware: Some(firmware), tpm_variables: Some(variables), tpm_fw_cfg: Some(fw_cfg), .. } = words
    else {
        return Ok(Vec::new());
    };
    let (file, pins) = (FirmwareFile::read(firmware)?, inputs::pins()?);
    let predict = |image: &Image| {
        let at = |name: &str| image.directory.join(name);
        let machine = MeasureTpm {
            firmware: firmware.clone(),
            variables: variables.clone(),
            fw_cfg: fw_cfg.clone(),
            kernel: None,
            disk: None,
            disk_at: words.tpm_disk_at,
            initrd: None,
            cmdline: None,
            steps: false,
        };
        let boot = match words.tpm_disk_at {
            Some(_) if !image.manifest.artifacts.contains_key(artifact::DISK) => return Ok(None),
            Some(_) => MeasureTpm { disk: Some(at(artifact::DISK)), ..machine },
            None => MeasureTpm {
                kernel: Some(at(artifact::KERNEL)),
                initrd: Some(at(artifact::INITRD)),
                cmdline: Some(image.manifest.command_line.clone()),
                ..machine
            },
        };
        tpm::predict(&boot, &file, &pins).map(Some)
    };
    let predictions = [predict(images[0])?, predict(images[1])?];
    let events = predictions.each_ref().map(|of| of.as_ref().map(|of| of.events.clone()).unwrap_or_default());
    let shape = if words.tpm_disk_at.is_some() { "from disk" } else { "direct boot" };
    let value = |of: &Option<tpm::Prediction>, number: usize| {
        of.as_ref()?.pcrs.iter().find(|(known, _)| *known == number).map(|(_, value)| value.to_string())
    };
    let change = |(number, name): (usize, &&'static str)| {
        let [before, after] = predictions.each_ref().map(|of| value(of, number));
        let register = Pcr(u8::try_from(number).ok()?);
        let both = before.is_some() && after.is_some();
        let inputs = if both && before != after { otherwise(&events, register) } else { Vec::new() };
        let moved: BTreeSet<&str> = inputs.iter().copied().filter_map(artifact_of).collect();
        (before.is_some() || after.is_some()).then(|| ValueChange {
            name,
            shape: Some(shape.to_owned()),
            before,
            after,
            moved_by: moved.into_iter().filter(|name| artifacts.contains_key(*name)).map(str::to_owned).collect(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
        })
    };
    Ok(PCRS.iter().enumerate().filter_map(change).collect())
}

/// Shows the values, shortened, with what moves them.
pub(super) fn show(values: &[ValueChange], printer: &Printer) {
    printer.line("measured values");
    for value in values {
        let name = match &value.shape {
            Some(shape) => format!("{} ({shape})", value.name),
            None => value.name.to_owned(),
        };
        let mut cause = match value.moved_by.as_slice() {
            [] => String::new(),
            files => format!(", moved by {}", files.join(", ")),
        };
        if !value.inputs.is_empty() {
            cause.push_str(&format!(" ({})", value.inputs.join(", ")));
        }
        let line = match (&value.before, &value.after) {
            (Some(before), Some(after)) if before == after => format!("{name}: the same"),
            (before, after) => format!("{name}: {} -> {}{cause}", short(before), short(after)),
        };
        printer.line(format_args!("  {line}"));
    }
}

/// The beginning of a value, or of each that it may be.
fn short(text: &Option<String>) -> String {
    let Some(text) = text else { return "not predicted".to_owned() };
    text.split(" or ").map(|one| one.chars().take(16).collect::<String>()).collect::<Vec<_>>().join(" or ")
}
