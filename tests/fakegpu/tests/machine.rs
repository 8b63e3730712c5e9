//! The program itself in a machine with modelled devices: sysfs, mapped registers and resets of a stock kernel.
#![allow(clippy::print_stderr, reason = "what is skipped is said there")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::cpio::{Entry, write_newc};

/// TCG on a busy machine: a boot takes 4 s on an idle one.
const TIMEOUT: Duration = Duration::from_secs(240);

struct Parts {
    bullion: PathBuf,
    qemu: PathBuf,
    kernel: PathBuf,
}

impl Parts {
    fn find() -> Option<Self> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
        let parts = (|| {
            let (bullion, qemu) = (path("BULLION_BIN")?, path("BULLION_TEST_QEMU_TREE")?);
            Some(Self { bullion, qemu, kernel: path("BULLION_TEST_KERNEL")? })
        })();
        if parts.is_none() {
            eprintln!(
                "skipped: modelled GPUs in a machine: BULLION_BIN, BULLION_TEST_QEMU_TREE and BULLION_TEST_KERNEL are set by scripts/test only"
            );
        }
        parts
    }
}

/// Children that end with the test.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The shared libraries of a program, and its loader, as this host has them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    assert!(listed.status.success(), "ldd {}", program.display());
    let text = String::from_utf8(listed.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// An initial RAM disk with the program, the libraries it needs, and what it is to do.
fn initrd(bullion: &Path, commands: &[&str]) -> Vec<u8> {
    let init = PathBuf::from(env!("CARGO_BIN_EXE_lab-init"));
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for program in [&init, &bullion.to_owned()] {
        for library in libraries(program) {
            files.insert(library.to_str().unwrap()[1..].to_owned(), std::fs::read(library).unwrap());
        }
    }
    files.insert("init".to_owned(), std::fs::read(&init).unwrap());
    files.insert("bullion".to_owned(), std::fs::read(bullion).unwrap());
    files.insert("commands".to_owned(), commands.join("\n").into_bytes());
    let mut directories: Vec<String> = Vec::new();
    for path in files.keys() {
        for (at, _) in path.match_indices('/') {
            directories.push(path[..at].to_owned());
        }
    }
    directories.extend(["dev", "proc", "sys"].map(str::to_owned));
    directories.sort();
    directories.dedup();
    let directory = |path| Entry { path, mode: 0o040_755, device: (0, 0), content: &[] };
    let console = Entry { path: "dev/console", mode: 0o020_600, device: (5, 1), content: &[] };
    let file = |(path, content): (&'_ String, &'_ Vec<u8>)| (path.clone(), content.clone());
    let files: Vec<_> = files.iter().map(file).collect();
    let entries = directories
        .iter()
        .map(|path| directory(path.as_str()))
        .chain([console])
        .chain(files.iter().map(|(path, content)| Entry { path, mode: 0o100_755, device: (0, 0), content }));
    let mut out = Vec::new();
    write_newc(&mut out, entries).unwrap();
    out
}

/// What the machine printed, and what the devices did.
struct Ran {
    console: String,
    devices: Vec<String>,
}

impl Ran {
    /// The output of a command and its exit code.
    fn of(&self, command: &str) -> (String, i32) {
        let begin = format!("[begin {command}]");
        let rest = self.console.split_once(&begin).unwrap_or_else(|| panic!("no {begin} in {}", self.console)).1;
        let (text, rest) = rest.split_once("[end ").unwrap_or_else(|| panic!("no end: {}", self.console));
        (text.replace('\r', ""), rest.split_once(']').unwrap().0.parse().unwrap())
    }
}

/// Runs commands in a machine that has the devices, each behind a port of its own.
fn run(parts: &Parts, devices: &[&[&str]], commands: &[&str]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: String| directory.path().join(name);
    let mut running = Running(Vec::new());
    let library = parts.qemu.join("usr/lib/x86_64-linux-gnu");
    let mut qemu = Command::new(parts.qemu.join("usr/lib64/ld-linux-x86-64.so.2"));
    qemu.arg("--library-path").arg(&library).arg(parts.qemu.join("usr/bin/qemu-system-x86_64"));
    qemu.env("QEMU_MODULE_DIR", library.join("qemu")).arg("-L").arg(parts.qemu.join("usr/share/qemu"));
    qemu.args(["-L", parts.qemu.join("usr/share/seabios").to_str().unwrap()]);
    for (index, words) in devices.iter().enumerate() {
        let socket = at(format!("gpu{index}.sock"));
        let log = std::fs::File::create(at(format!("gpu{index}.log"))).unwrap();
        let mut server = Command::new(env!("CARGO_BIN_EXE_fakegpu"));
        server.arg(words[0]).arg(&socket).args(&words[1..]).stderr(log);
        running.0.push(server.spawn().unwrap());
        let deadline = Instant::now() + TIMEOUT;
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the model does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        qemu.args(["-device", &format!("pcie-root-port,id=rp{index},bus=pcie.0,chassis={index},slot={index}")]);
        let path = socket.to_str().unwrap();
        let device = serde_json::json!({
            "driver": "vfio-user-pci", "bus": format!("rp{index}"), "socket": { "type": "unix", "path": path },
        });
        qemu.args(["-device", &device.to_string()]);
    }
    std::fs::write(at("initrd".to_owned()), initrd(&parts.bullion, commands)).unwrap();
    qemu.args(["-nodefaults", "-nographic", "-no-reboot", "-accel", "tcg", "-cpu", "max", "-m", "768"]);
    qemu.args(["-object", "memory-backend-memfd,id=ram,size=768M,share=on", "-machine", "q35,memory-backend=ram"]);
    qemu.arg("-serial").arg(format!("file:{}", at("console".to_owned()).display()));
    qemu.arg("-kernel").arg(&parts.kernel).arg("-initrd").arg(at("initrd".to_owned()));
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]).stdin(Stdio::null());
    let log = std::fs::File::create(at("qemu.log".to_owned())).unwrap();
    running.0.push(qemu.stderr(log).spawn().unwrap());
    let deadline = Instant::now() + TIMEOUT;
    let read =
        |name: &str| String::from_utf8_lossy(&std::fs::read(at(name.to_owned())).unwrap_or_default()).into_owned();
    while running.0.last_mut().unwrap().try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the machine did not end: {} {}", read("console"), read("qemu.log"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let devices = (0..devices.len()).map(|index| read(&format!("gpu{index}.log"))).collect();
    Ran { console: format!("{}\n{}", read("console"), read("qemu.log")), devices }
}

