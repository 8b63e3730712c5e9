//! The room that a plan makes for BARs, against the firmware of both TEEs under emulation: whether it places every BAR of the
//! devices, and whether what is refused has really no place. QEMU says where firmware has put them.
#![allow(clippy::print_stderr, reason = "what is skipped is said there")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fakegpu::board::product;
use fakegpu::model::config::bars;
use launcher::gpu::resizable::{BarSize, ResizableBar};
use launcher::host::PciFunction;
use launcher::qemu::bars::{address_bits, window};
use serde_json::{Value, json};
use spec::Tee;

const TIMEOUT: Duration = Duration::from_secs(240);
/// What an AmdSevX64 firmware can be told at most.
const LARGEST_MIB: u64 = 524_288;

struct Parts {
    qemu: PathBuf,
    snp: PathBuf,
    tdx: PathBuf,
}

fn parts() -> Option<Parts> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
    let parts = (|| {
        let kernel = path("BULLION_TEST_KERNEL")?;
        let image = kernel.parent()?;
        let (snp, tdx) = (image.join("firmware-snp.fd"), image.join("firmware-tdx.fd"));
        (snp.exists() && tdx.exists()).then_some(())?;
        Some(Parts { qemu: path("BULLION_TEST_QEMU_TREE")?, snp, tdx })
    })();
    if parts.is_none() {
        eprintln!(
            "skipped: room for BARs: BULLION_TEST_QEMU_TREE and BULLION_TEST_KERNEL are set by scripts/test only"
        );
    }
    parts
}

/// Firmware, what it is told, and how many address bits its CPU has.
#[derive(Clone, Copy)]
struct Firmware<'a> {
    /// SeaBIOS where none is named.
    file: Option<&'a Path>,
    window_mib: Option<u64>,
    bits: u32,
}

/// A QEMU and the servers of its devices, all of which end with the test.
struct Machine {
    children: Vec<Child>,
    answers: BufReader<std::process::ChildStdout>,
    requests: std::process::ChildStdin,
    _directory: tempfile::TempDir,
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Machine {
    /// `device` is `pci-testdev` or the name of a model.
    fn start(parts: &Parts, firmware: Firmware<'_>, device: &str, count: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let library = parts.qemu.join("usr/lib/x86_64-linux-gnu");
        let mut qemu = Command::new(parts.qemu.join("usr/lib64/ld-linux-x86-64.so.2"));
        qemu.arg("--library-path").arg(&library).arg(parts.qemu.join("usr/bin/qemu-system-x86_64"));
        qemu.env("QEMU_MODULE_DIR", library.join("qemu")).arg("-L").arg(parts.qemu.join("usr/share/qemu"));
        qemu.args(["-L", parts.qemu.join("usr/share/seabios").to_str().unwrap(), "-L"])
            .arg(parts.qemu.join("usr/share/qemu"));
        qemu.args(["-nodefaults", "-display", "none", "-accel", "tcg,thread=multi", "-cpu"]);
        qemu.arg(format!("max,phys-bits={}", firmware.bits));
        qemu.args(["-machine", "pc-q35-10.1,memory-backend=ram,smm=off", "-m", "1G", "-qmp", "stdio"]);
        qemu.args(["-object", "memory-backend-memfd,id=ram,size=1G,share=on"]);
        if let Some(file) = firmware.file {
            qemu.arg("-bios").arg(file);
        }
        if let Some(mib) = firmware.window_mib {
            qemu.args(["-fw_cfg", &format!("name=opt/ovmf/X-PciMmio64Mb,string={mib}")]);
        }
        let mut children = Vec::new();
        for index in 0..count {
            let socket = directory.path().join(format!("{index}.sock"));
            let [_, port, _, fake] = fakegpu::server::qemu_arguments(index, &socket);
            qemu.args(["-device", &port]);
            if device == "pci-testdev" {
                qemu.args(["-device", &format!("pci-testdev,membar=128G,bus=gpu-port{index}")]);
                continue;
            }
            let mut server = Command::new(env!("CARGO_BIN_EXE_fakegpu"));
            server.arg("--model").args(device.split(' ')).arg("--socket").arg(&socket).stderr(Stdio::null());
            children.push(server.spawn().unwrap());
            let deadline = Instant::now() + TIMEOUT;
            while !socket.exists() {
                assert!(Instant::now() < deadline, "the model does not listen");
                std::thread::sleep(Duration::from_millis(5));
            }
            qemu.args(["-device", &fake]);
        }
        let mut qemu = qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (requests, answers) = (qemu.stdin.take().unwrap(), BufReader::new(qemu.stdout.take().unwrap()));
        children.push(qemu);
        let mut machine = Self { children, answers, requests, _directory: directory };
        machine.read();
        machine.ask("qmp_capabilities");
        machine
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.answers.read_line(&mut line).unwrap() > 0, "QEMU has ended");
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, command: &str) -> Value {
        writeln!(self.requests, "{}", json!({ "execute": command })).unwrap();
        loop {
            let answer = self.read();
            if let Some(value) = answer.get("return") {
                return value.clone();
            }
        }
    }

