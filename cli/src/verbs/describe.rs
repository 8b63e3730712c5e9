//! `bullion describe`: an image for people. How large, what is in it, what is measured and by what, and what it is good for.

use image::inspect::{RootContent, root_content};
use image::measured::{MEASURED, Measured, is_measured_of};
use serde_json::json;
use spec::lock::Package;
use spec::manifest::{Manifest, artifact};
use store::Image;

use crate::args::Describe;
use crate::failure::Failure;
use crate::printer::{Printer, size};

/// How many of the largest packages are named.
const LARGEST: usize = 10;

pub(crate) fn run(verb: &Describe, printer: &Printer) -> Result<u8, Failure> {
    let image = Image::open(&verb.image)?;
    // What is told is of these files, not of what somebody once built.
    store::verify_all(&image.directory, &image.manifest)?;
    let root = root_content(&image.directory)?;
    let manifest = &image.manifest;
    let ability = Ability::of(manifest, &root);
    printer.line(format_args!(
        "{}: image \"{}\", class {}, format epoch {}",
        verb.image.display(),
        manifest.name,
        manifest.class,
        manifest.format_epoch
    ));
    files(manifest, printer);
    content(manifest, &root, printer);
    measured(manifest, printer);
    references(manifest, printer);
    printer.line("what it can do");
    printer.line(format_args!("  containers         {}", ability.workloads()));
    printer.line(format_args!("  scratch volumes    {}", ability.scratch()));
    let shell = root.shell.as_ref().map(|shell| format!("YES: {shell}; whoever has the host has the guest"));
    printer.line(format_args!("  shell on console   {}", shell.as_deref().unwrap_or("no")));
    printer.value(&json!({
        "name": manifest.name,
        "class": manifest.class,
        "standing": manifest.standing,
        "format_epoch": manifest.format_epoch,
        "manifest_sha256": image.manifest_sha256,
        "artifacts": manifest.artifacts,
        "documents": manifest.documents,
        "kernel_version": manifest.kernel_version,
        "command_line": manifest.command_line,
        "guest": manifest.guest,
        "root": {
            "root_hash": manifest.verity.root_hash,
            "files": root.files,
            "directories": root.directories,
            "links": root.links,
            "content_bytes": root.content_bytes,
            "users": root.users.iter().map(|user| json!({ "name": user.name, "uid": user.uid, "shell": user.shell })).collect::<Vec<_>>(),
        },
        "packages": by_size(manifest).iter().map(|package| json!({
            "name": package.name, "version": package.version, "uses": package.uses, "size": package.size,
        })).collect::<Vec<_>>(),
        "measured": measured_here(manifest).map(|(name, of, how)| json!({ "value": name, "of": of, "how": how })).collect::<Vec<_>>(),
        "references": manifest.references,
        "runs_workloads": ability.podman,
        "runs_compose_files": ability.compose,
        "shell": root.shell,
        "makes_scratch_volumes": ability.mke2fs && ability.dm_crypt,
    }));
    Ok(0)
}

fn files(manifest: &Manifest, printer: &Printer) {
    let total: u64 = manifest.artifacts.values().map(|file| file.size).sum();
    printer.line(format_args!("files ({} of artifacts)", size(total)));
    for (name, file) in manifest.files() {
        let kind = if manifest.artifacts.contains_key(name) { "" } else { "  (tells about the image)" };
        printer.line(format_args!("  {name:<18} {:>9}  sha256 {}{kind}", size(file.size), file.sha256));
    }
}

fn content(manifest: &Manifest, root: &RootContent, printer: &Printer) {
    printer.line("content");
    printer.line(format_args!("  kernel             {}", manifest.kernel_version));
    printer.line(format_args!("  command line       {}", manifest.command_line));
    printer.line(format_args!("  guest binary       {}, origin {}", size(manifest.guest.size), manifest.guest.origin));
    let (files, links, directories) = (root.files, root.links, root.directories);
    let bytes = size(root.content_bytes);
    printer
        .line(format_args!("  root file system   {files} files of {bytes}, {links} links, {directories} directories"));
    let users = root.users.iter().map(|user| format!("{} ({})", user.name, user.uid)).collect::<Vec<_>>().join(", ");
    let none = if users.is_empty() { "none: it has no /etc/passwd" } else { &users };
    printer.line(format_args!("  accounts           {none}"));
    printer.line(format_args!("  locked packages    {}; the largest, as they are packed:", manifest.inputs.len()));
    for package in by_size(manifest).iter().take(LARGEST) {
        printer.line(format_args!("    {:>9}  {} {}", size(package.size), package.name, package.version));
    }
}

