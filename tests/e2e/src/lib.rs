//! Running the program `bullion` as a user would, for the end-to-end tests.
//!
//! `scripts/test` builds the program, fetches the locked inputs and names everything in the environment; where it did not,
//! the tests say "skipped" and why.
#![allow(clippy::print_stderr, clippy::unwrap_used, clippy::panic, reason = "test support: failing loudly is its job")]

pub mod cipher;
pub mod container;
mod documented;
pub mod emulator;
mod hardened;
pub mod passed;
pub mod vectors;

use std::ffi::OsStr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use documented::documented;
pub use vectors::vector;

/// What the environment of a test offers.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The program under test.
    pub bullion: PathBuf,
    /// The recipe of the minimal image, with its lock beside it.
    pub recipe: PathBuf,
    /// The recipe of the QEMU tree, with its lock beside it.
    pub vmm: PathBuf,
    /// Whether the inputs come from a lock that was made on the spot.
    pub unpublished: bool,
    /// Where this test's VMs are kept: tests that run side by side see nothing of each other's.
    vms: Arc<tempfile::TempDir>,
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Run {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Of a program that has ended.
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The JSON on standard output.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// Asserts the exit code, and that standard error holds each of `texts`.
    #[track_caller]
    pub fn expect(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        for text in texts {
            assert!(self.stderr.contains(text), "\"{text}\" is not in standard error: {self:#?}");
        }
        self
    }
}

/// Says that a test was skipped, and why.
pub fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// What the environment offers; `None` (and a word why) where `scripts/test` did not prepare it.
pub fn bench() -> Option<Bench> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
    let found = (|| {
        Some(Bench {
            bullion: path("BULLION_BIN")?,
            recipe: path("BULLION_TEST_RECIPE")?,
            vmm: path("BULLION_TEST_VMM")?,
            unpublished: std::env::var("BULLION_TEST_UNPUBLISHED").is_ok_and(|value| value == "yes"),
            vms: Arc::new(tempfile::tempdir().ok()?),
        })
    })();
    if found.is_none() {
        skipped("end-to-end test: BULLION_BIN, BULLION_TEST_RECIPE and BULLION_TEST_VMM are set by scripts/test only");
    }
    found
}

/// A judge from the locked tool tree, such as `fsck.erofs`; `None` (and a word why) where it is not there.
pub fn judge(name: &str) -> Option<Command> {
    let directory = std::env::var_os("BULLION_TOOLS").map(PathBuf::from).unwrap_or_default();
    let path = directory.join(name);
    if path.exists() {
        return Some(Command::new(path));
    }
    skipped(&format!("{name} is not in BULLION_TOOLS"));
    None
}

