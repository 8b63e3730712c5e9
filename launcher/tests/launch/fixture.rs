//! An image directory, pins and directories made up for a test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use launcher::launch::{Later, Refusal};
use launcher::plan::Simulation;
use launcher::{Directories, HostFacts, Image, LaunchError, Options, Progress, QemuProgram, Report, Request, launch};
use serde_json::json;
use sign::{Algorithm, PrivateKey, Seen, Trust, VerifiedRelease, Wanted, sign_release, verify_release};
use spec::manifest::{Class, artifact};
use spec::pins::{Firmware, MemoryAcceptance, Pins, Platform, SecureBoot};
use spec::release::Release;
use spec::time::Timestamp;
use spec::vm::Vm;
use spec::{Sha256Digest, Tee};
use tempfile::TempDir;

pub(crate) const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 bullion.blocks=1";

/// Everything one launch needs, in a directory of its own.
pub(crate) struct Fixture {
    pub(crate) root: PathBuf,
    /// Removes the directory at the end; none for one that another process made.
    _owner: Option<TempDir>,
    pub(crate) vm: Vm,
    pub(crate) options: Options,
    pub(crate) pins: Pins,
    later: FoundOut,
}

/// What a test finds out while QEMU is started, where its options say so.
#[derive(Clone, Debug)]
pub(crate) struct FoundOut(Result<(String, String), Refusal>);

impl Later for FoundOut {
    fn find_out(&self) -> Result<(String, String), Refusal> {
        self.0.clone()
    }
}

/// When it is known what the TEE should measure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    /// Before the launch.
    Before,
    /// While QEMU is started.
    Later,
}

/// The text of a VM description for `tee`.
pub(crate) fn vm(tee: &str, more: &str) -> Vm {
    let text = format!(
        "schema = 1\nname = \"vm\"\nimage = \"image\"\ntee = \"{tee}\"\nvcpus = 2\nmemory = \"512MiB\"\n\
         [guest]\nhostname = \"minimal\"\n[host]\n{more}"
    );
    Vm::parse("vm.toml", &text).unwrap()
}

pub(crate) fn artifacts() -> BTreeMap<&'static str, Vec<u8>> {
    BTreeMap::from([
        (artifact::KERNEL, b"kernel".to_vec()),
        (artifact::INITRD, b"initrd".to_vec()),
        (artifact::ROOTFS, vec![7; 1 << 20]),
        (artifact::COMMAND_LINE, COMMAND_LINE.as_bytes().to_vec()),
        (artifact::FIRMWARE_SNP, b"snp firmware".to_vec()),
        (artifact::FIRMWARE_TDX, b"tdx firmware".to_vec()),
    ])
}

pub(crate) const ROOT_HASH: [u8; 32] = [0xab; 32];

/// Writes an image directory with these artifacts.
pub(crate) fn write_image(directory: &Path, artifacts: &BTreeMap<&'static str, Vec<u8>>, command_line: &str) {
    fs::create_dir_all(directory).unwrap();
    let entries: BTreeMap<_, _> = artifacts
        .iter()
        .map(|(name, content)| {
            fs::write(directory.join(name), content).unwrap();
            (name, json!({"size": content.len(), "sha256": Sha256Digest::of(content).to_string()}))
        })
        .collect();
    let digest = "00".repeat(32);
    let manifest = json!({
        "schema": 1, "name": "minimal", "class": "dev", "standing": "published", "format_epoch": 1,
        "artifacts": entries,
        "verity": {"algorithm": "sha256", "block_size": 4096, "data_blocks": 1, "hash_offset": 4096, "salt": "", "root_hash": Sha256Digest(ROOT_HASH).to_string()},
        "kernel_version": "7.3.4", "command_line": command_line,
        "recipe": {"name": "minimal", "kind": "tree", "architecture": "amd64", "suites": {}, "packages": [], "dependencies": false, "assume": []},
        "lock_sha256": digest, "inputs": [],
        "guest": {"sha256": digest, "size": 1, "origin": "host"},
        "references": {}
    });
    fs::write(directory.join("manifest.json"), manifest.to_string()).unwrap();
}

fn pin(name: &str, content: &[u8], tee: Tee, platform: Platform) -> Firmware {
    Firmware {
        name: name.to_owned(),
        sha256: Sha256Digest::of(content),
        package: "ovmf".to_owned(),
        path: "/f".to_owned(),
        edk2: "202608".to_owned(),
        platform,
        enforces_kernel_hashes: tee == Tee::Snp,
        secure_boot: SecureBoot::Absent,
        vmm_in_trust_boundary: false,
        tees: vec![tee],
        memory_acceptance: Some(MemoryAcceptance::Lazy),
        snp: None,
        tdx: None,
        bios: None,
        events_judged_by: vec![],
    }
}

