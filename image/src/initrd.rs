//! What the initial RAM disk holds: the guest binary as `/init`, the modules, and the list of which to load.
//!
//! `/etc/bullion/modules` is read by `bullion-guest`: lines `boot NAME` in load order, then lines
//! `device NAME FIRST,SECOND,...,NAME` with the load order of each module that waits for its device. The files are
//! `/modules/NAME.ko`, with `_` in names.

use std::collections::BTreeSet;
use std::io;

use crate::content::Content;
use crate::cpio::{Entry, write_newc};
use crate::kernel::{Kernel, Plan};

/// zstd's level; part of the format epoch.
const ZSTD_LEVEL: i32 = 19;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHAR_DEVICE: u32 = 0o020_000;

const DIRECTORIES: [&str; 8] = ["dev", "etc", "etc/bullion", "modules", "proc", "run", "sys", "sysroot"];

/// A file that a recipe adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitrdFile {
    /// Without a leading `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u16,
    /// What is in it.
    pub content: Content,
}

/// The archive before compression. `files` are what the recipe adds: clean paths that are none of those above, sorted.
pub fn archive(guest: &[u8], kernel: &Kernel, files: &[InitrdFile]) -> io::Result<Vec<u8>> {
    let list = module_list(&kernel.plan);
    let modules: Vec<(String, &[u8])> =
        kernel.modules.iter().map(|(name, elf)| (format!("modules/{name}.ko"), elf.as_slice())).collect();
    let mut entries: Vec<Entry<'_>> = DIRECTORIES.map(|path| entry(path, DIRECTORY | 0o755, &[])).to_vec();
    // Where the kernel puts the first process's standard output.
    entries.push(Entry { device: (5, 1), ..entry("dev/console", CHAR_DEVICE | 0o600, &[]) });
    entries.push(entry("etc/bullion/modules", FILE | 0o644, list.as_bytes()));
    entries.push(entry("init", FILE | 0o755, guest));
    entries.extend(modules.iter().map(|(path, elf)| entry(path, FILE | 0o644, elf)));
    let above: BTreeSet<&str> = files.iter().flat_map(|file| directories_of(&file.path)).collect();
    let new = above.iter().filter(|path| !DIRECTORIES.contains(path));
    entries.extend(new.map(|path| entry(path, DIRECTORY | 0o755, &[])));
    entries.extend(files.iter().map(|file| entry(&file.path, FILE | u32::from(file.mode), file.content.bytes())));
    let mut out = Vec::with_capacity(
        entries.iter().map(|entry| entry.path.len() + entry.content.len() + 128).sum::<usize>() + 128,
    );
    write_newc(&mut out, entries)?;
    Ok(out)
}

/// The directories above a path, from the top.
fn directories_of(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}

fn entry<'a>(path: &'a str, mode: u32, content: &'a [u8]) -> Entry<'a> {
    Entry { path, mode, device: (0, 0), content }
}

/// The text of `/etc/bullion/modules`.
pub fn module_list(plan: &Plan) -> String {
    let boot = plan.boot.iter().map(|name| format!("boot {name}\n"));
    let device = plan.device.iter().map(|device| format!("device {} {}\n", device.name, device.order.join(",")));
    boot.chain(device).collect()
}

/// The archive as the boot loader passes it: one zstd frame, made by one thread.
pub fn compress(archive: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
    encoder.compress(archive)
}