impl Bench {
    /// The program with `arguments`, not started.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(&self.bullion);
        command.args(arguments);
        self.at_home(&mut command);
        command
    }

    /// Gives a command that runs the program this test's place for VMs, nothing to read, and no colours.
    pub fn at_home<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (variable, name) in [("BULLION_RUN_DIR", "run"), ("BULLION_STATE_DIR", "state")] {
            let directory = self.vms.path().join(name);
            if !directory.exists() {
                std::fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
            }
            command.env(variable, directory);
        }
        command.stdin(Stdio::null()).env("NO_COLOR", "1")
    }

    /// Runs the program to its end, for which it has four minutes.
    pub fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        let mut command = Command::new("timeout");
        command.arg("240").arg(&self.bullion).args(arguments);
        run(self.at_home(&mut command))
    }

    /// Copies the minimal recipe and the one it extends into `directory`, without a lock; gives the copy's path.
    pub fn copy_recipe(&self, directory: &Path) -> PathBuf {
        let base = self.recipe.with_file_name("base.toml");
        std::fs::copy(base, directory.join("base.toml")).unwrap();
        let recipe = directory.join("minimal.toml");
        std::fs::copy(&self.recipe, &recipe).unwrap();
        recipe
    }

    /// Builds the image of `minimal-disk`, and one that differs in a file of its root and holds no expected values, below
    /// `directory`; `None` (and a word why) where its recipe was not named.
    pub fn disk_images(&self, directory: &Path) -> Option<[PathBuf; 2]> {
        let Some(recipe) = std::env::var_os("BULLION_TEST_DISK_RECIPE").map(PathBuf::from) else {
            skipped("BULLION_TEST_DISK_RECIPE is set by scripts/test only");
            return None;
        };
        self.copy_recipe(directory);
        std::fs::copy(&recipe, directory.join("plain.toml")).unwrap();
        let changed = directory.join("changed.toml");
        let text = "schema = 1\nname = \"minimal-disk\"\nextends = \"plain.toml\"\n\
            [[rootfs.file]]\npath = \"/etc/motd\"\ncontent = \"other\"\n";
        std::fs::write(&changed, text).unwrap();
        let lock = recipe.with_extension("lock");
        let build = |recipe: &Path, name: &str, words: &[&str]| {
            let output = directory.join(name);
            let path = |path: &Path| path.display().to_string();
            let build = ["build".into(), path(recipe), "-o".into(), path(&output), "--lock".into(), path(&lock)];
            self.run(build.into_iter().chain(words.iter().map(|word| (*word).to_owned()))).expect(0, &[]);
            output
        };
        Some([build(&recipe, "plain", &[]), build(&changed, "changed", &["--no-references"])])
    }

    /// Builds the minimal image into `output`.
    #[track_caller]
    pub fn build(&self, output: &Path) {
        self.run([OsStr::new("build"), self.recipe.as_os_str(), OsStr::new("-o"), output.as_os_str()]).expect(0, &[]);
    }

    /// The minimal image, built once for all tests of one test program. Never change it: take `copy_image`.
    pub fn image(&self) -> &'static Path {
        static IMAGE: OnceLock<tempfile::TempDir> = OnceLock::new();
        let directory = IMAGE.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            self.build(&directory.path().join("minimal"));
            directory
        });
        static PATH: OnceLock<PathBuf> = OnceLock::new();
        PATH.get_or_init(|| directory.path().join("minimal"))
    }

    /// The image that runs containers, built once for all tests of one test program; `None` (and a word why) where its
    /// recipe was not named.
    pub fn container(&self) -> Option<&'static Path> {
        static IMAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
        self.build_once("BULLION_TEST_CONTAINER", &IMAGE)
    }

    /// The same of the image that runs compose files too.
    pub fn compose(&self) -> Option<&'static Path> {
        static IMAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
        self.build_once("BULLION_TEST_COMPOSE", &IMAGE)
    }

    /// The same of the minimal image with a shell on its serial line.
    pub fn dev(&self) -> Option<&'static Path> {
        static IMAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
        self.build_once("BULLION_TEST_DEV", &IMAGE)
    }

    fn build_once(
        &self,
        variable: &str,
        image: &'static OnceLock<(tempfile::TempDir, PathBuf)>,
    ) -> Option<&'static Path> {
        let Some(recipe) = std::env::var_os(variable) else {
            skipped(&format!("{variable} is not set"));
            return None;
        };
        let (_, path) = image.get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("container");
            self.run([OsStr::new("build"), &recipe, OsStr::new("-o"), path.as_os_str()]).expect(0, &[]);
            (directory, path)
        });
        Some(path)
    }

    /// A description in `directory` for a VM of `image`, an image that runs containers, with `more` at its end. The guest is
    /// emulated on a machine that may be busy: it gets time.
    pub fn container_vm(&self, directory: &Path, name: &str, image: &Path, more: &str) -> PathBuf {
        let path = directory.join(format!("{name}.vm.toml"));
        let text = format!(
            "schema = 1\nname = \"{name}\"\nimage = \"{}\"\ntee = \"none\"\nvcpus = 2\nmemory = \"2GiB\"\n[host]\nready_timeout_s = 180\n{more}",
            image.display()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Waits until the VM `name` is in `phase`, and gives what is listed of it.
    pub fn wait_for_phase(&self, name: &str, phase: &str) -> serde_json::Value {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let listed = self.run(["ps", "--json"]).expect(0, &[]).json();
            let mut all = listed["vms"].as_array().unwrap().iter();
            if let Some(vm) = all.find(|vm| vm["name"] == name && vm["phase"] == phase) {
                return vm.clone();
            }
            assert!(Instant::now() < deadline, "{name} was never {phase}: {listed}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A copy of the minimal image that a test may spoil.
    pub fn copy_image(&self, to: &Path) -> PathBuf {
        copy_of(self.image(), to)
    }

    /// A copy with other firmware in the place of the artifact `name`, as its manifest says too.
    pub fn image_with_firmware(&self, to: &Path, name: &str, firmware: &[u8]) -> PathBuf {
        let image = self.copy_image(to);
        std::fs::write(image.join(name), firmware).unwrap();
        let text = std::fs::read(image.join("manifest.json")).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let hex: String = vectors::sha(256, firmware).iter().map(|byte| format!("{byte:02x}")).collect();
        manifest["artifacts"][name] = serde_json::json!({ "size": firmware.len(), "sha256": hex });
        std::fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
        image
    }

    /// The words that make `launch` use the QEMU tree under test.
    pub fn vmm_words(&self) -> Vec<String> {
        if self.unpublished { vec!["--vmm".to_owned(), self.vmm.display().to_string()] } else { Vec::new() }
    }

    /// Writes a VM description into `directory` and gives its path.
    pub fn vm(&self, directory: &Path, name: &str, tee: &str, vcpus: u32, image: &Path) -> PathBuf {
        let path = directory.join(format!("{name}.vm.toml"));
        let text = format!(
            "schema = 1\nname = \"{name}\"\nimage = \"{}\"\ntee = \"{tee}\"\nvcpus = {vcpus}\nmemory = \"512MiB\"\n[guest]\nhostname = \"{name}\"\n",
            image.display()
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Launches a VM description with further words, and waits for its end.
    pub fn launch(&self, vm: &Path, words: &[&str]) -> Run {
        self.run(self.launch_words(vm, words))
    }

    /// The same, not started: for who does something meanwhile.
    pub fn launching(&self, vm: &Path, words: &[&str]) -> Command {
        self.command(self.launch_words(vm, words))
    }

    fn launch_words(&self, vm: &Path, words: &[&str]) -> Vec<String> {
        let mut arguments = vec!["launch".to_owned(), vm.display().to_string()];
        arguments.extend(self.vmm_words());
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        arguments
    }
}

/// A copy, in `directory`, of an image that a test may spoil.
pub fn copy_of(image: &Path, directory: &Path) -> PathBuf {
    let target = directory.join("image");
    std::fs::create_dir(&target).unwrap();
    for entry in std::fs::read_dir(image).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
    }
    target
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: &mut Command) -> Run {
    Run::of(&command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// The names in a directory, sorted: to see that nothing was left behind.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
