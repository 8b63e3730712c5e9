//! `bullion cache`: what the cache of locked inputs holds, whether it is sound, and removing what is not needed.

use std::collections::BTreeSet;

use serde::Serialize;
use spec::Outcome;
use store::{Entry, Keep, Kind};

use crate::args::{Arguments, Cache, CacheAction};
use crate::component;
use crate::failure::Failure;
use crate::inputs;
use crate::printer::{Printer, size};

#[derive(Serialize)]
struct Row {
    kind: &'static str,
    path: String,
    bytes: u64,
}

pub(crate) fn run(arguments: &Arguments, verb: &Cache, printer: &Printer) -> Result<u8, Failure> {
    let store = inputs::open_store(arguments)?;
    match &verb.action {
        CacheAction::List => list(&store, printer),
        CacheAction::Verify => verify(&store, printer),
        CacheAction::Add { files } => add(&store, files, printer),
        CacheAction::Prune { keep, vmm, .. } => prune(&store, keep, *vmm, printer),
    }
}

fn rows(entries: &[Entry]) -> Vec<Row> {
    let row =
        |entry: &Entry| Row { kind: kind_word(entry.kind), path: entry.path.display().to_string(), bytes: entry.bytes };
    entries.iter().map(row).collect()
}

fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Blob => "blob",
        Kind::Tree => "tree",
        Kind::Partial => "partial",
        Kind::Other => "other",
    }
}

fn list(store: &store::Store, printer: &Printer) -> Result<u8, Failure> {
    let entries = store.entries()?;
    let rows = rows(&entries);
    for row in &rows {
        printer.line(format_args!("{:<8} {:>10}  {}", row.kind, size(row.bytes), row.path));
    }
    let total: u64 = rows.iter().map(|row| row.bytes).sum();
    printer.line(format_args!("{} entries, {} in {}", rows.len(), size(total), store.root().display()));
    printer.value(&serde_json::json!({ "directory": store.root(), "entries": rows, "bytes": total }));
    Ok(0)
}

fn add(store: &store::Store, files: &[std::path::PathBuf], printer: &Printer) -> Result<u8, Failure> {
    let mut added = Vec::new();
    for path in files {
        let (bytes, sha256) = store.insert_file(path)?;
        printer.line(format_args!("{sha256}  {:>10}  {}", size(bytes), path.display()));
        added.push(serde_json::json!({ "path": path, "bytes": bytes, "sha256": sha256 }));
    }
    printer.value(&added);
    Ok(0)
}

fn verify(store: &store::Store, printer: &Printer) -> Result<u8, Failure> {
    let mut damaged = Vec::new();
    let mut checked = 0;
    for entry in store.entries()?.iter().filter(|entry| entry.kind == Kind::Blob) {
        let Some(sha256) = &entry.sha256 else { continue };
        checked += 1;
        if let Err(error) = store.verify(sha256, entry.bytes) {
            printer.warning(&error);
            damaged.push(entry.path.display().to_string());
        }
    }
    printer.line(format_args!("{checked} blobs checked, {} damaged", damaged.len()));
    printer.value(&serde_json::json!({ "checked": checked, "damaged": damaged }));
    if damaged.is_empty() {
        return Ok(0);
    }
    let failure =
        Failure::new(Outcome::InputMismatch, format!("{} cached files do not hash to their names", damaged.len()))
            .with_hint("delete the files named above, then run: bullion fetch RECIPE");
    printer.text_failure(&failure);
    Ok(failure.outcome.code())
}

fn prune(store: &store::Store, keep: &[std::path::PathBuf], vmm: bool, printer: &Printer) -> Result<u8, Failure> {
    let mut wanted = BTreeSet::new();
    let mut locks = Vec::new();
    for path in keep {
        let loaded = inputs::recipe(path)?;
        locks.push(inputs::lock(&inputs::lock_path(path), path, &loaded.recipe)?);
        if loaded.recipe.kind == spec::recipe::Kind::Component {
            let component = component::load(path)?;
            let described = component.describe()?;
            wanted.extend(described.inputs().crates.iter().map(|one| one.sha256));
            wanted.extend(described.inputs().sources.iter().map(|one| one.sha256));
            let outputs = described.cached(store).map(|found| found.outputs).unwrap_or_default();
            wanted.extend(outputs.values().map(|output| output.sha256));
        }
    }
    if vmm {
        locks.push(inputs::pinned_vmm()?.1);
    }
    for lock in &locks {
        wanted.insert(spec::Sha256Digest::of(lock.text.as_bytes()));
        wanted.extend(lock.lock.package.iter().map(|package| package.sha256));
    }
    let pruned = store.prune(if locks.is_empty() { Keep::Nothing } else { Keep::Only(&wanted) })?;
    for entry in &pruned.in_use {
        printer.warning(format_args!("{} is in use and was kept", entry.path.display()));
    }
    printer.line(format_args!("{} entries removed, {} freed", pruned.removed.len(), size(pruned.bytes())));
    printer.value(&serde_json::json!({ "removed": rows(&pruned.removed), "in_use": rows(&pruned.in_use), "bytes": pruned.bytes() }));
    Ok(0)
}
