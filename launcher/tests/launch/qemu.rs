//! The real QEMU and a real kernel, where they are: `qemu-system-x86_64` in `BULLION_TOOLS`, a bzImage that
//! `BULLION_TEST_KERNEL` names, and for TEEs the simulator (`BULLION_TEESIM`), firmware from Debian's packages (a directory,
//! `BULLION_TEST_FIRMWARE`, with `OVMF.amdsev.fd` and `OVMF.inteltdx.ms.fd`), and a tree with QEMU that is run by its own
//! loader (`BULLION_TEST_QEMU_TREE`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use launcher::launch::Refusal;
use launcher::plan::Simulation;
use launcher::qemu::Features;
use launcher::{Ending, HostFacts, LaunchError, QemuProgram};
use spec::{Diagnostic as _, Outcome, Tee};

use crate::fixture::{COMMAND_LINE, Fixture, artifacts, write_image};

fn tools() -> Option<PathBuf> {
    let cache = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".cache"));
    let tools = std::env::var_os("BULLION_TOOLS").map(PathBuf::from);
    tools.or_else(|| Some(cache().or_else(home)?.join("bullion/tools/bin")))
}

fn tool() -> Option<QemuProgram> {
    let tools = tools()?;
    let found = QemuProgram::at(&tools.join("qemu-system-x86_64")).ok();
    if found.is_none() {
        eprintln!("skipped: there is no qemu-system-x86_64 in {}", tools.display());
    }
    found
}

fn kernel() -> Option<Vec<u8>> {
    let path = std::env::var_os("BULLION_TEST_KERNEL").map(PathBuf::from);
    let kernel = path.and_then(|path| fs::read(path).ok());
    if kernel.is_none() {
        eprintln!("skipped: BULLION_TEST_KERNEL names no kernel");
    }
    kernel
}

/// A fixture that boots `kernel` with `command_line`.
fn bootable(kernel: Vec<u8>, command_line: &'static str, more: &str) -> Fixture {
    let fixture = Fixture::new("none", more);
    let mut files: BTreeMap<_, _> = artifacts();
    files.insert("vmlinuz", kernel);
    files.insert("cmdline", command_line.as_bytes().to_vec());
    write_image(&fixture.path("image"), &files, command_line);
    fixture
}

#[test]
fn qemu_says_what_it_can_do() {
    let Some(qemu) = tool() else { return };
    let cache = tempfile::tempdir().unwrap();
    let features = Features::of(&qemu, cache.path()).unwrap();
    assert!(features.version >= launcher::qemu::features::FLOOR, "{features:?}");
    for needed in [
        "tcg-accel",
        "kvm-accel",
        "sev-snp-guest",
        "tdx-guest",
        "pc-q35-10.1-machine",
        "EPYC-v4-x86_64-cpu",
        "max-x86_64-cpu",
    ] {
        assert!(features.types.contains(needed), "{needed}");
    }
    assert!(features.sandbox);
    assert_eq!(Features::of(&qemu, cache.path()).unwrap(), features, "remembered");
}

#[test]
fn a_kernel_without_a_root_panics() {
    let (Some(qemu), Some(kernel)) = (tool(), kernel()) else { return };
    let fixture = bootable(kernel, "console=ttyS0 quiet panic=-1", "ready_timeout_s = 300\naccelerator = \"tcg\"");
    let (report, told) = fixture.launch(&qemu);
    let report = report.unwrap();
    assert!(
        matches!(&report.ending, Ending::GuestPanicked { panic } if panic.contains("VFS: Unable to mount root")),
        "{:?}",
        report.ending
    );
    assert!(fs::read(&report.console_log).unwrap().windows(12).any(|window| window == b"Kernel panic"));
    eprintln!("{told:#?}");
}

/// The pinned kind of QEMU, which is confined.
fn confined() -> Option<QemuProgram> {
    let Some(tree) = std::env::var_os("BULLION_TEST_QEMU_TREE") else {
        eprintln!("skipped: BULLION_TEST_QEMU_TREE is not set");
        return None;
    };
    Some(QemuProgram::from_tree(Path::new(&tree)).unwrap())
}

