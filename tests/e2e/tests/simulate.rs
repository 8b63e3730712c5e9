//! The unmodified QEMU, with the argument list that `launch` uses, goes through the whole launch of a TEE against the
//! simulator; what it submitted must hash to the prediction.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::fs::{DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::vectors::{sha, unhex, unpacked};
use e2e::{Bench, bench, documented, run, skipped};

/// Debian's IntelTdxX64 build with keys.
const ENROLLED: &str = "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz";

fn simulate(bench: &Bench, tee: &str, vcpus: u32) -> Option<serde_json::Value> {
    let scratch = tempfile::tempdir().unwrap();
    let vm = can_simulate(bench)
        .then(|| bench.vm(scratch.path(), &format!("t-sim-{tee}-{vcpus}"), tee, vcpus, bench.image()))?;
    let run = bench.launch(&vm, &["--simulate", "--json"]).expect(0, &["SIMULATED"]);
    let answer = run.json();
    documented("launch --simulate", &answer);
    // What is said of the fields beside the measurements is what QEMU gave to the simulator.
    let measured = bench.run(["measure", vm.to_str().unwrap(), "--json"]).expect(0, &[]).json();
    documented("measure IMAGE_OR_VM", &measured);
    for (key, told) in measured["beside"].as_object().unwrap() {
        let given = &answer["measured"][key];
        let told = told.as_u64().map_or_else(|| told.as_str().unwrap().to_owned(), |bits| format!("{bits:#x}"));
        assert_eq!(given.as_str().unwrap(), told, "{key}");
    }
    Some(answer)
}

fn can_simulate(bench: &Bench) -> bool {
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() {
        skipped("simulated launch: there is no /dev/kvm that this user may open");
        return false;
    }
    if bench.unpublished {
        skipped("simulated launch: the firmware of an UNPUBLISHED lock may not be pinned");
        return false;
    }
    true
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

/// What the TD's own QEMU gives to its first vCPU by fw_cfg, with the devices where firmware places them, is what the oracle's
/// QEMU gave without TDX: the tables byte by byte, and so RTMR0; the kernel, command line and initrd, and so RTMR1 and RTMR2.
#[test]
fn what_a_td_reads_by_fw_cfg_leads_to_the_predicted_registers() {
    let Some(bench) = bench() else { return };
    if !can_simulate(&bench) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let plain = std::fs::read_to_string(bench.vm(scratch.path(), "t-inside", "tdx", 4, bench.image())).unwrap();
    let disk = scratch.path().join("disk");
    File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    let volume = format!(
        "[[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n\
         [[host.volume]]\nname = \"tmp\"\npath = {disk:?}\n"
    );
    let mut seen = Vec::new();
    for more in ["", "[[host.nic]]\n[[host.nic]]\nno_outbound = true\n", &volume] {
        let vm = scratch.path().join("inside.vm.toml");
        std::fs::write(&vm, format!("{plain}{more}")).unwrap();
        let answer = bench.launch(&vm, &["--simulate", "--json"]).expect(0, &["SIMULATED"]).json();
        documented("launch --simulate", &answer);
        for register in ["rtmr0", "rtmr1", "rtmr2"] {
            assert_eq!(answer["from_fw_cfg"][register].as_str().map(str::len), Some(96), "{answer}");
            assert_eq!(answer["from_fw_cfg"][register], answer["expected"][register], "{more}: {register}");
        }
        let measured = bench.run(["measure", vm.to_str().unwrap(), "--json"]).expect(0, &[]).json();
        assert_eq!(measured["tdx"][0]["platform"]["rtmr0"][0]["rtmr0"], answer["from_fw_cfg"]["rtmr0"]);
        // The digests of the files are the simulator's own.
        let files = answer["measured"]["fw_cfg"].as_array().unwrap().clone();
        let of = |name: &str| files.iter().find(|file| file["name"] == name).unwrap()["sha384"].clone();
        for (name, artifact) in [("etc/boot/kernel", "vmlinuz"), ("initrd_data", "initrd")] {
            let judged = sha(384, &std::fs::read(bench.image().join(artifact)).unwrap());
            assert_eq!(unhex(of(name).as_str().unwrap()), judged, "{name}");
        }
        seen.push(of("etc/acpi/tables"));
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2], "each has tables of its own: {seen:?}");
}

