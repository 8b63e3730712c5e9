//! Plans as text. QEMU's argument list is our real output: every change of it shows here.
//! `BULLION_BLESS=1` writes the texts anew.

use std::fs;
use std::path::{Path, PathBuf};

use launcher::host::{HostFacts, KvmAccess};
use launcher::plan::{Inputs, Simulation, plan};
use launcher::qemu::Features;
use launcher::verdict::Verdict;
use launcher::{Image, Options, Plan, PlanError, QemuProgram};
use spec::manifest::artifact;
use spec::pins::Pins;
use spec::vm::Boot;

use crate::fixture::Fixture;

/// A server with both TEEs, which no machine is: its facts serve every plan.
pub(crate) fn server() -> HostFacts {
    HostFacts {
        kvm: KvmAccess::Usable { vm_types: 0x3f },
        c_bit_position: 51,
        physical_address_bits: 52,
        kernel_release: "7.3.4".to_owned(),
        boot_id: "boot".to_owned(),
        ..HostFacts::default()
    }
}

pub(crate) fn features() -> Features {
    let types = [
        "kvm-accel",
        "tcg-accel",
        "virtio-blk-pci",
        "virtio-serial-pci",
        "virtserialport",
        "pc-q35-10.1-machine",
        "sev-snp-guest",
        "tdx-guest",
        "memory-backend-memfd",
        "max-x86_64-cpu",
        "host-x86_64-cpu",
        "EPYC-v4-x86_64-cpu",
        "virtio-net-pci",
        "pcie-root-port",
        "vfio-pci",
        "iommufd",
        "vhost-vsock-pci",
        "i6300esb",
        "pvpanic-pci",
    ];
    Features::assumed([11, 1, 3], types.map(str::to_owned))
}

