//! The image boots, proves what it booted, and is supervised from start to end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{Run, bench, run};
use serde_json::Value;

#[test]
fn the_guest_says_which_root_it_verified_and_which_configuration_it_was_given() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-identity", "none", 2, bench.image());
    let answer = bench.launch(&vm, &["--until-ready", "--json"]).expect(0, &[]).json();
    let manifest: Value = serde_json::from_slice(&std::fs::read(bench.image().join("manifest.json")).unwrap()).unwrap();
    let identity = &answer["identity"];
    assert_eq!(identity["root_hash"], manifest["verity"]["root_hash"]);
    assert_eq!(identity["kernel_release"], manifest["kernel_version"]);
    assert_eq!(identity["hostname"], "t-identity");
    assert_eq!(identity["tee"], "none");
    // Without a TEE nothing binds the configuration, and the guest says so.
    assert_eq!(identity["configuration"]["binding"], "unattested");
    let config = spec::guest_config::GuestConfig { hostname: Some("t-identity".to_owned()), ..Default::default() };
    assert_eq!(identity["configuration"]["digest"], config.host_data().unwrap().to_string());
}

/// Where each thread of a process may run.
fn processors_of_threads(process: u64) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let allowed = |thread: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(thread.ok()?.path().join("status")).ok()?;
        status.lines().find_map(|line| Some(line.strip_prefix("Cpus_allowed_list:")?.trim().to_owned()))
    };
    threads.filter_map(allowed).collect()
}

