//! A guest that hangs and one whose kernel panics, from a shell on the serial line: QEMU hears of it by a device, and the launch ends for it
//! with the reason and an exit code. The judges are the kernel's drivers and QEMU's devices.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use e2e::{Bench, Run, bench};

/// The first process does not run any more, and everything else does: the control group that it is put into is frozen.
const FREEZE: &str = "b=/usr/bin/busybox; g=/sys/fs/cgroup; $b mount -t cgroup2 c $g && $b mkdir $g/x && \
    echo 1 > $g/x/cgroup.procs && echo 1 > $g/x/cgroup.freeze; $b echo fro''zen $?\n";
/// The kernel panics after the console was taken away from it, as in a release.
const PANIC: &str = "echo N > /sys/class/tty/ttyS0/console; echo c > /proc/sysrq-trigger\n";

/// Launches a guest with `more` in its configuration, types `words` once it has been ready for `after`, and waits for the end.
fn launched(bench: &Bench, image: &Path, name: &str, more: &str, (words, after): (&str, Duration)) -> Run {
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), name, "none", 1, image);
    let text = std::fs::read_to_string(&vm).unwrap();
    std::fs::write(&vm, format!("{text}{more}\n[host]\nready_timeout_s = 180\n")).unwrap();
    let mut command = bench.launching(&vm, &["--console"]);
    let mut launch = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut keyboard = launch.stdin.take().unwrap();
    let mut errors = launch.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        text
    });
    let mut stdout = String::new();
    for line in BufReader::new(launch.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains(spec::agent::CONSOLE_READY) {
            std::thread::sleep(after);
            keyboard.write_all(words.as_bytes()).unwrap();
        }
        stdout.push_str(&line);
        stdout.push('\n');
    }
    let code = launch.wait().unwrap().code().unwrap_or(-1);
    Run { code, stdout, stderr: errors.join().unwrap() }
}

/// Exit code and ending that are kept of a VM.
fn ended(bench: &Bench, name: &str) -> (Option<u64>, String) {
    let listed = bench.run(["ps", "--json"]).expect(0, &[]).json();
    let vm = listed["vms"].as_array().unwrap().iter().find(|vm| vm["name"] == name).unwrap();
    (vm["exit"]["code"].as_u64(), vm["exit"]["summary"].as_str().unwrap().to_owned())
}

#[test]
fn a_guest_whose_first_process_hangs_is_ended_by_its_watchdog() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.dev() else { return };
    let more = "[guest.watchdog]\ntimeout_s = 15";
    // Longer than the watchdog waits: it was fed meanwhile.
    let run = launched(&bench, image, "t-hang", more, (FREEZE, Duration::from_secs(25)));
    assert!(run.stdout.contains("frozen 0"), "{run:?}");
    let words = "the guest hung: it had not fed its watchdog for 15 s";
    run.expect(7, &[words]);
    assert_eq!(ended(&bench, "t-hang"), (Some(7), words.to_owned()));
}

#[test]
fn a_panic_that_no_console_tells_of_is_told_by_pvpanic() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.dev() else { return };
    let soon = Duration::from_secs(3);
    let run = launched(&bench, image, "t-panic", "pvpanic = true", (PANIC, soon));
    assert!(!run.stdout.contains("Kernel panic"), "{run:?}");
    let words = "the guest's kernel panicked: QEMU was told so by the guest, whose console does not say why";
    run.expect(7, &[words, "QEMU was told that the guest's kernel has panicked"]);
    assert_eq!(ended(&bench, "t-panic"), (Some(7), words.to_owned()));
    // Without the device nobody is told.
    launched(&bench, image, "t-reset", "", (PANIC, soon)).expect(7, &["the guest reset itself"]);
}

#[test]
fn an_image_without_the_drivers_is_not_launched_with_the_devices() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let manifest = image.join("manifest.json");
    let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    text["recipe"]["image"]["device_modules"] = serde_json::json!(["nvme"]);
    std::fs::write(&manifest, text.to_string()).unwrap();
    let vm = bench.vm(scratch.path(), "t-without", "none", 1, &image);
    let plain = std::fs::read_to_string(&vm).unwrap();
    for (more, words) in [
        ("pvpanic = true\n", ["guest.pvpanic", "pvpanic_pci"]),
        ("[guest.watchdog]\ntimeout_s = 30\n", ["guest.watchdog", "i6300esb"]),
    ] {
        std::fs::write(&vm, plain.clone() + more).unwrap();
        bench.launch(&vm, &["--plan"]).expect(4, &words);
    }
}