/// A watchdog and pvpanic go through both launches. The SNP launch digest is that of a guest without them; what a TD reads tells of them as predicted.
#[test]
fn a_watchdog_and_pvpanic_are_launched_as_predicted() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.dev().filter(|_| can_simulate(&bench)) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let launch = |tee: &str, more: &str| {
        let vm = bench.vm(scratch.path(), "t-signs", tee, 2, image);
        let plain = std::fs::read_to_string(&vm).unwrap();
        std::fs::write(&vm, plain + more).unwrap();
        bench.launch(&vm, &["--simulate", "--json"]).expect(0, &["SIMULATED"]).json()
    };
    let signs = "pvpanic = true\n[guest.watchdog]\ntimeout_s = 30\n";
    let (bare, with) = (launch("snp", ""), launch("snp", signs));
    assert_eq!(with["measured"]["launch_digest"], with["expected"]["launch_digest"]);
    assert_eq!(with["measured"]["launch_digest"], bare["measured"]["launch_digest"], "nothing of a device is in it");
    assert_ne!(with["measured"]["host_data"], bare["measured"]["host_data"], "the configuration names them");
    let (bare, with) = (launch("tdx", ""), launch("tdx", signs));
    for register in ["rtmr0", "rtmr1", "rtmr2"] {
        assert_eq!(with["from_fw_cfg"][register].as_str().map(str::len), Some(96), "{with}");
        assert_eq!(with["from_fw_cfg"][register], with["expected"][register], "{register}");
    }
    assert_ne!(with["from_fw_cfg"]["rtmr0"], bare["from_fw_cfg"]["rtmr0"]);
    assert_eq!(with["measured"]["mrtd"], bare["measured"]["mrtd"]);
}

/// Firmware with enrolled keys does not start a kernel that nobody in its db signed: a launch says so in the words of `measure`, predicts
/// no register of it, and compares MRTD all the same.
#[test]
fn a_launch_with_enrolled_firmware_is_predicted_as_measure_predicts_it() {
    let Some(bench) = bench() else { return };
    let Some(firmware) = unpacked(ENROLLED).filter(|_| can_simulate(&bench)) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.image_with_firmware(scratch.path(), "firmware-tdx.fd", &firmware);
    let vm = bench.vm(scratch.path(), "t-enrolled", "tdx", 1, &image);
    let path = |name: &str| image.join(name).display().to_string();
    let words =
        ["measure", "tdx", "--firmware", &path("firmware-tdx.fd"), "--kernel", &path("vmlinuz"), "--vcpus", "1"];
    let measured = bench.run(words.iter().chain(&["--memory", "512MiB", "--json"])).expect(6, &[]).json();
    let reason = measured["refused"].as_str().unwrap().rsplit_once(": ").unwrap().1;
    let answer = bench.launch(&vm, &["--simulate", "--json"]).expect(0, &["keys enrolled", reason]).json();
    documented("launch --simulate", &answer);
    assert_eq!(answer["measured"]["mrtd"], answer["expected"]["mrtd"]);
    assert!(answer["expected"]["rtmr0"].is_null() && answer["expected"]["rtmr1"].is_null(), "{answer}");
    assert!(answer["expected"]["rtmrs_not_predicted"].as_str().unwrap().contains(reason), "{answer}");
}

