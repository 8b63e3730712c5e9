//! A machine with modelled devices, a stock kernel and the program: what the tests of the whole program share.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::print_stderr, reason = "what is skipped is said there")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::cpio::{Entry, write_newc};

/// TCG on a busy machine: a boot takes 4 s on an idle one.
const TIMEOUT: Duration = Duration::from_secs(240);

/// What a machine is made of.
pub(crate) struct Parts {
    bullion: PathBuf,
    qemu: PathBuf,
    kernel: PathBuf,
}

impl Parts {
    pub(crate) fn find() -> Option<Self> {
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
fn initrd(bullion: &Path, commands: &[&str], more: &Files) -> Vec<u8> {
    let init = PathBuf::from(env!("CARGO_BIN_EXE_lab-init"));
    let mut files = more.clone();
    let qemu = PathBuf::from(env!("CARGO_BIN_EXE_lab-qemu"));
    files.insert("lab-qemu".to_owned(), std::fs::read(&qemu).unwrap());
    for program in [&init, &bullion.to_owned(), &qemu] {
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
    directories.extend(["dev", "proc", "sys", "tmp", "run"].map(str::to_owned));
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
pub(crate) struct Ran {
    pub(crate) console: String,
    pub(crate) devices: Vec<String>,
}

impl Ran {
    /// The output of a command and its exit code.
    pub(crate) fn of(&self, command: &str) -> (String, i32) {
        let begin = format!("[begin {command}]");
        let rest = self.console.split_once(&begin).unwrap_or_else(|| panic!("no {begin} in {}", self.console)).1;
        let (text, rest) = rest.split_once("[end ").unwrap_or_else(|| panic!("no end: {}", self.console));
        (text.replace('\r', ""), rest.split_once(']').unwrap().0.parse().unwrap())
    }
}

/// Files by their path in the machine.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Runs commands in a machine that has the devices, each behind a port of its own.
pub(crate) fn run(parts: &Parts, devices: &[&[&str]], commands: &[&str]) -> Ran {
    run_with(parts, devices, commands, &Extra::default())
}

/// What a machine has beyond the usual.
#[derive(Default)]
pub(crate) struct Extra {
    /// An IOMMU.
    pub(crate) iommu: bool,
    /// Further devices, in QEMU's words.
    pub(crate) devices: Vec<&'static str>,
    /// Files.
    pub(crate) files: Files,
}

/// Runs commands in a machine with more than the usual.
pub(crate) fn run_with(parts: &Parts, devices: &[&[&str]], commands: &[&str], extra: &Extra) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: String| directory.path().join(name);
    let mut running = Running(Vec::new());
    let library = parts.qemu.join("usr/lib/x86_64-linux-gnu");
    let mut qemu = Command::new(parts.qemu.join("usr/lib64/ld-linux-x86-64.so.2"));
    qemu.arg("--library-path").arg(&library).arg(parts.qemu.join("usr/bin/qemu-system-x86_64"));
    qemu.env("QEMU_MODULE_DIR", library.join("qemu")).arg("-L").arg(parts.qemu.join("usr/share/qemu"));
    qemu.args(["-L", parts.qemu.join("usr/share/seabios").to_str().unwrap()]);
    if extra.iommu {
        // Before the devices: they ask for it when they are made.
        qemu.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
    }
    for (index, words) in devices.iter().enumerate() {
        let socket = at(format!("gpu{index}.sock"));
        let log = std::fs::File::create(at(format!("gpu{index}.log"))).unwrap();
        let mut server = Command::new(env!("CARGO_BIN_EXE_fakegpu"));
        server.arg("--model").arg(words[0]).arg("--socket").arg(&socket).args(&words[1..]).stderr(log);
        running.0.push(server.spawn().unwrap());
        let deadline = Instant::now() + TIMEOUT;
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the model does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        qemu.args(fakegpu::server::qemu_arguments(index, &socket));
    }
    for device in &extra.devices {
        qemu.args(["-device", device]);
    }
    std::fs::write(at("initrd".to_owned()), initrd(&parts.bullion, commands, &extra.files)).unwrap();
    qemu.args(["-nodefaults", "-nographic", "-no-reboot", "-accel", "tcg", "-cpu", "max,phys-bits=46", "-m", "1024"]);
    qemu.args(["-object", "memory-backend-memfd,id=ram,size=1024M,share=on"]);
    qemu.args(["-machine", "q35,kernel-irqchip=split,memory-backend=ram"]);
    qemu.arg("-serial").arg(format!("file:{}", at("console".to_owned()).display()));
    qemu.arg("-kernel").arg(&parts.kernel).arg("-initrd").arg(at("initrd".to_owned()));
    qemu.args([
        "-append",
        &format!("console=ttyS0 quiet panic=-1 {}", if extra.iommu { "intel_iommu=on" } else { "" }),
    ])
    .stdin(Stdio::null());
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

/// The modules by which the kernel passes devices, with what they need, as files that `lab-init` loads in their order.
pub(crate) fn vfio_modules() -> Option<Files> {
    let recipe = std::env::var_os("BULLION_TEST_RECIPE").map(PathBuf::from)?;
    let path = recipe.with_extension("lock");
    let lock = spec::lock::Lock::parse(&path.display().to_string(), &std::fs::read_to_string(&path).ok()?).ok()?;
    let store = store::Store::open(&store::Store::default_dir()?).ok()?;
    let kernel = lock.package.iter().filter(|package| package.uses.contains(&spec::lock::Use::Kernel));
    let packages: Vec<_> =
        kernel.map(|package| image::deb::read(&store.read(&package.sha256, package.size).unwrap()).unwrap()).collect();
    let names = ["vfio_iommu_type1", "vfio_pci"].map(str::to_owned);
    let wanted = image::kernel::Wanted { boot: &names, ..Default::default() };
    let kernel = image::kernel::find(&packages.iter().collect::<Vec<_>>(), [], &wanted).unwrap();
    let file = |(place, name): (usize, &String)| {
        Some((format!("modules/{place:02}-{name}.ko"), kernel.modules.get(name)?.clone()))
    };
    Some(kernel.plan.boot.iter().enumerate().filter_map(file).collect())
}
