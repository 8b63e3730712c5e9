//! `bullion vendor`: everything that locks name, in a directory of its own, so that an image can be built again when no
//! mirror has its packages any more.

use archive::Mirror;
use store::Store;

use super::fetch::fetch_lock;
use crate::args::{Arguments, Vendor};
use crate::component::Locked;
use crate::failure::Failure;
use crate::inputs;
use crate::printer::{Printer, size};

pub(crate) fn run(arguments: &Arguments, verb: &Vendor, printer: &Printer) -> Result<u8, Failure> {
    let cache = inputs::open_store(arguments)?;
    let Locked { locks, crates, sources } = Locked::by(&verb.recipes)?;
    let target = Store::open(&verb.output)?;
    let mut written = Written::default();
    for lock in &locks {
        // What the directory has already need not be in the cache.
        if lock.package.iter().any(|package| !target.has(&package.sha256) && !cache.has(&package.sha256)) {
            fetch_lock(lock, &Mirror::find(verb.network.mirror.as_deref())?, &cache, printer)?;
        }
        for package in &lock.package {
            if target.verify(&package.sha256, package.size).is_err() {
                target.insert_bytes(&cache.read(&package.sha256, package.size)?)?;
                written.packages += 1;
                written.bytes += package.size;
            }
        }
    }
    archive::fetch_crates(&crates, &cache)?;
    for one in crates.iter().filter(|one| !archive::has_crate(one, &target)) {
        let bytes = image::component::crate_file(one, &cache)?;
        target.insert_bytes(&bytes)?;
        written.crates += 1;
        written.bytes += bytes.len() as u64;
    }
    archive::fetch_sources(&sources, &cache, &archive::Silent)?;
    for one in sources.iter().filter(|one| target.verify(&one.sha256, one.size).is_err()) {
        target.insert_file(&cache.verify(&one.sha256, one.size)?)?;
        written.source_files += 1;
        written.bytes += one.size;
    }
    let with_crates = if crates.is_empty() { String::new() } else { format!(" and {} crates", written.crates) };
    printer.line(format_args!(
        "{}: {} packages{with_crates} written ({}); build from it with --store {}",
        verb.output.display(),
        written.packages,
        size(written.bytes),
        verb.output.display()
    ));
    printer.value(&written);
    Ok(0)
}

#[derive(Default, serde::Serialize)]
struct Written {
    packages: usize,
    crates: usize,
    source_files: usize,
    bytes: u64,
}