impl Fixture {
    pub(crate) fn new(tee: &str, more: &str) -> Self {
        let owner = tempfile::tempdir().unwrap();
        write_image(&owner.path().join("image"), &artifacts(), COMMAND_LINE);
        let fixture = Self::at(owner.path(), tee, more);
        Self { _owner: Some(owner), ..fixture }
    }

    /// One whose image is there already.
    pub(crate) fn at(root: &Path, tee: &str, more: &str) -> Self {
        let firmware = vec![
            pin("amdsev", b"snp firmware", Tee::Snp, Platform::AmdSevX64),
            pin("inteltdx", b"tdx firmware", Tee::Tdx, Platform::IntelTdxX64),
        ];
        Self {
            root: root.to_owned(),
            _owner: None,
            vm: vm(tee, more),
            options: Options { dangerously_allow_unsigned: true, ..Options::default() },
            pins: Pins { schema: 1, firmware },
            later: FoundOut(Ok((String::new(), String::new()))),
        }
    }

    /// Has this register compared with this value.
    pub(crate) fn expect(&mut self, register: &str, value: &str, known: Known) {
        let expected = (register.to_owned(), value.to_owned());
        match known {
            Known::Before => self.options.expected_measurements = vec![expected],
            Known::Later => self.find_out_later(Ok(expected)),
        }
    }

    /// Has this found out while QEMU is started.
    pub(crate) fn find_out_later(&mut self, found: Result<(String, String), Refusal>) {
        self.options.more_is_expected = true;
        self.later = FoundOut(found);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn image(&self) -> Image {
        Image::open(&self.path("image")).unwrap()
    }

    /// Changes the manifest's text.
    pub(crate) fn rewrite_manifest(&self, change: impl Fn(&str) -> String) {
        let path = self.path("image/manifest.json");
        fs::write(&path, change(&fs::read_to_string(&path).unwrap())).unwrap();
    }

    /// The image's release, number 4, signed and accepted.
    pub(crate) fn release(&self) -> VerifiedRelease {
        let (image, key) = (self.image(), PrivateKey::generate(Algorithm::Ed25519).unwrap());
        let release = Release {
            name: "minimal".to_owned(),
            class: Class::Dev,
            sequence: 4,
            expires: "2027-01-01T00:00:00Z".parse().unwrap(),
            guest_svn: 0,
        };
        let statement = sign_release(&image.manifest, image.manifest_sha256, release, &key).unwrap();
        fs::write(image.directory.join("release.dsse.json"), statement).unwrap();
        fs::write(self.path("key.pub"), key.public().to_pem().unwrap()).unwrap();
        let (mut trust, seen) = (Trust::default(), Seen::in_directory(&self.path("seen")));
        trust.add(&self.path("key.pub")).unwrap();
        let now = "2026-12-31T00:00:00Z".parse().unwrap();
        verify_release(&image, &Wanted { trust: &trust, now, allow_dev: true, seen: &seen }).unwrap()
    }

    pub(crate) fn directories(&self) -> Directories {
        Directories { run: self.path("run"), state: self.path("state") }
    }

    pub(crate) fn simulate(&mut self) {
        self.options.simulate =
            Some(Simulation { preload: PathBuf::from("/simulator.so"), keep_running: false, placement: None });
    }

    /// Launches and collects what was told meanwhile.
    pub(crate) fn launch(&self, program: &QemuProgram) -> (Result<Report, LaunchError>, Vec<String>) {
        self.launch_release(program, None, || None)
    }

    /// The same of an accepted release, by this clock.
    pub(crate) fn launch_release(
        &self,
        program: &QemuProgram,
        release: Option<&VerifiedRelease>,
        clock: fn() -> Option<Timestamp>,
    ) -> (Result<Report, LaunchError>, Vec<String>) {
        let (image, directories, cache) = (self.image(), self.directories(), self.path("cache"));
        let request = Request {
            vm: &self.vm,
            image: &image,
            release,
            pins: &self.pins,
            program,
            options: &self.options,
            cache: &cache,
            directories: &directories,
            clock,
            later: &self.later,
        };
        let mut told = Vec::new();
        let facts = HostFacts::probe();
        let report = launch(&request, facts, None, &mut |progress: Progress<'_>| told.push(format!("{progress:?}")));
        (report, told)
    }
}
