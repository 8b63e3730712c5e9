//! Stands for QEMU where none fits: answers what a launch asks of one, and ends when it is started with a machine.
#![allow(unsafe_code, reason = "descriptor 3 is QEMU's control channel, by agreement with whoever starts it")]
#![allow(clippy::print_stderr, reason = "what it was started with is told there")]

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

use serde_json::json;

/// QOM types that a launch asks for.
const TYPES: [&str; 13] = [
    "kvm-accel",
    "tcg-accel",
    "virtio-blk-pci",
    "virtio-serial-pci",
    "virtserialport",
    "pc-q35-10.1-machine",
    "memory-backend-memfd",
    "max-x86_64-cpu",
    "host-x86_64-cpu",
    "virtio-net-pci",
    "pcie-root-port",
    "vfio-pci",
    "iommufd",
];

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // SAFETY: nothing else in this program knows descriptor 3.
    let mut qmp = unsafe { File::from_raw_fd(3) };
    let mut say = |value: serde_json::Value| writeln!(qmp, "{value}");
    say(
        json!({"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": ""}, "capabilities": []}}),
    )?;
    say(json!({"return": {}, "id": 1}))?;
    if words.iter().any(|word| word == "none")
        && words.iter().any(|word| word == "-machine")
        && !words.iter().any(|word| word == "-kernel")
    {
        let types: Vec<_> = TYPES.iter().map(|name| json!({"name": name})).collect();
        say(json!({"return": types, "id": 2}))?;
        say(json!({"return": [], "id": 3}))?;
        return say(json!({"return": [{"option": "sandbox", "parameters": []}], "id": 4}));
    }
    let passed: Vec<_> = words.iter().filter(|word| word.starts_with("vfio-pci,")).collect();
    eprintln!("lab-qemu: started with {passed:?}");
    say(json!({"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}))
}
