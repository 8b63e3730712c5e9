//! Runs the real QEMU of a locked tree with the simulator preloaded, and reads what it reports.
//!
//! The tree is `$BULLION_TEST_QEMU_TREE`, or the first one with a QEMU in Bullion's cache. Where it, `/dev/kvm`, a tool or a
//! vector is missing, the test says "skipped" and passes.
#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::print_stderr, reason = "says what was skipped and how long runs took")]

use std::arch::x86_64::__cpuid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Everything a run needs, or a line on stderr that says what is missing.
pub(crate) struct Laboratory {
    qemu_root: PathBuf,
    library: PathBuf,
    pub(crate) directory: TempDir,
}

/// What a finished run left behind.
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
    pub(crate) report: Value,
    pub(crate) elapsed: Duration,
}

/// Leaves the test with a word about what is missing.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    eprintln!("skipped: {reason}");
    None
}

impl Laboratory {
    pub(crate) fn open() -> Option<Self> {
        Self::with_tree(qemu_root().or_else(|| skip("no QEMU tree: set BULLION_TEST_QEMU_TREE"))?)
    }

    /// The laboratory with QEMU 10.0, which launches SNP guests as later ones do.
    pub(crate) fn open_older() -> Option<Self> {
        let tree = std::env::var_os("BULLION_TEST_OLDER_QEMU_TREE").map(PathBuf::from).filter(|root| has_qemu(root));
        Self::with_tree(tree.or_else(|| skip("BULLION_TEST_OLDER_QEMU_TREE names no tree with QEMU"))?)
    }

