//! `bullion host check` on this host, and on this host with a simulated secure processor and TDX module.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::PathBuf;
use std::process::Command;

use e2e::{bench, skipped};
use serde_json::Value;

fn check(bullion: &std::path::Path, preload: Option<&std::path::Path>) -> Value {
    let mut command = Command::new(bullion);
    command.args(["host", "check", "--json"]);
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn the_secure_processor_and_the_tdx_module_are_asked_with_the_calls_they_answer() {
    let Some(bench) = bench() else { return };
    let Some(simulator) = std::env::var_os("BULLION_TEESIM").map(PathBuf::from) else {
        return skipped("no simulator (BULLION_TEESIM)");
    };
    let real = check(&bench.bullion, None);
    if real["facts"]["kvm"]["usable"].is_null() {
        return skipped("no usable /dev/kvm");
    }
    // The simulator has its own declarations of the kernel's structures, which an unmodified QEMU agrees with.
    let answers = &check(&bench.bullion, Some(&simulator))["facts"]["answers"];
    assert_eq!(answers["kvm"]["vm_types"].as_u64().unwrap() & 0x30, 0x30, "{answers}");
    assert_eq!(answers["kvm"]["refused_types"], serde_json::json!({}));
    assert_eq!(answers["sev"]["api"][0], 1, "{answers}");
    assert_eq!(answers["tdx"]["attributes"].as_u64().unwrap() >> 28 & 1, 1, "SEPT_VE_DISABLE is allowed: {answers}");
}

#[test]
fn what_a_vm_needs_is_a_refusal_where_it_is_not_there() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let vm = directory.path().join("vm.toml");
    let write = |memory: &str| {
        let text = format!("schema = 1\nname = \"vm\"\nimage = \"image\"\ntee = \"none\"\nmemory = \"{memory}\"\n");
        std::fs::write(&vm, text).unwrap();
    };
    let run = || Command::new(&bench.bullion).args(["host", "check", "--for"]).arg(&vm).output().unwrap();
    write("128MiB");
    let small = run();
    write("100000GiB");
    let large = run();
    assert_eq!(small.status.code(), Some(0), "{small:?}");
    assert_eq!(large.status.code(), Some(3), "{large:?}");
    let table = String::from_utf8_lossy(&large.stdout).into_owned();
    assert!(table.contains("refusal  memory") && table.contains("remedy:"), "{table}");
}

#[test]
fn every_example_is_valid_and_what_is_planned_is_what_launch_plans() {
    let Some(bench) = bench() else { return };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let examples: Vec<_> = files.iter().filter(|path| path.to_string_lossy().ends_with(".vm.toml")).collect();
    let checked = Command::new(&bench.bullion).args(["vm", "check", "--json"]).args(&examples).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["vms"].as_array().unwrap().len(), examples.len());
    let image = bench.image();
    let vm = examples.iter().find(|path| path.ends_with("network.vm.toml")).unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(&bench.bullion);
        command.args(words).arg(vm).arg("--image").arg(image).output().unwrap()
    };
    let (plan, launch) = (run(&["vm", "plan"]), run(&["launch", "--plan"]));
    assert_eq!(plan.status.code(), Some(0), "{plan:?}");
    assert_eq!(plan.stdout, launch.stdout);
    assert!(String::from_utf8_lossy(&plan.stdout).contains("--tcp-ports 127.0.0.1/8080:80"), "{plan:?}");
}
