//! The library in programs that are no TEE's: it must not be noticed, and it must not be passed on.

mod simulated;

use std::process::Command;

use simulated::{Laboratory, library};

#[test]
fn programs_started_from_a_preloaded_one_run_without_it() {
    let script = r#"echo "[$LD_PRELOAD]"; /bin/sh -c 'grep -c teesim /proc/self/maps'; grep -c teesim /proc/$$/maps"#;
    let output = Command::new("/bin/sh").args(["-c", script]).env("LD_PRELOAD", library()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("[]"), "{text}");
    assert_eq!(lines.next(), Some("0"), "{text}");
    assert_ne!(lines.next(), Some("0"), "the preloaded shell itself does have it: {text}");
}

#[test]
fn other_preloaded_libraries_stay() {
    let preload = format!("{} /nonexistent/other.so", library().display());
    let output = Command::new("/bin/sh").args(["-c", "echo $LD_PRELOAD"]).env("LD_PRELOAD", preload).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "/nonexistent/other.so");
}

#[test]
fn files_are_created_with_the_mode_that_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let script = "umask 027 && : > file && stat -c %a file && cat < /dev/sev | wc -c";
    let output = Command::new("/bin/sh")
        .args(["-c", script])
        .current_dir(directory.path())
        .env("LD_PRELOAD", library())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "640\n0\n");
}

#[test]
fn a_plain_vm_is_left_alone() {
    let Some(laboratory) = Laboratory::open() else { return };
    let mut command = laboratory.qemu();
    // The debug-exit device is not needed: -S never starts the vCPUs, and an HMP quit ends the run.
    command.args(["-machine", "q35", "-m", "64M", "-S", "-monitor", "stdio", "-display", "none"]);
    command.stdin(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"info kvm\nquit\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!laboratory.path("report.json").exists(), "no launch, no report");
}