/// As another user where this is root, with a disk that only root can open.
#[test]
fn a_confined_qemu_boots_a_kernel_with_a_disk() {
    let (Some(qemu), Some(kernel)) = (confined(), kernel()) else { return };
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let more = format!(
        "ready_timeout_s = 300\n[[host.volume]]\nname = \"tmp\"\npath = \"{}\"\n\
         [[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n",
        disk.path().display()
    );
    let fixture = bootable(kernel, "console=ttyS0 quiet panic=-1", &more);
    let (report, told) = fixture.launch(&qemu);
    let report = report.unwrap();
    let panicked =
        matches!(&report.ending, Ending::GuestPanicked { panic } if panic.contains("VFS: Unable to mount root"));
    assert!(panicked, "{:?}", report.ending);
    assert!(told.iter().all(|line| !line.contains("unconfined")), "{told:#?}");
}

#[test]
fn what_is_found_out_beside_a_confined_qemu_keeps_its_guest_from_running() {
    let (Some(qemu), Some(kernel)) = (confined(), kernel()) else { return };
    let more = "ready_timeout_s = 300\naccelerator = \"tcg\"";
    let mut fixture = bootable(kernel, "console=ttyS0 quiet panic=-1", more);
    fixture.find_out_later(Err(Refusal {
        outcome: Outcome::InputMismatch,
        message: "nobody knows this processor".to_owned(),
        hint: None,
    }));
    let (report, told) = fixture.launch(&qemu);
    let error = report.unwrap_err();
    assert!(matches!(error, LaunchError::Later(_)), "{error}");
    let said = (error.outcome(), error.to_string());
    assert_eq!(said, (Outcome::InputMismatch, "nobody knows this processor".to_owned()));
    assert!(!told.iter().any(|line| line.starts_with("Started")), "{told:?}");
    assert_eq!(fs::read(fixture.path("state/vm/console.log")).unwrap_or_default(), b"");
    assert_eq!(fs::read_dir(fixture.directories().run).unwrap().count(), 0);
    // What is wrong with the image is said first.
    fs::write(fixture.path("image/rootfs"), "other").unwrap();
    let error = fixture.launch(&qemu).0.unwrap_err();
    assert!(matches!(error, LaunchError::Verify(_)), "{error}");
}

#[test]
fn a_kernel_that_kvm_cannot_run_is_run_by_tcg() {
    let (Some(qemu), Some(kernel)) = (tool(), kernel()) else { return };
    let fixture = bootable(kernel, "console=ttyS0 quiet panic=-1", "ready_timeout_s = 300");
    let (report, told) = fixture.launch(&qemu);
    eprintln!("{told:#?}");
    // Whatever this host's KVM can do, the kernel comes to its end under one accelerator or the other.
    assert!(matches!(report.unwrap().ending, Ending::GuestPanicked { .. }));
}

