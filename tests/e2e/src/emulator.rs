//! A machine of QEMU's TCG with OVMF and a TPM of swtpm: what firmware and kernel really measure, read from the machine's
//! memory and from the TPM itself.
//!
//! The machine has no disk with a root file system: it is stopped once the kernel has taken over from firmware. The log is the
//! one in memory that ends there; PCRs are asked of the TPM with TPM2_PCR_Read through its registers.

mod tis;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What a test needs: the unpacked trees of `vmm.toml` and `tpm.toml`.
#[derive(Debug)]
pub struct Trees {
    qemu: PathBuf,
    tpm: PathBuf,
}

/// The firmware of a machine.
#[derive(Clone, Copy, Debug)]
pub enum Firmware<'a> {
    /// Code and variables in two files, both in pflash.
    Split(&'a Path, &'a Path),
    /// One file, as a TEE launches it.
    Whole(&'a Path),
    /// The SeaBIOS of QEMU's tree, with a TPM of version 1.2.
    Bios,
}

/// What was found in a machine that was stopped.
#[derive(Debug)]
pub struct Stopped {
    /// All of its memory.
    pub memory: Vec<u8>,
    /// PCRs by number: of the SHA-384 bank, or of a TPM of version 1.2.
    pub pcrs: BTreeMap<u32, String>,
    /// A directory with the fw_cfg files that count.
    pub fw_cfg: PathBuf,
    _directory: TempDir,
}

const MEMORY_MIB: usize = 512;
/// TCG on a busy machine: a boot takes 4 s on an idle one.
const TIMEOUT: Duration = Duration::from_secs(540);

impl Trees {
    /// From the environment; `None` (and a word why) where they are not there.
    pub fn find() -> Option<Self> {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
        let found =
            path("BULLION_TEST_QEMU_TREE").zip(path("BULLION_TEST_TPM_TREE")).map(|(qemu, tpm)| Self { qemu, tpm });
        if found.is_none() {
            super::skipped(
                "emulated boot: BULLION_TEST_QEMU_TREE and BULLION_TEST_TPM_TREE are set by scripts/test only",
            );
        }
        found
    }

    /// A firmware file of the tree with the TPM.
    pub fn ovmf(&self, name: &str) -> PathBuf {
        self.tpm.join("usr/share/OVMF").join(name)
    }