    /// How many of the devices have a place for all their BARs, once firmware has placed what it can.
    fn placed(&mut self) -> usize {
        let deadline = Instant::now() + TIMEOUT;
        let (mut last, mut same) = (None, 0);
        while same < 4 {
            assert!(Instant::now() < deadline, "firmware places nothing");
            std::thread::sleep(Duration::from_millis(500));
            let seen = devices(&self.ask("query-pci"));
            let some = seen.iter().any(|bars| is_placed(bars));
            same = if some && Some(&seen) == last.as_ref() { same + 1 } else { 0 };
            last = Some(seen);
        }
        last.unwrap_or_default().iter().filter(|bars| is_placed(bars)).count()
    }
}

/// The addresses of the memory BARs of each device behind a port.
fn devices(buses: &Value) -> Vec<Vec<i64>> {
    let ports = buses[0]["devices"].as_array().unwrap().iter().filter_map(|device| device["pci_bridge"].as_object());
    let behind = ports.flat_map(|bridge| bridge.get("devices").and_then(Value::as_array).into_iter().flatten());
    let addresses = |device: &Value| {
        let regions = device["regions"].as_array().unwrap().iter().filter(|region| region["type"] == "memory");
        regions.map(|region| region["address"].as_i64().unwrap_or(-1)).collect()
    };
    behind.map(addresses).collect()
}

fn is_placed(bars: &[i64]) -> bool {
    !bars.is_empty() && bars.iter().all(|address| *address > 0)
}

/// Functions as sysfs would show them. Of those that are served with another memory BAR the kernel offers that size; they have their true
/// one until a launch.
fn functions(device: &str, count: usize) -> Vec<PciFunction> {
    let (name, resized) = device.split_once(" --memory-bar ").map_or((device, None), |(name, mib)| (name, Some(mib)));
    let Some(model) = product(name, 0) else {
        return vec![PciFunction { prefetchable_bars: vec![128 << 30], ..PciFunction::default() }; count];
    };
    let sizes: Vec<_> = bars(model.chip(), model.device_id()).iter().map(|(_, size)| *size).collect();
    let offered = resized.map(|mib| mib.parse::<u64>().unwrap());
    let resizable = |offered| ResizableBar { bar: 2, size: BarSize::of(sizes[1]).unwrap(), offered };
    let function = PciFunction {
        address: "0000:01:00.0".to_owned(),
        id: format!("10de:{:04x}", model.device_id()),
        resizable_bars: offered.map(resizable).into_iter().collect(),
        prefetchable_bars: sizes.clone(),
        ..PciFunction::default()
    };
    vec![function; count]
}

#[test]
fn every_bar_of_what_is_planned_has_a_place_and_what_is_refused_has_none() {
    let Some(parts) = parts() else { return };
    // Address bits of the host, what is passed, how many, and whether they have a place.
    let cases = [
        (Tee::Snp, 46, "pci-testdev", 1, true),
        (Tee::Snp, 46, "pci-testdev", 2, true),
        (Tee::Snp, 46, "pci-testdev", 3, true),
        (Tee::Snp, 46, "pci-testdev", 4, false),
        (Tee::Snp, 46, "pci-testdev", 8, false),
        (Tee::Snp, 46, "h100", 1, true),
        (Tee::Snp, 46, "h100", 2, true),
        (Tee::Snp, 46, "h100", 3, false),
        (Tee::Snp, 46, "h200", 1, true),
        (Tee::Snp, 46, "b200", 1, true),
        (Tee::Snp, 46, "b200", 2, false),
        // As the kernel has resized them.
        (Tee::Snp, 46, "b200 --memory-bar 8192", 2, true),
        (Tee::Snp, 46, "b200 --memory-bar 8192", 8, true),
        (Tee::Tdx, 46, "pci-testdev", 1, true),
        (Tee::Tdx, 46, "pci-testdev", 2, true),
        (Tee::Tdx, 46, "pci-testdev", 4, true),
        (Tee::Tdx, 52, "pci-testdev", 8, true),
        (Tee::Tdx, 46, "h100", 8, true),
        (Tee::Tdx, 46, "h200", 8, true),
        (Tee::Tdx, 46, "b200", 8, true),
    ];
    for (tee, bits, device, count, fits) in cases {
        let functions = functions(device, count);
        let window = window(tee, bits, &functions.iter().collect::<Vec<_>>());
        assert_eq!(window.is_ok(), fits, "{tee}, {count} {device}: {window:?}");
        let file = Some(if tee == Tee::Snp { parts.snp.as_path() } else { parts.tdx.as_path() });
        let told = window.unwrap_or(Some(LARGEST_MIB).filter(|_| tee == Tee::Snp));
        let placed = Machine::start(&parts, Firmware { file, window_mib: told, bits }, device, count).placed();
        assert_eq!(placed == count, fits, "{tee}, {bits} bits, {count} {device}, told {told:?}: {placed} placed");
    }
}

#[test]
fn a_guest_without_a_tee_has_the_address_bits_that_its_devices_need() {
    let Some(parts) = parts() else { return };
    for (device, count, expected) in [("h100", 1, None), ("h100", 8, Some(42)), ("b200", 8, Some(43))] {
        let functions = functions(device, count);
        let functions: Vec<_> = functions.iter().collect();
        assert_eq!(address_bits(&functions), expected, "{count} {device}");
        let bits = expected.unwrap_or(40);
        assert_eq!(window(Tee::None, bits, &functions), Ok(None));
        let placed =
            |bits| Machine::start(&parts, Firmware { file: None, window_mib: None, bits }, device, count).placed();
        assert_eq!(placed(bits), count, "{count} {device} with {bits} bits");
        if expected.is_some() {
            assert!(window(Tee::None, 40, &functions).is_err());
        }
    }
}
