//! The unmodified QEMU, with the argument list that `launch` uses, goes through the whole launch of a TEE against the
//! simulator; what it submitted must hash to the prediction.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use e2e::{Bench, bench, skipped};

fn simulate(bench: &Bench, tee: &str, vcpus: u32) -> Option<serde_json::Value> {
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        skipped("simulated launch: there is no /dev/kvm that this user may open");
        return None;
    }
    if bench.unpublished {
        skipped("simulated launch: the firmware of an UNPUBLISHED lock may not be pinned");
        return None;
    }
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), &format!("t-sim-{tee}-{vcpus}"), tee, vcpus, bench.image());
    let run = bench.launch(&vm, &["--simulate", "--json"]).expect(0, &["SIMULATED"]);
    Some(run.json())
}

#[test]
fn the_snp_launch_digest_equals_the_prediction() {
    let Some(bench) = bench() else { return };
    for vcpus in [1, 2, 4] {
        let Some(answer) = simulate(&bench, "snp", vcpus) else { return };
        assert_eq!(answer["simulated"], true);
        assert_eq!(answer["measured"]["launch_digest"], answer["expected"]["launch_digest"], "{vcpus}: {answer}");
        let words =
            ["measure", bench.image().to_str().unwrap(), "--tee", "snp", "--vcpus", &vcpus.to_string(), "--json"];
        let predicted = bench.run(words).expect(0, &[]).json();
        assert_eq!(answer["measured"]["launch_digest"], predicted["snp"][0]["launch_digest"]);
        let config =
            spec::guest_config::GuestConfig { hostname: Some(format!("t-sim-snp-{vcpus}")), ..Default::default() };
        assert_eq!(answer["measured"]["host_data"], config.host_data().unwrap().to_string());
    }
}

#[test]
fn mrtd_equals_the_prediction() {
    let Some(bench) = bench() else { return };
    for vcpus in [1, 4] {
        let Some(answer) = simulate(&bench, "tdx", vcpus) else { return };
        assert_eq!(answer["measured"]["mrtd"], answer["expected"]["mrtd"], "{vcpus}: {answer}");
        let config =
            spec::guest_config::GuestConfig { hostname: Some(format!("t-sim-tdx-{vcpus}")), ..Default::default() };
        assert_eq!(answer["measured"]["mrconfigid"], config.mrconfigid().unwrap().to_string());
    }
}

#[test]
fn a_kernel_changed_behind_the_check_is_another_digest() {
    let Some(bench) = bench() else { return };
    let words = ["measure", bench.image().to_str().unwrap(), "--tee", "snp", "--vcpus", "1", "--json"];
    let honest = bench.run(words).expect(0, &[]).json();
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let path = image.join("initrd");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.push(0);
    std::fs::write(&path, &bytes).unwrap();
    // Measuring checks the artifacts first: a digest of something else than the manifest names would mislead.
    bench.run(["measure", image.to_str().unwrap(), "--tee", "snp"]).expect(4, &["initrd"]);
    let manifest = image.join("manifest.json");
    let old = std::fs::read_to_string(&manifest).unwrap();
    let value: serde_json::Value = serde_json::from_str(&old).unwrap();
    let initrd = &value["artifacts"]["initrd"];
    let new = old
        .replace(initrd["sha256"].as_str().unwrap(), &spec::Sha256Digest::of(&bytes).to_string())
        .replace(&format!("\"size\":{}", initrd["size"]), &format!("\"size\":{}", bytes.len()));
    std::fs::write(&manifest, new).unwrap();
    let other =
        bench.run(["measure", image.to_str().unwrap(), "--tee", "snp", "--vcpus", "1", "--json"]).expect(0, &[]).json();
    assert_ne!(honest["snp"][0]["launch_digest"], other["snp"][0]["launch_digest"]);
}

#[test]
fn without_the_hardware_and_without_the_simulator_the_host_cannot() {
    let Some(bench) = bench() else { return };
    if std::path::Path::new("/dev/sev").exists() {
        return skipped("this host has an AMD secure processor");
    }
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-no-tee", "snp", 1, bench.image());
    bench.launch(&vm, &["--dangerously-allow-unsigned"]).expect(3, &["hint:", "--simulate"]);
}

#[test]
fn every_line_of_a_simulated_launch_says_so() {
    let Some(bench) = bench() else { return };
    if simulate(&bench, "snp", 1).is_none() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-sim-lines", "snp", 1, bench.image());
    let run = bench.launch(&vm, &["--simulate"]).expect(0, &[]);
    let lines: Vec<&str> = run.stdout.lines().chain(run.stderr.lines()).collect();
    assert!(lines.len() >= 3, "{run:?}");
    for line in lines {
        assert!(line.contains("SIMULATED"), "\"{line}\" does not say SIMULATED: {run:?}");
    }
}