#[test]
fn the_program_lists_and_switches_devices_of_a_machine() {
    let Some(parts) = Parts::find() else { return };
    let list = "/bullion gpu list";
    let plan = "/bullion gpu set-mode on --all --plan";
    let set = "/bullion gpu set-mode on --all";
    let again = "/bullion --quiet gpu set-mode on --all";
    let json = "/bullion --json gpu list";
    let ran = run(&parts, &[&["h100"], &["b200"], &["nvswitch"]], &[list, plan, set, again, json]);
    let (text, code) = ran.of(list);
    assert_eq!(code, 0, "{}", ran.console);
    for words in ["H100 SXM", "B200", "NVSwitch LS10", "well"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let (text, code) = ran.of(plan);
    assert_eq!(code, 0);
    assert_eq!(text.matches("write 1 to CCM").count(), 2, "{text}");
    let (text, code) = ran.of(set);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("mode on: set and verified"), "{text}");
    assert_eq!(ran.of(again).0.trim(), "mode on: already set");
    let (text, _) = ran.of(json);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let modes: Vec<_> = value["devices"].as_array().unwrap().iter().map(|device| device["mode"].as_str()).collect();
    assert_eq!(modes, [Some("on"), Some("on"), Some("off")]);
    assert_eq!(ran.devices[0].matches("reset: Function").count(), 1, "{:?}", ran.devices);
}

#[test]
fn a_mode_that_needs_a_bus_reset_gets_one_and_a_broken_device_is_told() {
    let Some(parts) = Parts::find() else { return };
    let devices = "/bullion gpu list";
    let set = "/bullion gpu set-mode ppcie 0000:01:00.0";
    let broken = "/bullion gpu set-mode on 0000:02:00.0";
    let recover = "/bullion gpu recover 0000:02:00.0";
    let ran =
        run(&parts, &[&["h100", "function-reset-keeps-mode"], &["h200", "recovery"]], &[devices, set, broken, recover]);
    let (text, code) = ran.of(set);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("mode ppcie: set and verified"), "{text}");
    // One bus reset is the machine's own start.
    let (_, after) = ran.devices[0].split_once("reset: Function").unwrap();
    assert!(after.contains("reset: Bus"), "{:?}", ran.devices);
    let (text, code) = ran.of(broken);
    assert_eq!(code, 3);
    assert!(text.contains("0000:02:00.0 (H200 SXM): is in recovery mode"), "{text}");
    let (text, code) = ran.of(recover);
    assert_eq!(code, 3);
    for rung in ["wake", "function-level reset", "secondary-bus reset", "remove and rescan"] {
        assert!(text.contains(rung), "{rung} in {text}");
    }
}