    /// Boots, and stops when `has_booted` says so of the memory.
    pub fn boot(&self, firmware: Firmware<'_>, words: &[String], has_booted: impl Fn(&[u8]) -> bool) -> Stopped {
        let directory = tempfile::tempdir().unwrap();
        let mut machine = Machine::start(self, directory.path(), firmware, words);
        let memory = directory.path().join("memory");
        let deadline = Instant::now() + TIMEOUT;
        // The machine stands still while it is looked at: the kernel soon takes the memory that firmware's log is in. On a busy machine
        // looking takes long, and the guest is slow: it runs for longer than it is looked at.
        let mut looked = Duration::ZERO;
        let memory = loop {
            std::thread::sleep(Duration::from_millis(750).max(2 * looked));
            let start = Instant::now();
            let status = machine.qmp("query-status", json!({}));
            machine.qmp("stop", json!({}));
            let read = std::fs::read(&memory).unwrap();
            if has_booted(&read) {
                break read;
            }
            let console = std::fs::read(directory.path().join("console")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            assert!(Instant::now() < deadline, "the guest did not boot: {status} {console}");
            assert_eq!(status["status"], "running", "the guest stopped before it had booted: {console}");
            machine.qmp("cont", json!({}));
            looked = start.elapsed();
        };
        let pcrs = match firmware {
            Firmware::Split(..) => machine.pcrs(),
            Firmware::Bios => tis::pcrs(&mut |command| machine.qtest(command)),
            Firmware::Whole(_) => BTreeMap::new(),
        };
        let fw_cfg = directory.path().join("fw_cfg");
        machine.save_fw_cfg(&fw_cfg);
        machine.qmp("quit", json!({}));
        Stopped { memory, pcrs, fw_cfg, _directory: directory }
    }
}

/// A program of a tree, run by the tree's own loader.
fn program(root: &Path, path: &str) -> Command {
    let library = root.join("usr/lib/x86_64-linux-gnu");
    let mut libraries = library.clone().into_os_string();
    libraries.push(":");
    libraries.push(library.join("swtpm"));
    let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(libraries).arg(root.join(path)).env("QEMU_MODULE_DIR", library.join("qemu"));
    command.stdin(Stdio::null());
    command
}

struct Machine {
    qemu: Child,
    swtpm: Child,
    qtest: BufReader<UnixStream>,
    control: BufReader<UnixStream>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in [&mut self.qemu, &mut self.swtpm] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Machine {
    fn start(trees: &Trees, directory: &Path, firmware: Firmware<'_>, words: &[String]) -> Self {
        let path = |name: &str| directory.join(name).display().to_string();
        std::fs::create_dir(directory.join("tpm")).unwrap();
        // SeaBIOS wants to start its TPM itself.
        let version: &[&str] =
            if matches!(firmware, Firmware::Bios) { &[] } else { &["--tpm2", "--flags", "startup-clear"] };
        let swtpm = program(&trees.tpm, "usr/bin/swtpm")
            .args(["socket", "--tpmstate", &format!("dir={}", path("tpm"))])
            .args(version)
            .args(["--ctrl", &format!("type=unixio,path={}", path("tpm.sock"))])
            .spawn()
            .unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while !directory.join("tpm.sock").exists() {
            assert!(Instant::now() < deadline, "swtpm did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        let [qtest, control] = ["qtest.sock", "qmp.sock"].map(|name| UnixListener::bind(directory.join(name)).unwrap());
        let share = trees.qemu.join("usr/share");
        let mut qemu = program(&trees.qemu, "usr/bin/qemu-system-x86_64");
        qemu.arg("-L").arg(share.join("qemu")).arg("-L").arg(share.join("seabios"));
        qemu.args(["-accel", "tcg", "-cpu", "max", "-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-no-reboot", "-no-shutdown", "-m", &format!("{MEMORY_MIB}M"), "-object"])
            .arg(format!("memory-backend-file,id=ram,share=on,size={MEMORY_MIB}M,mem-path={}", path("memory")))
            .args(["-serial", &format!("file:{}", path("console"))])
            .args(["-qtest", &format!("unix:{}", path("qtest.sock")), "-qtest-log", "none"])
            .args(["-qmp", &format!("unix:{}", path("qmp.sock"))])
            .args(["-chardev", &format!("socket,id=tpm,path={}", path("tpm.sock"))])
            .args(["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device"])
            .arg(if matches!(firmware, Firmware::Bios) { "tpm-tis,tpmdev=tpm0" } else { "tpm-crb,tpmdev=tpm0" });
        firmware_words(&mut qemu, directory, firmware);
        let qemu = qemu.args(words).spawn().unwrap();
        let [qtest, control] = [qtest, control].map(|listener| BufReader::new(listener.accept().unwrap().0));
        let mut machine = Self { qemu, swtpm, qtest, control };
        line(&mut machine.control);
        machine.qmp("qmp_capabilities", json!({}));
        machine
    }

    fn qmp(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.control.get_mut().write_all(request.as_bytes()).unwrap();
        loop {
            let reply: Value = serde_json::from_str(&line(&mut self.control)).unwrap();
            assert_eq!(reply.get("error"), None, "{command}: {reply}");
            if let Some(value) = reply.get("return") {
                return value.clone();
            }
        }
    }

    fn qtest(&mut self, command: &str) -> String {
        self.qtest.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        loop {
            let reply = line(&mut self.qtest);
            if let Some(value) = reply.strip_prefix("OK") {
                return value.trim().trim_start_matches("0x").to_owned();
            }
            assert!(reply.starts_with("IRQ"), "{command}: {reply}");
        }
    }

    /// PCR 0 to 23 of the SHA-384 bank.
    fn pcrs(&mut self) -> BTreeMap<u32, String> {
        const PCR_READ: [u8; 18] = [0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e, 0, 0, 0, 1, 0, 0xc, 3, 0];
        let mut pcrs = BTreeMap::new();
        for number in 0..24_u32 {
            let mut command = PCR_READ[..17].to_vec();
            command.extend((1_u32 << number).to_le_bytes().get(..3).unwrap());
            let reply = self.tpm(&command);
            // Header, update counter, selection, number of digests, size of the digest.
            assert_eq!(&reply[12..20], "00000000", "TPM2_PCR_Read: {reply}");
            pcrs.insert(number, reply[60..].to_owned());
        }
        pcrs
    }

    /// Sends a command through the Command Response Buffer (TCG PC Client Platform TPM Profile, 6.5.3); both sides in hex.
    fn tpm(&mut self, command: &[u8]) -> String {
        const LOCALITY_CONTROL: u32 = 0xfed4_0008;
        const CONTROL_REQUEST: u32 = 0xfed4_0040;
        const CONTROL_START: u32 = 0xfed4_004c;
        const BUFFER: u32 = 0xfed4_0080;
        let hex = measure::digest::encode_hex(command);
        for request in [
            format!("writel {LOCALITY_CONTROL:#x} 1"),
            format!("writel {CONTROL_REQUEST:#x} 1"),
            format!("write {BUFFER:#x} {:#x} 0x{hex}", command.len()),
            format!("writel {CONTROL_START:#x} 1"),
        ] {
            self.qtest(&request);
        }
        let deadline = Instant::now() + TIMEOUT;
        let number = |hex: &str| u64::from_str_radix(hex, 16).unwrap();
        while number(&self.qtest(&format!("readl {CONTROL_START:#x}"))) != 0 {
            assert!(Instant::now() < deadline, "the TPM does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        let header = self.qtest(&format!("read {BUFFER:#x} 10"));
        let size = number(&header[4..12]);
        self.qtest(&format!("read {BUFFER:#x} {size}"))
    }

    /// Writes the fw_cfg files that count below `to`.
    fn save_fw_cfg(&mut self, to: &Path) {
        let directory = self.fw_cfg(0x19, 4);
        let count = u32::from_be_bytes(directory.try_into().unwrap());
        let directory = self.fw_cfg(0x19, 4 + 64 * usize::try_from(count).unwrap());
        for entry in directory[4..].chunks(64) {
            let size = u32::from_be_bytes(entry[..4].try_into().unwrap());
            let key = u16::from_be_bytes(entry[4..6].try_into().unwrap());
            let name = String::from_utf8_lossy(&entry[8..]).trim_end_matches('\0').to_owned();
            if measure::fw_cfg::FwCfg::NAMES.contains(&name.as_str()) {
                let content = self.fw_cfg(key, usize::try_from(size).unwrap());
                std::fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
                std::fs::write(to.join(&name), content).unwrap();
            }
        }
    }

    /// Reads an item by DMA (QEMU documentation, "fw_cfg DMA Interface") into memory that nothing needs any more.
    fn fw_cfg(&mut self, key: u16, size: usize) -> Vec<u8> {
        const COMMAND: u32 = 0x1000;
        const BUFFER: u64 = 0x10_0000;
        // The boot order of a machine that has none; QEMU dies over a read of nothing.
        if size == 0 {
            return Vec::new();
        }
        let mut command = (u32::from(key) << 16 | 8 | 2).to_be_bytes().to_vec();
        command.extend(u32::try_from(size).unwrap().to_be_bytes());
        command.extend(BUFFER.to_be_bytes());
        self.qtest(&format!("write {COMMAND:#x} 16 0x{}", measure::digest::encode_hex(&command)));
        self.qtest("outl 0x514 0");
        self.qtest(&format!("outl 0x518 {:#x}", COMMAND.swap_bytes()));
        let hex = self.qtest(&format!("read {BUFFER:#x} {size:#x}"));
        super::vectors::unhex(&hex)
    }
}

fn firmware_words(qemu: &mut Command, directory: &Path, firmware: Firmware<'_>) {
    match firmware {
        Firmware::Split(code, variables) => {
            let ours = directory.join("variables");
            std::fs::write(&ours, std::fs::read(variables).unwrap()).unwrap();
            qemu.args(["-machine", "q35,smm=on,memory-backend=ram"])
                .args(["-global", "driver=cfi.pflash01,property=secure,value=on"])
                .arg("-drive")
                .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={}", code.display()))
                .arg("-drive")
                .arg(format!("if=pflash,format=raw,unit=1,file={}", ours.display()));
        }
        Firmware::Whole(image) => {
            qemu.args(["-machine", "q35,memory-backend=ram", "-bios"]).arg(image);
        }
        Firmware::Bios => {
            qemu.args(["-machine", "q35,memory-backend=ram"]);
        }
    }
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "QEMU has ended");
    line
}