fn by_size(manifest: &Manifest) -> Vec<&Package> {
    let mut packages: Vec<&Package> = manifest.inputs.iter().collect();
    packages.sort_by_key(|package| (std::cmp::Reverse(package.size), &package.name));
    packages
}

/// The measured values that files of this image go into, with those files.
fn measured_here(manifest: &Manifest) -> impl Iterator<Item = (&'static str, Vec<&'static str>, &'static str)> {
    let here = |name: &&&str| manifest.artifacts.contains_key(**name);
    let is_here = |value: &&Measured| is_measured_of(value.name, |name| manifest.artifacts.contains_key(name));
    let values = MEASURED.iter().filter(is_here).collect::<Vec<_>>();
    let files =
        values.into_iter().map(|value| (value.name, value.of.iter().filter(here).copied().collect(), value.how));
    files.collect::<Vec<_>>().into_iter()
}

fn measured(manifest: &Manifest, printer: &Printer) {
    let disk = if manifest.artifacts.contains_key(artifact::DISK) { ", and when firmware starts the disk" } else { "" };
    printer.line(format_args!("what is measured, when the kernel is started directly{disk}"));
    for (name, of, how) in measured_here(manifest) {
        printer.line(format_args!("  {name:<20} {} ({how})", of.join(", ")));
    }
    let documents = manifest.documents.keys().cloned().collect::<Vec<_>>().join(", ");
    printer.line(format_args!("  nothing measures     {documents}"));
}

fn references(manifest: &Manifest, printer: &Printer) {
    let references = &manifest.references;
    printer.line("expected values");
    for of in &references.snp {
        let block = if of.id_block.is_some() { "; with an ID block" } else { "" };
        printer.line(format_args!("  SNP {:<12} {:>3} vCPUs  {}{block}", of.cpu, of.vcpus, of.launch_digest));
    }
    for of in &references.tdx {
        printer.line(format_args!("  MRTD                       {}", of.mrtd));
        for shape in of.platform.iter().flat_map(|platform| &platform.rtmr0) {
            printer.line(format_args!("  RTMR0 {:>3} vCPUs {:>6} MiB  {}", shape.vcpus, shape.memory_mib, shape.rtmr0));
        }
        if let Some(image) = &of.image {
            printer.line(format_args!("  RTMR1                      {}", image.rtmr1));
            printer.line(format_args!("  RTMR2                      {}", image.rtmr2));
        }
    }
    if references.snp.is_empty() && references.tdx.is_empty() {
        printer.line("  none");
    }
}

/// What the guest finds for its work.
struct Ability {
    podman: bool,
    compose: bool,
    mke2fs: bool,
    dm_crypt: bool,
}

impl Ability {
    fn of(manifest: &Manifest, root: &RootContent) -> Self {
        let dm_crypt = manifest.recipe.image.as_ref().is_some_and(|image| {
            let mut modules = image.boot_modules.iter().chain(&image.device_modules).chain(&image.root_modules);
            modules.any(|name| name.replace('-', "_") == "dm_crypt")
        });
        Self { podman: root.runs_workloads, compose: root.runs_compose, mke2fs: root.makes_scratch, dm_crypt }
    }

    fn workloads(&self) -> &'static str {
        match (self.podman, self.compose) {
            (true, true) => "yes, pods and compose files too: podman and podman-compose are in the root file system",
            (true, false) => "yes, and pods: podman is in the root file system; no compose files",
            (false, _) => "no: there is no podman",
        }
    }

    fn scratch(&self) -> &'static str {
        match (self.dm_crypt, self.mke2fs) {
            (true, true) => "yes: dm_crypt and mke2fs are there",
            (false, _) => "no: the recipe names no module dm_crypt",
            (true, false) => "no: there is no mke2fs in the root file system",
        }
    }
}
