//! PID 1 of a virtual machine that loads the modules below `/modules`, runs a few commands and powers off: what `/commands`
//! says, a line each, between marks on the console that name the command and its exit code. `write PATH TEXT` writes.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "its output is a console that a test reads")]

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

fn main() {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = fs::create_dir_all(target);
        if let Err(error) = mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            eprintln!("lab-init: cannot mount {kind}: {error}");
        }
    }
    load_modules();
    for line in fs::read_to_string("/commands").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let Some(program) = words.next() else { continue };
        println!("\n[begin {line}]");
        let status = match (program, words.clone().collect::<Vec<_>>().as_slice()) {
            ("write", [path, text]) => fs::write(path, text).map(|()| 0),
            _ => run(program, words),
        };
        println!("\n[end {}]", status.map_or_else(|error| error.to_string(), |code| code.to_string()));
    }
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn run<'a>(program: &str, words: impl Iterator<Item = &'a str>) -> std::io::Result<i32> {
    let mut command = Command::new(program);
    command.args(words).env("NO_COLOR", "1").env("HOME", "/tmp").env("PATH", "/");
    command.env("BULLION_RUN_DIR", "/run/bullion").env("BULLION_STATE_DIR", "/tmp/state");
    Ok(command.status()?.code().unwrap_or(-1))
}

/// Loads what is there, by name: names begin with the place in the order.
fn load_modules() {
    let mut paths: Vec<PathBuf> =
        fs::read_dir("/modules").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let loaded = File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
            nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty()).map_err(|error| error.to_string())
        });
        if let Err(error) = loaded {
            eprintln!("lab-init: cannot load {}: {error}", path.display());
        }
    }
}
