//! The guests that are attacked, and how each is started when nobody attacks it.
//!
//! The argument list is the one of `bullion vm plan`: what differs is the accelerator and the processor, because a test host has
//! no other, a word for the kernel that goes with them, and that descriptors are files and sockets by path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use measure::digest::Digest256;
use measure::snp::KernelHashes;
use serde_json::Value;
use spec::agent::Identity;
use spec::vm::Vm;
use tempfile::TempDir;

use crate::machine::{Machine, State};
use crate::setup::Setup;

/// A guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guest {
    /// The minimal image, started by QEMU's own firmware.
    Minimal,
    /// The same as an image of class release tells its guest that it is.
    Release,
    /// The minimal image of class release, with the compiled kernel.
    Compiled,
    /// The minimal image, started by the firmware of an SEV-SNP guest with the table of hashes that such a launch puts into
    /// its memory.
    Hashes,
    /// The image that runs containers, with a network, a scratch volume and nothing to run.
    Container,
}

const MINIMAL: &str = "memory = \"512MiB\"\n[guest]\nhostname = \"hostile\"\n";
const CONTAINER: &str = "memory = \"1GiB\"\n[guest]\nhostname = \"hostile\"\n\
    [[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n\
    [[host.volume]]\nname = \"tmp\"\npath = \"scratch\"\n";
/// The size of the scratch volume's disk.
const SCRATCH_BYTES: u64 = 64 << 20;

impl Guest {
    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Release => "minimal, class release",
            Self::Compiled => "minimal, class release, compiled kernel",
            Self::Hashes => "minimal, SNP firmware",
            Self::Container => "container",
        }
    }

    /// What names its recipe; for the compiled kernel, the directory of images that `scripts/release-images` made.
    fn variable(self) -> &'static str {
        match self {
            Self::Minimal | Self::Release | Self::Hashes => "BULLION_TEST_RECIPE",
            Self::Compiled => "BULLION_TEST_RELEASE",
            Self::Container => "BULLION_TEST_CONTAINER",
        }
    }

    fn description(self, image: &Path) -> String {
        let more = if self == Self::Container { CONTAINER } else { MINIMAL };
        let image = image.display();
        format!("schema = 1\nname = \"hostile\"\nimage = \"{image}\"\ntee = \"none\"\nvcpus = 1\n{more}")
    }
}

/// How many kinds of guests there are.
const GUESTS: usize = 5;

/// Images and plans, made once each.
#[derive(Debug)]
pub struct Bench {
    bullion: PathBuf,
    vmm: Vec<String>,
    directory: TempDir,
    images: [OnceLock<Option<PathBuf>>; GUESTS],
    plans: [OnceLock<Plan>; GUESTS],
    identities: [OnceLock<Result<Identity, String>>; GUESTS],
}

#[derive(Debug)]
struct Plan {
    image: PathBuf,
    argv: Vec<String>,
    environment: Vec<(String, String)>,
    configuration: Vec<u8>,
}

/// What the environment offers; `None` (and a word why) where `scripts/test` did not prepare it.
pub fn bench() -> Option<&'static Bench> {
    static BENCH: OnceLock<Option<Bench>> = OnceLock::new();
    let found = BENCH.get_or_init(|| {
        let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.exists());
        let (bullion, vmm) = (path("BULLION_BIN")?, path("BULLION_TEST_VMM")?);
        path(Guest::Minimal.variable())?;
        let unpublished = std::env::var("BULLION_TEST_UNPUBLISHED").is_ok_and(|value| value == "yes");
        let vmm = if unpublished { vec!["--vmm".to_owned(), vmm.display().to_string()] } else { Vec::new() };
        let directory = tempfile::tempdir().unwrap();
        let (images, plans, identities) = Default::default();
        Some(Bench { bullion, vmm, directory, images, plans, identities })
    });
    if found.is_none() {
        eprintln!(
            "skipped: hostile hosts: BULLION_BIN, BULLION_TEST_RECIPE and BULLION_TEST_VMM are set by scripts/test only"
        );
    }
    found.as_ref()
}

impl Bench {
    /// Whether the image of a guest can be had; says "skipped" once where not.
    pub fn has(&self, guest: Guest) -> bool {
        self.image(guest).is_some()
    }

    /// The image of a guest, made when it is first asked for. Guests of one image share it.
    fn image(&self, guest: Guest) -> Option<&Path> {
        let owner = match guest {
            Guest::Minimal | Guest::Release | Guest::Hashes => Guest::Minimal,
            Guest::Compiled | Guest::Container => guest,
        };
        self.images[owner as usize].get_or_init(|| self.make_image(owner)).as_deref()
    }

    fn make_image(&self, guest: Guest) -> Option<PathBuf> {
        let named = std::env::var_os(guest.variable()).map(PathBuf::from).filter(|path| path.exists());
        let Some(recipe) = named else {
            eprintln!("skipped: hostile hosts: {} does not name what is there", guest.variable());
            return None;
        };
        if guest == Guest::Compiled {
            let image = recipe.join("minimal");
            if image.join("manifest.json").exists() {
                return Some(image);
            }
            eprintln!("skipped: hostile hosts: there is no image of class release, for want of its kernel");
            return None;
        }
        let image = self.directory.path().join(guest.variable());
        self.run(&["build".as_ref(), recipe.as_ref(), "-o".as_ref(), image.as_ref(), "--no-references".as_ref()])
            .unwrap();
        Some(image)
    }