    fn with_tree(qemu_root: PathBuf) -> Option<Self> {
        if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
            return skip("/dev/kvm cannot be opened");
        }
        Some(Self { qemu_root, library: library(), directory: tempfile::tempdir().unwrap() })
    }

    /// The laboratory, where its QEMU is at least this version; `what` is new in it.
    pub(crate) fn open_with_qemu(major: u32, minor: u32, what: &str) -> Option<Self> {
        let laboratory = Self::open()?;
        let output = laboratory.qemu().arg("--version").stdout(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let version = text.split_whitespace().nth(3).expect("QEMU emulator version X.Y.Z");
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap());
        if (numbers.next(), numbers.next()) < (Some(major), Some(minor)) {
            return skip(&format!("QEMU {version} has no {what}"));
        }
        Some(laboratory)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// QEMU with what every run has.
    pub(crate) fn qemu(&self) -> Command {
        let inside = |path: &str| self.qemu_root.join(path);
        let libraries = inside("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(inside("usr/lib64/ld-linux-x86-64.so.2"));
        command.env("QEMU_MODULE_DIR", libraries.join("qemu")).env("TEESIM_REPORT", self.path("report.json"));
        command.arg("--preload").arg(&self.library).arg("--library-path").arg(libraries);
        command.arg(inside("usr/bin/qemu-system-x86_64")).arg("-L").arg(inside("usr/share/qemu"));
        command.arg("-L").arg(inside("usr/share/seabios"));
        command.args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-accel", "kvm"]);
        // A file, because QEMU warns so much about 64 vCPUs that a pipe nobody reads would stop it.
        let stderr = fs::File::create(self.path("stderr")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        command
    }

    /// QEMU as an SNP guest of 512 MiB; `object` is what follows `sev-snp-guest,id=tee,`.
    pub(crate) fn snp(&self, firmware: &Path, cpu: &str, vcpus: u32, object: &str) -> Command {
        // QEMU compares cbitpos with the CPUID instruction's answer, which nobody can stand in for.
        let cbitpos = __cpuid(0x8000_001f).ebx & 0x3f;
        let mut command = self.qemu();
        self.machine(&mut command, firmware, vcpus, "512M");
        command.args(["-cpu", cpu, "-object"]);
        command.arg(format!("sev-snp-guest,id=tee,cbitpos={cbitpos},reduced-phys-bits=1,{object}"));
        command
    }

    /// QEMU as a TD; `properties` follow in the JSON of the object.
    pub(crate) fn tdx(&self, firmware: &Path, vcpus: u32, memory: &str, properties: &str) -> Command {
        let mut command = self.qemu();
        self.machine(&mut command, firmware, vcpus, memory);
        command.args(["-cpu", "host", "-object"]);
        command.arg(format!(r#"{{"qom-type":"tdx-guest","id":"tee"{properties}}}"#));
        command
    }

    fn machine(&self, command: &mut Command, firmware: &Path, vcpus: u32, memory: &str) {
        command
            .arg("-machine")
            .arg("q35,kernel-irqchip=split,confidential-guest-support=tee,memory-backend=ram,hpet=off");
        command.arg("-object").arg(format!("memory-backend-memfd,id=ram,size={memory},share=on,prealloc=off"));
        command.args(["-smp", &vcpus.to_string(), "-m", memory, "-bios"]).arg(firmware);
    }

    /// Runs a command to its end, which comes by itself.
    pub(crate) fn run(&self, command: &mut Command) -> Outcome {
        let begin = Instant::now();
        let mut child = Running(command.spawn().unwrap());
        let deadline = begin + Duration::from_secs(60);
        while child.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "QEMU did not end: {command:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        let elapsed = begin.elapsed();
        let stderr = fs::read_to_string(self.path("stderr")).unwrap();
        Outcome { status: child.0.wait().unwrap(), stderr, report: self.report(), elapsed }
    }

    /// The report of the last run, or null where it wrote none.
    pub(crate) fn report(&self) -> Value {
        fs::read(self.path("report.json")).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
    }
}

/// A QEMU that dies with the test.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The library that cargo built with this test.
pub(crate) fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libteesim.so");
    assert!(library.exists(), "{} is built with the tests", library.display());
    library
}

fn cache() -> Option<PathBuf> {
    let from = |name: &str, below: &str| std::env::var_os(name).map(|dir| Path::new(&dir).join(below));
    from("BULLION_CACHE", "").or_else(|| from("XDG_CACHE_HOME", "bullion")).or_else(|| from("HOME", ".cache/bullion"))
}

fn has_qemu(root: &Path) -> bool {
    root.join("usr/bin/qemu-system-x86_64").exists()
}

fn qemu_root() -> Option<PathBuf> {
    if let Some(root) = std::env::var_os("BULLION_TEST_QEMU_TREE") {
        return Some(PathBuf::from(root)).filter(|root| has_qemu(root));
    }
    let trees = fs::read_dir(cache()?.join("trees")).ok()?;
    trees.flatten().map(|tree| tree.path().join("root")).find(|root| has_qemu(root))
}

/// A tool that is not ours.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("BULLION_TOOLS").map(PathBuf::from).or_else(|| Some(cache()?.join("tools/bin")));
    directory.map(|dir| dir.join(name)).filter(|path| path.exists()).or_else(|| skip(&format!("{name} is not there")))
}

/// A vector of the shared folder.
pub(crate) fn vector(name: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("BULLION_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    Some(directory.join(name)).filter(|path| path.exists()).or_else(|| skip(&format!("the vector {name} is not there")))
}

/// Base64, as QEMU's properties want it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let quartet = |chunk: &[u8]| {
        let bits = (0..3).fold(0_usize, |bits, index| bits << 8 | usize::from(*chunk.get(index).unwrap_or(&0)));
        (0..4).map(move |index| bits >> (18 - 6 * index) & 63).collect::<Vec<_>>()
    };
    let mut text: String = bytes.chunks(3).flat_map(quartet).map(|index| char::from(ALPHABET[index])).collect();
    let padding = (3 - bytes.len() % 3) % 3;
    text.truncate(text.len() - padding);
    text + &"=".repeat(padding)
}