/// What a simulated launch of `tee` reports.
fn simulated(
    tee: &str,
    firmware: [&'static str; 2],
    kernel: Vec<u8>,
    more: &str,
) -> Option<(Fixture, launcher::simulation::SimulationReport)> {
    let variable = |key: &str| std::env::var_os(key).map(PathBuf::from);
    let needed = ["BULLION_TEST_QEMU_TREE", "BULLION_TEESIM", "BULLION_TEST_FIRMWARE"].map(variable);
    let [Some(tree), Some(preload), Some(directory)] = needed else {
        eprintln!("skipped: BULLION_TEST_QEMU_TREE, BULLION_TEESIM or BULLION_TEST_FIRMWARE is not set");
        return None;
    };
    let qemu = QemuProgram::from_tree(&tree).unwrap();
    let facts = HostFacts::probe();
    if let Err(reason) = facts.supports(Tee::None) {
        eprintln!("skipped: {reason}");
        return None;
    }
    let mut fixture = Fixture::new(tee, &format!("ready_timeout_s = 60\n{more}"));
    fixture.vm.snp = (tee == "snp" && !more.is_empty()).then(strict);
    let mut files = artifacts();
    let [name, file] = firmware;
    files.insert(name, fs::read(directory.join(file)).unwrap());
    files.insert("vmlinuz", kernel);
    write_image(&fixture.path("image"), &files, COMMAND_LINE);
    fixture.options.simulate = Some(Simulation { preload, keep_running: false, placement: None });
    let (report, told) = fixture.launch(&qemu);
    eprintln!("{told:#?}");
    match report.unwrap().ending {
        Ending::Simulated { report } => Some((fixture, report)),
        other => panic!("{other}"),
    }
}

#[test]
fn the_snp_launch_measures_what_sev_snp_measure_computes() {
    let Some(kernel) = kernel() else { return };
    let Some((fixture, report)) = simulated("snp", ["firmware-snp.fd", "OVMF.amdsev.fd"], kernel, "") else { return };
    assert_eq!(report.failed(), None);
    let host_data = fixture.vm.guest.host_data().unwrap().to_string();
    assert_eq!(report.values["host_data"], host_data.as_str());
    assert_eq!((&report.values["policy"], &report.values["vcpus"]), (&"0x30000".into(), &2.into()));
    let Some(tool) = tools().map(|tools| tools.join("sev-snp-measure")).filter(|tool| tool.exists()) else {
        eprintln!("skipped: there is no sev-snp-measure");
        return;
    };
    let image = |name: &str| fixture.path("image").join(name);
    let mut oracle = Command::new(tool);
    oracle.args(["--mode", "snp", "--vcpus", "2", "--vcpu-type", "EPYC-v4", "--append", COMMAND_LINE]);
    oracle.arg("--ovmf").arg(image("firmware-snp.fd")).arg("--kernel").arg(image("vmlinuz"));
    let output = oracle.arg("--initrd").arg(image("initrd")).output().unwrap();
    assert_eq!(report.digest(), Some(String::from_utf8(output.stdout).unwrap().trim()));
}

#[test]
fn the_tdx_launch_goes_through() {
    let Some(kernel) = kernel() else { return };
    let Some((fixture, report)) = simulated("tdx", ["firmware-tdx.fd", "OVMF.inteltdx.ms.fd"], kernel, "") else {
        return;
    };
    let mrconfigid = fixture.vm.guest.mrconfigid().unwrap().to_string();
    assert_eq!(report.values["mrconfigid"], mrconfigid.as_str());
    assert_eq!(report.values["attributes"], "0x10000000");
    assert_eq!(report.digest().map(str::len), Some(96));
}

/// A policy that differs from the default, and that a host with SMT accepts.
fn strict() -> spec::vm::SnpPolicy {
    spec::vm::SnpPolicy { single_socket: true, ..Default::default() }
}

/// Networks and a NUMA node, which QEMU must take and the TEE must not measure.
const MORE: &str = "numa_node = 0\nnic = [{ no_outbound = true }, { mac = \"52:54:00:12:34:56\" }]";

#[test]
fn what_belongs_to_the_host_changes_no_launch_digest() {
    let Some(kernel) = kernel() else { return };
    for (tee, firmware) in
        [("snp", ["firmware-snp.fd", "OVMF.amdsev.fd"]), ("tdx", ["firmware-tdx.fd", "OVMF.inteltdx.ms.fd"])]
    {
        let Some((_, bare)) = simulated(tee, firmware, kernel.clone(), "") else { return };
        let Some((_, full)) = simulated(tee, firmware, kernel.clone(), MORE) else { return };
        assert_eq!((full.failed(), full.digest()), (None, bare.digest()), "{tee}");
        if tee == "snp" {
            assert_eq!((&bare.values["policy"], &full.values["policy"]), (&"0x30000".into(), &"0x130000".into()));
        }
    }
}

#[test]
fn a_port_of_the_host_is_forwarded_while_the_guest_runs() {
    let (Some(qemu), Some(kernel)) = (tool(), kernel()) else { return };
    // Asked of the kernel: a port that is free.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nic = format!("{MORE}\n[[host.nic]]\nforward = [{{ host = {port}, guest = 80 }}]")
        .replace("nic = [{ no_outbound = true }, { mac = \"52:54:00:12:34:56\" }]\n", "");
    let command_line = "console=ttyS0 quiet panic=-1";
    let fixture = bootable(kernel, command_line, &format!("ready_timeout_s = 300\naccelerator = \"tcg\"\n{nic}"));
    let answered = std::thread::scope(|scope| {
        let launch = scope.spawn(|| fixture.launch(&qemu).0.unwrap().ending);
        let mut answered = false;
        while !launch.is_finished() {
            answered |= std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(matches!(launch.join().unwrap(), Ending::GuestPanicked { .. }));
        answered
    });
    assert!(answered, "nothing listened on port {port}");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "it listens after the guest's end");
}