#[test]
fn vcpus_run_on_the_processors_of_their_numa_node() {
    let Some(bench) = bench() else { return };
    let Ok(node) = std::fs::read_to_string("/sys/devices/system/node/node0/cpulist") else {
        return e2e::skipped("NUMA node 0: this kernel has none");
    };
    let node = node.trim();
    let Some(one) = node.split([',', '-']).next().filter(|one| *one != node) else {
        return e2e::skipped("NUMA node 0: it has one processor");
    };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-numa", "none", 2, bench.image());
    let text = std::fs::read_to_string(&vm).unwrap();
    assert!(!text.contains("[host]"), "{text}");
    std::fs::write(&vm, format!("{text}[host]\nnuma_node = 0\n")).unwrap();
    // Whoever launches may run on one of them alone.
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", one]).arg(bench.command([""; 0]).get_program()).arg("launch").arg(&vm).args(bench.vmm_words());
    let mut supervisor = bench.at_home(&mut command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let listed = bench.wait_for_phase("t-numa", "ready");
    let processors = processors_of_threads(listed["qemu_pid"].as_u64().unwrap());
    bench.run(["stop", "t-numa"]).expect(0, &[]);
    assert!(supervisor.wait().unwrap().success());
    let at = |place: &str| processors.iter().filter(|found| *found == place).count();
    assert_eq!(at(node), 2, "{processors:?}");
    assert_eq!(at(one) + 2, processors.len(), "{processors:?}");
}

#[test]
fn a_vm_is_listed_logged_refused_a_twin_and_stopped() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-life", "none", 1, bench.image());
    let mut supervisor = bench.launching(&vm, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let listed = bench.wait_for_phase("t-life", "ready");
    let qemu = i32::try_from(listed["qemu_pid"].as_i64().unwrap()).unwrap();

    bench.launch(&vm, &[]).expect(3, &["t-life", "hint:"]);
    bench.run(["rm", "t-life"]).expect(3, &["the VM \"t-life\" has not ended", "bullion stop t-life"]);

    bench.run(["stop", "t-life"]).expect(0, &[]);
    let status = supervisor.wait().unwrap();
    assert_eq!(status.code(), Some(0), "a guest that was asked to stop and did has not failed");
    assert!(!alive(qemu), "QEMU outlived its supervisor");

    let log = bench.run(["logs", "t-life"]).expect(0, &[]);
    assert!(log.stdout.contains("bullion-guest: READY "), "{}", log.stdout);
    bench.run(["stop", "t-life"]).expect(2, &["t-life"]);
    let listed = bench.run(["ps", "--json"]).expect(0, &[]).json();
    let running = listed["vms"].as_array().unwrap().iter().any(|vm| vm["name"] == "t-life" && vm["phase"] != "exited");
    assert!(!running, "{listed}");

    bench.run(["rm", "t-life"]).expect(0, &[]);
    bench.run(["logs", "t-life"]).expect(2, &["t-life"]);
    let listed = bench.run(["ps", "--json"]).expect(0, &[]).json();
    assert!(listed["vms"].as_array().unwrap().iter().all(|vm| vm["name"] != "t-life"), "{listed}");
    bench.run(["rm", "t-life"]).expect(2, &["nothing is kept", "hint:"]);
}

#[test]
fn qemu_does_not_outlive_a_killed_supervisor_and_the_name_is_free_again() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-killed", "none", 1, bench.image());
    let mut supervisor = bench.launching(&vm, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let listed = bench.wait_for_phase("t-killed", "ready");
    let qemu = i32::try_from(listed["qemu_pid"].as_i64().unwrap()).unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive(qemu) {
        assert!(Instant::now() < deadline, "QEMU {qemu} outlived its supervisor");
        std::thread::sleep(Duration::from_millis(20));
    }
    let listed = bench.run(["ps", "--json"]).expect(0, &[]).json();
    let left = listed["vms"].as_array().unwrap().iter().any(|vm| vm["name"] == "t-killed" && vm["phase"] == "ready");
    assert!(!left, "a killed VM is still listed as running: {listed}");
    bench.launch(&vm, &["--until-ready"]).expect(0, &[]);
}

#[test]
fn the_console_is_streamed_while_the_guest_runs() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-console", "none", 1, bench.image());
    let mut command = bench.launching(&vm, &["--until-ready"]);
    let mut supervisor = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines: Vec<String> = BufReader::new(supervisor.stdout.take().unwrap()).lines().map_while(Result::ok).collect();
    assert_eq!(supervisor.wait().unwrap().code(), Some(0));
    assert!(lines.iter().any(|line| line.contains("bullion-guest: READY ")), "{lines:?}");
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// One artifact is changed, on disk only: the host must refuse to start.
fn host_refuses(artifact: &str, change: impl Fn(&mut Vec<u8>)) -> Option<Run> {
    let bench = bench()?;
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let path = image.join(artifact);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let vm = bench.vm(scratch.path(), "t-tampered", "none", 1, &image);
    Some(bench.launch(&vm, &["--until-ready"]).expect(4, &[artifact, "expected", "found"]))
}

#[test]
fn a_changed_artifact_is_refused_before_the_guest_runs() {
    for artifact in ["vmlinuz", "initrd", "rootfs", "cmdline"] {
        if host_refuses(artifact, |bytes| bytes[20] ^= 1).is_none() {
            return;
        }
        host_refuses(artifact, |bytes| bytes.truncate(bytes.len() - 1));
    }
}

/// The host does not check; the guest must refuse.
fn guest_refuses(spoil: impl Fn(&std::path::Path), texts: &[&str]) {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    spoil(&image);
    let vm = bench.vm(scratch.path(), "t-refused", "none", 1, &image);
    bench.launch(&vm, &["--dangerously-skip-artifact-verification", "--until-ready"]).expect(7, texts);
}

fn change(path: &std::path::Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn the_guest_refuses_a_flipped_bit_in_the_root_file_system() {
    guest_refuses(|image| change(&image.join("rootfs"), |bytes| bytes[1024 + 40] ^= 1), &["verity"]);
}

#[test]
fn the_guest_refuses_a_wrong_root_hash() {
    guest_refuses(
        |image| {
            let path = image.join("manifest.json");
            let text = std::fs::read_to_string(&path).unwrap();
            let manifest: Value = serde_json::from_str(&text).unwrap();
            let old = manifest["command_line"].as_str().unwrap();
            let at = old.find("bullion.root=").unwrap() + "bullion.root=".len();
            let digit = if old.as_bytes()[at] == b'0' { "1" } else { "0" };
            let new = format!("{}{digit}{}", &old[..at], &old[at + 1..]);
            let digest = |line: &str| spec::Sha256Digest::of(line.as_bytes()).to_string();
            std::fs::write(&path, text.replace(old, &new).replace(&digest(old), &digest(&new))).unwrap();
            std::fs::write(image.join("cmdline"), &new).unwrap();
        },
        &["verity", "hashes to", "expected"],
    );
}

#[test]
fn the_guest_refuses_a_truncated_root_file_system() {
    guest_refuses(
        |image| change(&image.join("rootfs"), |bytes| bytes.truncate(bytes.len() / 2)),
        &["the guest failed: verity", "expected at least"],
    );
}

#[test]
fn plans_are_printed_and_start_nothing() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-plan", "snp", 2, bench.image());
    let plan = bench.launch(&vm, &["--plan", "--simulate"]).expect(0, &[]);
    for text in ["sev-snp-guest", "kernel-hashes=on", "EPYC-v4"] {
        assert!(plan.stdout.contains(text), "{text}: {}", plan.stdout);
    }
    let _ = run(&mut bench.command(["ps"]));
}
