//! `bullion diff`: what two images differ in, from packages and files to measured values, and which change moves which value.

mod values;

use std::collections::BTreeMap;
use std::path::Path;

use image::compare::{Change, ManifestDifference, ValueChange, compare_manifests};
use image::measured::moved_by;
use image::{Difference, compare_images};
use launcher::qemu::oracle::Devices;
use serde_json::{Value, json};
use spec::Outcome;
use spec::manifest::{FILE_NAME, Manifest, artifact};
use store::Image;

use crate::args::{Arguments, Diff};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::{Printer, size};
use crate::weigh::machine::Machine;

/// How many files of one artifact are listed for people.
const SHOWN: usize = 40;

pub(crate) fn run(arguments: &Arguments, verb: &Diff, printer: &Printer) -> Result<u8, Failure> {
    let (before, after) = (open(&verb.before)?, open(&verb.after)?);
    let manifests = compare_manifests(&before.manifest, &after.manifest);
    // A manifest differs wherever anything does; what in it differs is said by `manifests`.
    let mut files = compare_images(&before.directory, &after.directory)?;
    let same = files.is_empty();
    files.retain(|file| file.artifact != FILE_NAME);
    let standing = standing(&before.manifest, &after.manifest);
    for (what, [before, after]) in &standing {
        printer.line(format_args!("{what}: {before} -> {after}"));
    }
    packages(&manifests, printer);
    let has_disk = [&before, &after].iter().any(|image| image.manifest.artifacts.contains_key(artifact::DISK));
    show_files(&files, has_disk, printer);
    artifacts(&manifests, printer);
    let store = inputs::open_store(arguments)?;
    let machine = Machine { qemu: &verb.qemu, store: &store, printer, devices: Devices::default() };
    let measured = values::compare([&before, &after], &manifests.artifacts, &verb.tpm, &machine)?;
    values::show(&measured, printer);
    if same {
        printer.line("the images are the same to the byte");
    } else if files.is_empty() && manifests.artifacts.is_empty() {
        printer.line(format_args!(
            "only {FILE_NAME} differs: what it says of the image, the recipe's echo, expected values or ID blocks"
        ));
    }
    printer.value(&as_json(same, &standing, &manifests, (&files, has_disk), &measured));
    Ok(if same { 0 } else { Outcome::Refused.code() })
}

/// What a manifest says of the image's worth, where it is not the same.
fn standing(before: &Manifest, after: &Manifest) -> BTreeMap<&'static str, [String; 2]> {
    let of = |manifest: &Manifest| {
        let components = manifest.components.iter().map(|component| component.key.to_string());
        [
            ("class", manifest.class.to_string()),
            ("standing of the lock", format!("{:?}", manifest.standing).to_lowercase()),
            ("origin of the guest binary", manifest.guest.origin.clone()),
            ("components", components.collect::<Vec<_>>().join(", ")),
        ]
    };
    let pairs = of(before).into_iter().zip(of(after));
    pairs
        .filter(|(before, after)| before != after)
        .map(|((what, before), (_, after))| (what, [before, after]))
        .collect()
}

/// An image whose files are those of its manifest: what is said about values must be about these files.
fn open(directory: &Path) -> Result<Image, Failure> {
    let image = Image::open(directory)?;
    store::verify_all(&image.directory, &image.manifest)?;
    Ok(image)
}

fn packages(found: &ManifestDifference, printer: &Printer) {
    if !found.packages.is_empty() {
        printer.line("packages");
    }
    for (name, change) in &found.packages {
        let uses = change.uses.iter().map(|of| format!("{of:?}").to_lowercase()).collect::<Vec<_>>().join(", ");
        let line = match (&change.before, &change.after) {
            (Some(before), Some(after)) if before == after => format!("~ {name} {before}, another file"),
            (Some(before), Some(after)) => format!("~ {name} {before} -> {after}"),
            (Some(before), None) => format!("- {name} {before}"),
            (None, after) => format!("+ {name} {}", after.as_deref().unwrap_or_default()),
        };
        printer.line(format_args!("  {line} ({uses})"));
    }
}

/// Lists differences by artifact; `build --verify` shows its own with it.
pub(super) fn show_files(files: &[Difference], has_disk: bool, printer: &Printer) {
    let mut by_artifact: BTreeMap<&str, Vec<&Difference>> = BTreeMap::new();
    for file in files {
        by_artifact.entry(&file.artifact).or_default().push(file);
    }
    for (artifact, files) in by_artifact {
        printer.line(format_args!("{artifact}{}", moves(artifact, has_disk)));
        for file in files.iter().take(SHOWN) {
            let mark = match file.change {
                Change::Added => "+",
                Change::Removed => "-",
                Change::Changed => "~",
            };
            match (&file.path, file.change) {
                (Some(path), Change::Changed) => printer.line(format_args!("  {mark} /{path}: {}", file.what)),
                (Some(path), _) => printer.line(format_args!("  {mark} /{path}")),
                (None, _) => printer.line(format_args!("  {mark} {}", file.what)),
            }
        }
        if files.len() > SHOWN {
            printer.line(format_args!("  and {} more (--json has all)", files.len() - SHOWN));
        }
    }
}

fn moves(artifact: &str, has_disk: bool) -> String {
    match moved_by(artifact, has_disk).as_slice() {
        [] if has_disk => " (moves no measured value)".to_owned(),
        [] => " (moves no measured value of a direct boot)".to_owned(),
        values => format!(" (moves {})", values.join(", ")),
    }
}

fn artifacts(found: &ManifestDifference, printer: &Printer) {
    if !found.artifacts.is_empty() {
        printer.line("artifacts");
    }
    for (name, (before, after)) in &found.artifacts {
        let of = |file: &Option<spec::manifest::Artifact>| {
            file.as_ref().map_or("none".to_owned(), |file| format!("{} {}", size(file.size), file.sha256.short()))
        };
        printer.line(format_args!("  {name:<18} {} -> {}", of(before), of(after)));
    }
}

/// The differences of files for machines.
pub(super) fn files_as_json(files: &[Difference], has_disk: bool) -> Vec<Value> {
    let change = |change| match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    };
    let file = |file: &Difference| {
        json!({
            "artifact": file.artifact,
            "path": file.path.as_ref().map(|path| format!("/{path}")),
            "change": change(file.change),
            "what": file.what,
            "moves": moved_by(&file.artifact, has_disk),
        })
    };
    files.iter().map(file).collect()
}

fn as_json(
    same: bool,
    standing: &BTreeMap<&'static str, [String; 2]>,
    found: &ManifestDifference,
    (files, has_disk): (&[Difference], bool),
    measured: &[ValueChange],
) -> Value {
    let packages = found.packages.iter().map(
        |(name, change)| json!({ "name": name, "before": change.before, "after": change.after, "uses": change.uses }),
    );
    let artifacts = found.artifacts.iter().map(
        |(name, (before, after))| json!({ "name": name, "before": before, "after": after, "moves": moved_by(name, has_disk) }),
    );
    let values = measured.iter().map(|value| {
        json!({
            "value": value.name, "shape": value.shape, "before": value.before, "after": value.after,
            "moved_by": value.moved_by, "inputs": value.inputs,
        })
    });
    json!({
        "same": same,
        "standing": standing,
        "packages": packages.collect::<Vec<_>>(),
        "files": files_as_json(files, has_disk),
        "artifacts": artifacts.collect::<Vec<_>>(),
        "measured": values.collect::<Vec<_>>(),
    })
}
