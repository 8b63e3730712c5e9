//! What the lab is made of: the server's image, the disk with the program and a guest's image, QEMU and its helpers. Built once
//! for all servers of one run of the tests.

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
    /// What the component `lab-kernel` left.
    kernel: Option<PathBuf>,
}

impl Parts {
    /// Builds everything from what the environment names; `None` (and a word why) where something is not there.
    pub fn build() -> Option<Self> {
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
        let fakegpu = bullion.as_ref().map(|bullion| bullion.with_file_name("fakegpu")).filter(|path| path.exists());
        if fakegpu.is_none() {
            missing.push("fakegpu beside BULLION_BIN");
        }
        let found = bullion.zip(tools).zip(host).zip(minimal).zip(qemu.zip(fakegpu));
        let Some(((((bullion, tools), host), minimal), (qemu, fakegpu))) = found else {
            eprintln!("skipped: the lab: scripts/test did not provide {}", missing.join(", "));
            return None;
        };
        let parts = Self { qemu, fakegpu, directory: tempfile::tempdir().unwrap() };
        let kernel = std::env::var_os("BULLION_TEST_LAB_KERNEL").map(PathBuf::from).filter(|path| path.exists());
        parts.make(&Inputs { bullion, tools, host, minimal, kernel });
        Some(parts)
    }

    /// A file of the lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn make(&self, inputs: &Inputs) {
        let image = |recipe: &Path, output: &Path| {
            let mut build = Command::new(&inputs.bullion);
            run(build.args(["--quiet", "build"]).arg(recipe).arg("-o").arg(output).stdout(Stdio::null()));
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
        for file in [&inputs.bullion, &inputs.bullion.with_file_name("libteesim.so")] {
            std::fs::copy(file, payload.join(file.file_name().unwrap())).unwrap();
        }
        run(Command::new(inputs.tools.join("mkfs.erofs")).arg("--quiet").arg(self.path("payload.erofs")).arg(&payload));
        let busybox = std::fs::read(inputs.tools.join("../share/busybox")).unwrap();
        let initrd = std::fs::read(self.path("host").join("initrd")).unwrap();
        let file = |name: &str| inputs.kernel.as_ref().map(|directory| std::fs::read(directory.join(name)).unwrap());
        let kernel = file("bzImage").unwrap_or_else(|| std::fs::read(self.path("host/vmlinuz")).unwrap());
        std::fs::write(self.path("kernel"), kernel).unwrap();
        let initrd = boot::initrd(initrd, &busybox, file("modules.builtin").as_deref());
        std::fs::write(self.path("initrd"), initrd).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
