//! What the lab is made of: the server's image, the disk with the program and a guest's image, QEMU and its helpers. Built once
//! for all servers of one run of the tests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::boot;

/// The guest is `minimal`, with a kernel that says on its console which devices it finds.
const GUEST: &str =
    "schema = 1\nname = \"lab-guest\"\nextends = \"minimal.toml\"\n[kernel]\ncommand_line = [\"loglevel=7\"]\n";

/// What servers are started from.
#[derive(Debug)]
pub struct Parts {
    pub(crate) qemu: PathBuf,
    pub(crate) fakegpu: PathBuf,
    directory: TempDir,
}

/// What the environment names.
struct Inputs {
    bullion: PathBuf,
    tools: PathBuf,
    host: PathBuf,
    minimal: PathBuf,
    /// The recipe of guests with a network, where there will be some.
    container: Option<PathBuf>,
}

impl Parts {
    /// Builds everything from what the environment names, with an image for guests that are `networked` too; `None` (and a word why)
    /// where something is not there.
    pub fn build(networked: bool) -> Option<Self> {
        let mut missing = Vec::new();
        let mut path = |name: &'static str| {
            let path = std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
            if path.is_none() {
                missing.push(name);
            }
            path
        };
        let names =
            ["BULLION_BIN", "BULLION_TOOLS", "BULLION_TEST_LAB", "BULLION_TEST_RECIPE", "BULLION_TEST_QEMU_TREE"];
        let [bullion, tools, host, minimal, qemu] = names.map(&mut path);
        let container = networked.then(|| path("BULLION_TEST_CONTAINER")).flatten();
        let fakegpu = bullion.as_ref().map(|bullion| bullion.with_file_name("fakegpu")).filter(|path| path.exists());
        if fakegpu.is_none() {
            missing.push("fakegpu beside BULLION_BIN");
        }
        let found = bullion.zip(tools).zip(host).zip(minimal).zip(qemu.zip(fakegpu));
        let found = found.filter(|_| !networked || container.is_some());
        let Some(((((bullion, tools), host), minimal), (qemu, fakegpu))) = found else {
            eprintln!("skipped: the lab: scripts/test did not provide {}", missing.join(", "));
            return None;
        };
        let parts = Self { qemu, fakegpu, directory: tempfile::tempdir().unwrap() };
        parts.make(&Inputs { bullion, tools, host, minimal, container });
        Some(parts)
    }

    /// The name that the locked QEMU has in a cache: the digest of its lock.
    pub(crate) fn vmm(&self) -> &str {
        self.qemu.parent().and_then(Path::file_name).and_then(OsStr::to_str).unwrap()
    }

    /// Whether it is there.
    pub fn has(&self, kernel: Kernel) -> bool {
        kernel == Kernel::Debian || self.path(kernel.name()).exists()
    }

    /// A file of the lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make(&self, inputs: &Inputs) {
        let image = |recipe: &Path, output: &Path| {
            let mut build = Command::new(&inputs.bullion);
            run(build.args(["--quiet", "build"]).arg(recipe).arg("-o").arg(output));
        };
        image(&inputs.host, &self.path("host"));
        let recipes = self.path("recipes");
        std::fs::create_dir(&recipes).unwrap();
        for (from, to) in [("base.toml", "base.toml"), ("minimal.toml", "minimal.toml"), ("minimal.lock", "guest.lock")]
        {
            std::fs::copy(inputs.minimal.with_file_name(from), recipes.join(to)).unwrap();
        }
        std::fs::write(recipes.join("guest.toml"), GUEST).unwrap();
        let payload = self.path("payload");
        std::fs::create_dir(&payload).unwrap();
        image(&recipes.join("guest.toml"), &payload.join("image"));
        // It has a driver for a NIC, and what makes the rules before it.
        if let Some(container) = &inputs.container {
            image(container, &payload.join("networked"));
        }
        for file in [&inputs.bullion, &inputs.bullion.with_file_name("libteesim.so")] {
            std::fs::copy(file, payload.join(file.file_name().unwrap())).unwrap();
        }
        let mkfs = |disk: &str, of: &Path| {
            run(Command::new(inputs.tools.join("mkfs.erofs")).arg("--quiet").arg(self.path(disk)).arg(of))
        };
        mkfs("payload.erofs", &payload);
        // With its index, as it lies in the cache: times of files too, by which the program knows that it is untouched.
        mkfs("vmm.erofs", self.qemu.parent().unwrap());
        let busybox = std::fs::read(inputs.tools.join("../share/busybox")).unwrap();
        let initrd = std::fs::read(self.path("host").join("initrd")).unwrap();
        let place = |kernel: Kernel, from: &Path, built_in: Option<&[u8]>| {
            std::fs::copy(from, self.path(kernel.name())).unwrap();
            std::fs::write(self.path(kernel.initrd()), boot::initrd(initrd.clone(), &busybox, built_in)).unwrap();
        };
        place(Kernel::Debian, &self.path("host/vmlinuz"), None);
        if let Some(compiled) = self.compiled(inputs) {
            let built_in = std::fs::read(compiled.join("modules.builtin")).unwrap();
            place(Kernel::Own, &compiled.join("bzImage"), Some(&built_in));
        }
    }

    /// What the component `lab-kernel` leaves, where the cache has it: compiling it takes many minutes.
    fn compiled(&self, inputs: &Inputs) -> Option<PathBuf> {
        // Beside a lock that was made again there are none.
        let components = Some(inputs.host.with_file_name("components")).filter(|directory| directory.exists())?;
        let listed = run(Command::new(&inputs.bullion).args(["component", "list", "--json"]).arg(&components));
        let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
        let is_it = |one: &serde_json::Value| one["name"] == "lab-kernel" && one["cached"] == true;
        let output = listed.as_array().unwrap().iter().any(is_it).then(|| self.path("compiled"))?;
        let mut build = Command::new(&inputs.bullion);
        build.args(["--quiet", "component", "build", "lab-kernel", "--directory"]).arg(&components);
        run(build.arg("-o").arg(&output));
        Some(output)
    }
}

/// Which kernel a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// That of its image, which is Debian's: functions are passed by IOMMU group.
    Debian,
    /// Component `lab-kernel`: by iommufd and device nodes.
    Own,
}

impl Kernel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian => "kernel",
            Self::Own => "own-kernel",
        }
    }

    pub(crate) fn initrd(self) -> &'static str {
        match self {
            Self::Debian => "initrd",
            Self::Own => "own-initrd",
        }
    }
}

/// Runs it to its end; gives what it wrote.
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
