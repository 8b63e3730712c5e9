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
    let directory = std::env::temp_dir().join(format!("bullion-host-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let vm = directory.join("vm.toml");
    let write = |memory: &str| {
        let text = format!("schema = 1\nname = \"vm\"\nimage = \"image\"\ntee = \"none\"\nmemory = \"{memory}\"\n");
        std::fs::write(&vm, text).unwrap();
    };
    let run = || Command::new(&bench.bullion).args(["host", "check", "--for"]).arg(&vm).output().unwrap();
    write("128MiB");
    let small = run();
    write("100000GiB");
    let large = run();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(small.status.code(), Some(0), "{small:?}");
    assert_eq!(large.status.code(), Some(3), "{large:?}");
    let table = String::from_utf8_lossy(&large.stdout).into_owned();
    assert!(table.contains("refusal  memory") && table.contains("remedy:"), "{table}");
}
