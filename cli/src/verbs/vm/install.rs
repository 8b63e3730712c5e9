//! `bullion vm install` and `uninstall`: the systemd unit of one VM.

use std::path::{Path, PathBuf};

use launcher::unit::{MARK, Unit, file_name};
use serde_json::json;
use spec::Outcome;

use crate::args::{Arguments, VmInstall, VmUninstall};
use crate::failure::Failure;
use crate::inputs;
use crate::printer::Printer;

/// Where an administrator's units are.
const UNITS: &str = "etc/systemd/system";

pub(crate) fn run(arguments: &Arguments, verb: &VmInstall, printer: &Printer) -> Result<u8, Failure> {
    // What the description names is relative to where it is.
    let description = absolute(&verb.vm)?;
    let (vm, named) = inputs::vm(&description)?;
    if vm.name != verb.name {
        let message = format!("{} describes a VM named \"{}\", not \"{}\"", verb.vm.display(), vm.name, verb.name);
        return Err(Failure::new(Outcome::Usage, message));
    }
    let store = inputs::open_store(arguments)?;
    let (words, reads) = words(verb)?;
    let program = std::env::current_exe().map_err(|error| Failure::file("finding", Path::new("bullion"), &error))?;
    let text = Unit {
        vm: &vm,
        description: &description,
        image: &absolute(verb.image.as_deref().unwrap_or(&named))?,
        program: &program,
        words: &words,
        cache: &absolute(store.root())?,
        reads: &reads,
    }
    .text()?;
    let path = place(&verb.dir, &vm.name);
    if verb.print {
        printer.raw(text.as_bytes());
        return Ok(0);
    }
    if let Some(found) = ours(&path)?.filter(|found| *found != text) {
        printer.note(format_args!("{} is replaced ({} lines before)", path.display(), found.lines().count()));
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(|error| Failure::file("creating", directory, &error))?;
    store::write_atomically(&path, text.as_bytes())?;
    printer.line(path.display());
    printer
        .note(format_args!("start it with: systemctl daemon-reload && systemctl enable --now {}", file_name(&vm.name)));
    printer.value(&json!({ "name": vm.name, "unit": path }));
    Ok(0)
}

pub(crate) fn undo(verb: &VmUninstall, printer: &Printer) -> Result<u8, Failure> {
    let path = place(&verb.dir, &verb.name);
    if ours(&path)?.is_none() {
        let message = format!("there is no {}", path.display());
        return Err(
            Failure::new(Outcome::Usage, message).with_hint("`systemctl list-unit-files 'bullion@*'` lists units")
        );
    }
    std::fs::remove_file(&path).map_err(|error| Failure::file("removing", &path, &error))?;
    printer.line(format_args!("{}: removed", path.display()));
    printer.note(format_args!("a VM that runs is not stopped by that: systemctl stop {}", file_name(&verb.name)));
    printer.value(&json!({ "name": verb.name, "removed": path }));
    Ok(0)
}

fn place(root: &Path, name: &str) -> PathBuf {
    root.join(UNITS).join(file_name(name))
}

/// The unit that is there; none where nothing is. What somebody else has written is not touched.
fn ours(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.starts_with(MARK) => Ok(Some(text)),
        Ok(_) => {
            let message = format!("{} was not written by Bullion", path.display());
            Err(Failure::new(Outcome::HostCannot, message).with_hint("move it away, or give the VM another name"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::file("reading", path, &error)),
    }
}

/// What `launch` is given besides the description, and the files that it reads then.
fn words(verb: &VmInstall) -> Result<(Vec<String>, Vec<PathBuf>), Failure> {
    let (mut words, mut reads) = (Vec::new(), Vec::new());
    let release = &verb.release;
    let one = |name: &'static str, path: &Option<PathBuf>| path.clone().map(|path| (name, path));
    let trust = release.trust.trust.iter().cloned().map(|path| ("--trust", path));
    let files = [one("--image", &verb.image), one("--qemu", &verb.qemu.qemu), one("--vmm", &verb.qemu.vmm)];
    for (name, path) in files.into_iter().flatten().chain(trust) {
        let path = absolute(&path)?;
        words.extend([name.to_owned(), path.display().to_string()]);
        reads.push(path);
    }
    let flags = [
        ("--dangerously-allow-dev", release.trust.dangerously_allow_dev),
        ("--dangerously-allow-unsigned", release.dangerously_allow_unsigned),
    ];
    words.extend(flags.into_iter().filter(|(_, given)| *given).map(|(name, _)| name.to_owned()));
    // A recipe's lock and bases are beside it.
    reads.extend(verb.qemu.vmm.as_deref().and_then(Path::parent).map(absolute).transpose()?);
    Ok((words, reads))
}

/// The path without links, as a mount namespace has to name it.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().map_err(|error| Failure::file("finding", path, &error))
}