/// A tree of packages at a path that is the same everywhere.
fn program(root: &Path) -> QemuProgram {
    for file in [
        "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        "usr/bin/qemu-system-x86_64",
        "usr/bin/passt",
        "usr/share/qemu/x",
        "usr/share/seabios/x",
    ] {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    QemuProgram::from_tree(root).unwrap()
}

pub(crate) struct Situation {
    pub(crate) fixture: Fixture,
    pub(crate) facts: HostFacts,
    pub(crate) features: Features,
    pub(crate) verdict: Option<Verdict>,
}

impl Situation {
    pub(crate) fn new(tee: &str, more: &str) -> Self {
        Self { fixture: Fixture::new(tee, more), facts: server(), features: features(), verdict: None }
    }

    pub(crate) fn plan(&self) -> Result<Plan, PlanError> {
        self.plan_of(None)
    }

    pub(crate) fn plan_of(&self, release: Option<&sign::VerifiedRelease>) -> Result<Plan, PlanError> {
        let (image, options, pins): (Image, &Options, &Pins) =
            (self.fixture.image(), &self.fixture.options, &self.fixture.pins);
        let program = program(&self.fixture.path("tree"));
        plan(&Inputs {
            vm: &self.fixture.vm,
            image: &image,
            release,
            pins,
            facts: &self.facts,
            program: &program,
            features: &self.features,
            verdict: self.verdict,
            report: Path::new("/state/vm/simulation.json"),
            options,
        })
    }

    pub(crate) fn text(&self) -> String {
        self.plan().unwrap().to_string().replace(self.fixture.root.to_str().unwrap(), "")
    }
}

/// A situation in which `register` is predicted.
fn predicted(tee: &str, more: &str, register: &str) -> Situation {
    let mut situation = Situation::new(tee, more);
    situation.fixture.options.expected_measurements = vec![(register.to_owned(), "5e".repeat(48))];
    situation
}

pub(crate) fn agrees(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/launch/golden").join(format!("{name}.txt"));
    agrees_at(&path, found);
}

pub(crate) fn agrees_at(path: &Path, found: &str) {
    if std::env::var_os("BULLION_BLESS").is_some() {
        fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(found == expected, "{} differs.\n--- expected\n{expected}\n--- found\n{found}", path.display());
}

#[test]
fn plain_guest_with_kvm() {
    agrees("none-kvm", &Situation::new("none", "").text());
}

#[test]
fn plain_guest_where_kvm_has_failed_before() {
    let mut situation = Situation::new("none", "");
    situation.verdict = Some(Verdict::Stops);
    agrees("none-tcg", &situation.text());
}

#[test]
fn snp_guest_with_volumes() {
    let volumes = "[[host.volume]]\nname = \"tmp\"\npath = \"/dev/disk/by-id/nvme-x\"\n\
        [[host.volume]]\nname = \"app\"\npath = \"/images/app.tar\"\n\
        [[guest.volume]]\nname = \"app\"\nuse = \"archive\"\nsize_bytes = 3\n\
        sha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\n\
        [[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n";
    agrees("snp-volumes", &predicted("snp", volumes, "MEASUREMENT").text());
}

#[test]
fn snp_guest() {
    agrees("snp", &predicted("snp", "", "MEASUREMENT").text());
}

#[test]
fn tdx_guest() {
    agrees("tdx", &predicted("tdx", "ready_timeout_s = 600", "MRTD").text());
}

#[test]
fn simulated_snp_guest_with_firmware_that_is_not_pinned() {
    let mut situation = Situation::new("snp", "");
    situation.facts = HostFacts { kvm: KvmAccess::Usable { vm_types: 1 }, c_bit_position: 0, ..server() };
    situation.fixture.pins.firmware.clear();
    let preload = PathBuf::from("/simulator.so");
    situation.fixture.options.simulate = Some(Simulation { preload, keep_running: true, placement: None });
    agrees("snp-simulated", &situation.text());
}

/// A guest that firmware starts from the image's disk.
fn from_disk(tee: &str) -> Situation {
    let mut situation = Situation::new(tee, "");
    situation.fixture.vm.boot = Boot::Disk;
    let mut artifacts = crate::fixture::artifacts();
    artifacts.insert(artifact::DISK, vec![9; 1 << 20]);
    let image = situation.fixture.path("image");
    crate::fixture::write_image(&image, &artifacts, crate::fixture::COMMAND_LINE);
    situation
}

#[test]
fn guests_from_a_disk() {
    for (tee, confidential) in [("none", false), ("tdx", true)] {
        let text = from_disk(tee).text();
        let device = text.lines().find(|line| line.contains("bootindex=0")).unwrap();
        assert!(device.contains("drive=image,bootindex=0,bus=pcie.0,addr=0x2"), "{text}");
        assert!(text.contains("-bios /proc/self/fd/10") && text.contains("descriptor   9 disk.raw"), "{text}");
        assert!(text.contains("descriptor   10 firmware-tdx.fd"), "{text}");
        assert_eq!(text.contains("tdx-guest,"), confidential);
        for gone in ["-kernel", "-append", "vmlinuz", "serial=bullion-root"] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
    }
    let mut without = Situation::new("tdx", "");
    without.fixture.vm.boot = Boot::Disk;
    assert!(without.plan().unwrap_err().to_string().contains("disk.raw"));
}

/// A situation on a host of the shelf.
pub(crate) fn on(host: &str, tee: &str, more: &str) -> Situation {
    let root = tempfile::tempdir().unwrap();
    Situation { facts: crate::hosts::facts(host, root.path()), ..Situation::new(tee, more) }
}

const GPU: &str = "pci = [{ address = \"0000:c1:00.0\" }]\n";

/// Two volumes, one of them on a drive that is passed whole; `words` are more of its `[[host.pci]]`.
pub(crate) fn with_drive(address: &str, words: &str) -> String {
    format!(
        "pci = [{{ address = \"{address}\", volume = \"fast\"{words} }}]\n\
         [[host.volume]]\nname = \"tmp\"\npath = \"/dev/disk/by-id/nvme-x\"\n\
         [[guest.volume]]\nname = \"fast\"\nuse = \"scratch\"\non = \"nvme\"\nmount = \"/var/lib/containers\"\n\
         [[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/more\"\n"
    )
}

#[test]
fn snp_guest_with_a_volume_on_a_drive() {
    let mut situation = on("genoa", "snp", &with_drive("0000:41:00.0", ""));
    let drive = situation.facts.devices.iter_mut().find(|device| device.address == "0000:41:00.0").unwrap();
    (drive.driver, drive.cdev) = (Some("vfio-pci".to_owned()), Some("vfio3".to_owned()));
    let text = situation.text();
    // The volume behind it keeps the place that it has without the drive.
    assert!(text.contains("serial=vol-tmp,bus=pcie.0,addr=0x10"), "{text}");
    assert!(!text.contains("vol-fast"), "{text}");
    agrees("snp-drive", &text);
}

#[test]
fn snp_guest_with_a_gpu_and_a_network() {
    let nic = "nic = [{ forward = [{ host = 8443, guest = 443 }] }, { no_outbound = true }]\n";
    agrees("snp-gpu", &on("genoa", "snp", &format!("{GPU}{nic}")).text());
}

#[test]
fn tdx_guest_with_a_gpu_on_one_node() {
    agrees("tdx-gpu", &on("emerald-rapids", "tdx", &format!("{GPU}numa_node = 1\n")).text());
}

#[test]
fn snp_guest_with_nodes() {
    agrees("snp-nodes", &on("genoa", "snp", "numa_nodes = [0, 1]\n").text());
}

#[test]
fn plain_guest_with_huge_pages_and_a_drive_by_its_group() {
    let more = "pci = [{ address = \"0000:c1:00.0\" }]\nhuge_pages = \"2MiB\"\nnuma_node = 0\n";
    agrees("none-huge", &on("debian-kernel-vfio", "none", more).text());
}

/// A guest with a watchdog and pvpanic.
pub(crate) fn with_signs(tee: &str) -> Situation {
    let mut situation = Situation::new(tee, "[guest.watchdog]\ntimeout_s = 30\n");
    situation.fixture.vm.guest.pvpanic = true;
    situation
}

#[test]
fn guests_with_a_watchdog_and_pvpanic() {
    for tee in ["none", "snp", "tdx"] {
        agrees(&format!("{tee}-signs"), &with_signs(tee).text());
        let (bare, with) = (Situation::new(tee, "").plan().unwrap().argv, with_signs(tee).plan().unwrap().argv);
        let configured = |word: &String| !word.contains("host-data=") && !word.contains("mrconfigid");
        let [bare, with] = [bare, with].map(|argv| {
            let words = argv.iter().skip_while(|word| *word != "-name").filter(|word| configured(word));
            words.cloned().collect::<Vec<_>>()
        });
        assert_eq!(with[..bare.len()], bare, "{tee}: what is new comes last");
    }
}

#[test]
fn what_a_vm_asks_for_moves_nothing_that_others_have() {
    for tee in ["none", "snp", "tdx"] {
        let host = if tee == "tdx" { "emerald-rapids" } else { "genoa" };
        let bare = on(host, tee, "").plan().unwrap().argv;
        let full = on(host, tee, &format!("{GPU}nic = [{{}}]\n")).plan().unwrap().argv;
        let program = full.iter().position(|word| word == "-name").unwrap();
        let start = bare.iter().position(|word| word == "-name").unwrap();
        assert_eq!(full[program..][..bare.len() - start], bare[start..], "{tee}: what is new comes last");
    }
}

#[test]
fn what_is_launched_is_what_was_described() {
    // The same words reach QEMU whatever the order of keys or the place of the image: only the shape decides.
    let snp = Situation::new("snp", "").plan().unwrap();
    let measure::shape::TeeShape::Snp(shape) = &snp.shape.tee else { panic!("{:?}", snp.shape) };
    assert_eq!(shape.host_data, Situation::new("snp", "").fixture.vm.guest.host_data().unwrap().0);
    assert!(snp.argv.iter().any(|word| word.contains("policy=0x30000") && word.contains("kernel-hashes=on")));
}
