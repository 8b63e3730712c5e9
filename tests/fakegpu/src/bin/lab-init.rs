//! PID 1 of a virtual machine that runs a few commands and powers off: what `/commands` says, a line each, between
//! marks on the console that name the command and its exit code.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "its output is a console that a test reads")]

use std::fs;
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
    for line in fs::read_to_string("/commands").unwrap_or_default().lines() {
        let mut words = line.split_whitespace();
        let Some(program) = words.next() else { continue };
        println!("\n[begin {line}]");
        let status = Command::new(program).args(words).env("NO_COLOR", "1").status();
        println!(
            "\n[end {}]",
            status.map_or_else(|error| error.to_string(), |status| status.code().unwrap_or(-1).to_string())
        );
    }
    let _ = reboot(RebootMode::RB_POWER_OFF);
}