    /// A machine for the guest that nobody has attacked yet.
    pub fn setup(&self, guest: Guest) -> Result<Setup, String> {
        let plan = self.plans[guest as usize].get_or_init(|| self.plan(guest).unwrap());
        let mut setup = Setup::new(&plan.image, &plan.argv, plan.environment.clone());
        for name in ["vmlinuz", "initrd", "rootfs"] {
            let number = match name {
                "vmlinuz" => 7,
                "initrd" => 8,
                _ => 9,
            };
            let path = plan.image.join(name).display().to_string();
            replace_everywhere(&mut setup, &format!("/proc/self/fd/{number}"), &path);
        }
        let configuration = setup.file("configuration", &plan.configuration).display().to_string();
        replace_everywhere(&mut setup, "/proc/self/fd/6", &configuration);
        for (name, number) in [("qmp", 3), ("console", 4), ("agent", 5)] {
            let file = if name == "console" { "console.sock" } else { name };
            let mut words = format!("socket,id={name},path={},server=on,wait=off", setup.path(file).display());
            if name == "console" {
                // A multiplexer knows a key for a serial break, which a socket has no bytes for.
                words += &format!(",mux=on,logfile={}", setup.path("console").display());
            }
            let old = format!("socket,id={name},fd={number}");
            *setup.value("-chardev", &old) = words;
        }
        setup.set("-accel", "tcg,thread=multi");
        setup.set("-cpu", "max");
        // The kernel looks for a timer in real time, and finds none where the test host is busy (Linux
        // Documentation/admin-guide/kernel-parameters).
        *setup.value("-append", "") += " no_timer_check";
        setup.add("-run-with", "exit-with-parent=on");
        match guest {
            Guest::Minimal | Guest::Compiled => {}
            // What `build --release` puts there; the word and not the image makes the guest what it is.
            Guest::Release => *setup.value("-append", "") += " bullion.class=release",
            Guest::Hashes => with_hashes(&mut setup),
            Guest::Container => {
                let scratch = setup.sparse("scratch", SCRATCH_BYTES).display().to_string();
                // Block devices are handed over with their flags (QEMU docs, -add-fd); a path needs none.
                setup.remove("-add-fd", "set=20");
                replace_everywhere(&mut setup, "/dev/fdset/20", &scratch);
            }
        }
        Ok(setup)
    }

    /// Who the guest is when nobody attacks it.
    pub fn identity(&self, guest: Guest) -> Result<Identity, String> {
        let known = self.identities[guest as usize].get_or_init(|| {
            let mut machine = Machine::start(self.setup(guest)?);
            let state = machine.wait_for_start();
            if state != State::Ready {
                return Err(format!("the guest is {state:?} although nobody attacks it: {}", machine.console()));
            }
            machine.identity()
        });
        known.clone()
    }

    fn plan(&self, guest: Guest) -> Result<Plan, String> {
        let image = self.image(guest).ok_or("there is no image")?.to_owned();
        let own = self.directory.path().join(format!("{guest:?}"));
        fs::create_dir_all(&own).unwrap();
        fs::File::create(own.join("scratch")).and_then(|file| file.set_len(SCRATCH_BYTES)).unwrap();
        let (path, text) = (own.join("hostile.vm.toml"), guest.description(&image));
        fs::write(&path, &text).unwrap();
        let vmm: Vec<&Path> = self.vmm.iter().map(Path::new).collect();
        let words = [&[Path::new("launch"), &path, Path::new("--plan"), Path::new("--json")], vmm.as_slice()].concat();
        let plan: Value = serde_json::from_str(&self.run(&words)?).map_err(|error| error.to_string())?;
        let text_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let argv = plan["argv"].as_array().unwrap().iter().map(text_of).collect();
        let environment = match &plan["env"] {
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), text_of(value))).collect(),
            Value::Array(pairs) => pairs.iter().map(|pair| (text_of(&pair[0]), text_of(&pair[1]))).collect(),
            other => return Err(format!("the plan's environment is {other}")),
        };
        let configuration = Vm::parse("", &text).map_err(|error| error.to_string())?.guest.to_disk();
        let configuration = configuration.map_err(|error| error.to_string())?;
        Ok(Plan { image, argv, environment, configuration })
    }

    fn run(&self, words: &[&Path]) -> Result<String, String> {
        let output = Command::new(&self.bullion).args(words).stdin(Stdio::null()).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("{words:?}: {}", String::from_utf8_lossy(&output.stderr)))
        }
    }
}

fn replace_everywhere(setup: &mut Setup, part: &str, by: &str) {
    // A number must not be taken for the start of another.
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
    for value in setup.arguments.iter_mut().filter_map(|(_, value)| value.as_mut()) {
        if let Some((before, after)) = value.split_once(part).filter(|(_, after)| ends(after)) {
            *value = format!("{before}{by}{after}");
        }
    }
}

/// The firmware of an SNP guest, and the table of hashes where QEMU would put it: the firmware holds what it is given against
/// it whether its memory is encrypted or not.
fn with_hashes(setup: &mut Setup) {
    let firmware = setup.image().join("firmware-snp.fd");
    let parsed = fs::read(&firmware).unwrap();
    let area = measure::firmware::Firmware::parse(&parsed).unwrap().hash_table_area().unwrap().unwrap();
    let hash = |name: &str| Digest256::of(&fs::read(setup.image().join(name)).unwrap());
    let (kernel, initrd) = (hash("vmlinuz"), hash("initrd"));
    let hashes = KernelHashes::new(kernel, Some(initrd), setup.value("-append", "").as_bytes()).unwrap();
    let table = setup.file("hashes", &hashes.table());
    setup.add("-bios", &firmware.display().to_string());
    setup.add("-device", &format!("loader,file={},addr={:#x},force-raw=on", table.display(), area.base));
}