/// The same of a TD that firmware starts from the image's disk: its tables are those of a machine without a kernel, and its
/// RTMR0 is what `measure` says of the disk, of the VM and of the image.
#[test]
fn what_a_td_from_a_disk_reads_by_fw_cfg_leads_to_the_predicted_rtmr0() {
    let Some(bench) = bench() else { return };
    if !can_simulate(&bench) {
        return;
    }
    let Some(recipe) = std::env::var_os("BULLION_TEST_DISK_RECIPE") else {
        return skipped("BULLION_TEST_DISK_RECIPE is set by scripts/test only");
    };
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    bench.run(["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), image.as_os_str()]).expect(0, &[]);
    let plain = std::fs::read_to_string(bench.vm(scratch.path(), "t-disk", "tdx", 2, &image)).unwrap();
    let vm = scratch.path().join("disk.vm.toml");
    let write = |more: &str| std::fs::write(&vm, plain.replace("[guest]", "boot = \"disk\"\n[guest]") + more).unwrap();
    let mut seen = Vec::new();
    for more in ["", "[[host.nic]]\n"] {
        write(more);
        let answer = bench.launch(&vm, &["--simulate", "--json"]).expect(0, &[]).json();
        assert_eq!(answer["measured"]["mrtd"], answer["expected"]["mrtd"]);
        assert_eq!(answer["from_fw_cfg"]["rtmr0"].as_str().map(str::len), Some(96), "{answer}");
        assert_eq!(answer["from_fw_cfg"]["rtmr0"], answer["expected"]["rtmr0"]);
        let files = answer["measured"]["fw_cfg"].as_array().unwrap().clone();
        let of = |name: &str| files.iter().find(|file| file["name"] == name).map(|file| file["sha384"].clone());
        let order = sha(384, b"/pci@i0cf8/scsi@2/disk@0,0\0");
        assert_eq!(unhex(of("bootorder").unwrap().as_str().unwrap()), order, "the disk is what firmware starts");
        assert_eq!(of("etc/boot/kernel"), None);
        let measured = bench.run(["measure", vm.to_str().unwrap(), "--json"]).expect(0, &[]).json();
        let disk = &measured["tdx"][0]["disk"];
        assert_eq!(disk["platform"]["rtmr0"][0]["rtmr0"], answer["from_fw_cfg"]["rtmr0"]);
        assert_eq!(disk["rtmr1_one_of"], answer["expected"]["rtmr1_one_of"]);
        assert_eq!(disk["rtmr2"], answer["expected"]["rtmr2"]);
        assert_ne!(disk["platform"]["rtmr0"], measured["tdx"][0]["platform"]["rtmr0"], "a kernel has other events");
        seen.push(answer["from_fw_cfg"]["rtmr0"].clone());
    }
    assert_ne!(seen[0], seen[1]);
    let path = |name: &str| image.join(name).display().to_string();
    let words = ["measure", "tdx", "--json", "--firmware", &path("firmware-tdx.fd"), "--disk", &path("disk.raw")];
    let machine = ["--memory", "512MiB", "--vcpus", "2"];
    let of_files = bench.run(words.iter().chain(&machine)).expect(0, &[]).json();
    assert_eq!(of_files["rtmr0"], seen[0]);
    write("");
    let text = std::fs::read_to_string(&vm).unwrap().replace("\"tdx\"", "\"snp\"");
    std::fs::write(&vm, text).unwrap();
    bench.launch(&vm, &["--plan"]).expect(2, &["a SEV-SNP launch digest covers the kernel"]);
}

/// A prediction from other tables than those that QEMU gives is found out.
#[test]
fn a_td_that_reads_other_tables_is_not_as_predicted() {
    let Some(bench) = bench() else { return };
    if !can_simulate(&bench) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-other", "tdx", 1, bench.image());
    // A cache whose answers are our own.
    let cache = scratch.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    // The QEMU tree lies in a cache, and is used there.
    let Some(tree) = std::env::var_os("BULLION_TEST_QEMU_TREE").map(std::path::PathBuf::from) else {
        return skipped("BULLION_TEST_QEMU_TREE is set by scripts/test only");
    };
    let shared = tree.ancestors().nth(3).unwrap();
    for name in ["blobs", "trees"] {
        std::os::unix::fs::symlink(shared.join(name), cache.join(name)).unwrap();
    }
    let words = ["--cache-dir", cache.to_str().unwrap(), "launch", vm.to_str().unwrap(), "--simulate", "--json"];
    bench.run(words).expect(0, &[]);
    let mut answers = std::fs::read_dir(cache.join("verdicts")).unwrap().map(|entry| entry.unwrap().path());
    let path = answers.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("fw-cfg-")).unwrap();
    let mut answer: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let tables = answer["files"]["etc/acpi/tables"]["hex"].as_str().unwrap().replacen("46414353", "46414354", 1);
    answer["files"]["etc/acpi/tables"]["hex"] = tables.into();
    std::fs::write(&path, answer.to_string()).unwrap();
    let found = bench.run(words).expect(6, &[]).json();
    assert_ne!(found["from_fw_cfg"]["rtmr0"], found["expected"]["rtmr0"]);
    for same in ["rtmr1", "rtmr2"] {
        assert_eq!(found["from_fw_cfg"][same], found["expected"][same]);
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

/// Somebody listens where the quote generation service would, in a mount namespace of this test: the plan says so, the stock QEMU
/// takes the argument, and nothing that is measured moves.
#[test]
fn a_quote_generation_service_is_wired_and_moves_nothing() {
    let Some(bench) = bench() else { return };
    if !can_simulate(&bench) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-quotes", "tdx", 1, bench.image());
    let service = scratch.path().join("service");
    std::fs::create_dir(&service).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(service.join("qgs.socket")).unwrap();
    let within = |words: &[&str]| {
        let script =
            "mount -t tmpfs none /run && mkdir /run/tdx-qgs && mount --bind \"$0\" /run/tdx-qgs && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&service).arg(&bench.bullion).args(words);
        run(bench.at_home(&mut command))
    };
    if within(&["--version"]).code != 0 {
        return skipped("a mount namespace cannot be made here");
    }
    let vm = vm.to_str().unwrap();
    let plan = within(&["vm", "plan", vm, "--simulate", "--json"]).expect(0, &[]).json();
    let has = |list: &serde_json::Value, text: &str| {
        list.as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains(text))
    };
    assert!(has(&plan["facts"], "quotes by /var/run/tdx-qgs/qgs.socket"), "{plan}");
    let argument = r#""quote-generation-socket":{"path":"/var/run/tdx-qgs/qgs.socket","type":"unix"}"#;
    assert!(has(&plan["argv"], argument), "{plan}");
    let quoted = within(&["launch", vm, "--simulate", "--json"]).expect(0, &["SIMULATED"]).json();
    let without = bench.launch(vm.as_ref(), &["--simulate", "--json"]).expect(0, &["SIMULATED"]).json();
    assert_eq!(
        (&quoted["measured"]["mrtd"], &quoted["from_fw_cfg"]),
        (&without["measured"]["mrtd"], &without["from_fw_cfg"])
    );
    assert_eq!(quoted["measured"]["mrtd"], quoted["expected"]["mrtd"]);
}

/// A root file system that takes much longer to hash than QEMU takes to start. Whether the secure processor was told that the guest is
/// complete, after which its vCPUs run, stands in the simulator's report.
#[test]
fn the_guest_of_a_changed_image_never_runs_though_its_qemu_is_there() {
    const LARGE: u64 = 512 << 20;
    let Some(bench) = bench().filter(can_simulate) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let rootfs = File::options().write(true).open(image.join("rootfs")).unwrap();
    rootfs.set_len(LARGE).unwrap();
    let judged = run(Command::new("sha256sum").arg(image.join("rootfs"))).expect(0, &[]).stdout;
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap();
    manifest["artifacts"]["rootfs"] = serde_json::json!({ "size": LARGE, "sha256": &judged[..64] });
    std::fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
    let vm = bench.vm(scratch.path(), "t-changed", "snp", 1, &image);
    let [running, kept] = ["run", "state"].map(|name| scratch.path().join(name));
    [&running, &kept].into_iter().for_each(|path| DirBuilder::new().mode(0o700).create(path).unwrap());
    let launch = || {
        let mut command = bench.launching(&vm, &["--simulate"]);
        command.env("BULLION_RUN_DIR", &running).env("BULLION_STATE_DIR", &kept);
        command
    };
    let report = kept.join("t-changed/simulation.json");
    run(&mut launch()).expect(0, &["QEMU started"]);
    assert!(report.exists(), "of what the manifest says it goes to its end");

    rootfs.write_all_at(b"x", LARGE - 1).unwrap();
    let mut launched = launch().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut qemu = None;
    while launched.try_wait().unwrap().is_none() {
        let record = std::fs::read(running.join("t-changed/state.json")).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
        qemu = qemu.or(record["qemu_pid"].as_u64());
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = launched.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("rootfs does not match the manifest") && !said.contains("QEMU started"), "{said}");
    assert!(!report.exists(), "the launch was finished");
    let qemu = qemu.expect("QEMU was there while the files were hashed");
    let lives = || std::fs::read_to_string(format!("/proc/{qemu}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    let deadline = Instant::now() + Duration::from_secs(5);
    while lives() {
        assert!(Instant::now() < deadline, "QEMU outlives the refusal");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A manifest can name any size, and such a file takes nothing on the disk.
#[test]
fn a_large_file_that_only_its_owner_can_read_is_not_copied_into_memory() {
    let Some(bench) = bench().filter(can_simulate) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let rootfs = File::options().write(true).open(image.join("rootfs")).unwrap();
    rootfs.set_len(1 << 40).unwrap();
    rootfs.set_permissions(Permissions::from_mode(0o600)).unwrap();
    let vm = bench.vm(scratch.path(), "t-large", "snp", 1, &image);
    let words = ["--simulate", "--dangerously-skip-artifact-verification"];
    let said =
        ["rootfs has 1099511627776 bytes and only its owner can read it", "at most 4294967296 bytes", "chmod o+r"];
    let refused = bench.launch(&vm, &words).expect(3, &said);
    assert!(!refused.stderr.contains("QEMU started"), "{}", refused.stderr);
}

/// QEMU hashes the initrd that it is given, and the prediction is the manifest's: whenever that is made, and however QEMU runs, they are compared.
#[test]
fn what_is_launched_otherwise_than_predicted_is_told_however_qemu_runs() {
    let Some(bench) = bench().filter(can_simulate) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let mut initrd = std::fs::read(image.join("initrd")).unwrap();
    initrd.push(0);
    std::fs::write(image.join("initrd"), initrd).unwrap();
    let vm = bench.vm(scratch.path(), "t-otherwise", "snp", 1, &image);
    for more in [&[][..], &["--dangerously-unconfined"]] {
        let words = [&["--simulate", "--dangerously-skip-artifact-verification"], more].concat();
        bench.launch(&vm, &words).expect(6, &["MEASUREMENT is ", ", expected "]);
    }
}
