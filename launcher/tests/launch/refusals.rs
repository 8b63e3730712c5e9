//! What is not launched, and what is said instead: message, exit code and hint.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use launcher::host::{KvmAccess, PciFunction};
use launcher::qemu::Features;
use launcher::{Image, PlanError};
use spec::component::{Component, ComponentInputs};
use spec::manifest::{AcpiAdmission, Artifact, Class, GUEST_FROM_COMPONENT, Manifest, RELEASE_WORD, artifact};
use spec::pins::{MemoryAcceptance, SecureBoot};
use spec::recipe::{GUEST_OUTPUT, kernel_output};
use spec::vm::PciDevice;
use spec::{Diagnostic, Outcome, Sha256Digest};

use crate::fixture::{COMMAND_LINE, Fixture, artifacts, write_image};
use crate::golden::{Situation, features};
use store::{VerifyError, verify};

fn refusal(situation: &Situation) -> PlanError {
    let error = situation.plan().unwrap_err();
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    error
}

#[test]
fn firmware_that_does_not_hold_what_is_measured() {
    let mut situation = Situation::new("snp", "");
    situation.fixture.pins.firmware[0].enforces_kernel_hashes = false;
    let error = refusal(&situation);
    assert_eq!(error.outcome(), Outcome::Refused);
    assert!(error.to_string().contains("does not enforce"), "{error}");

    let mut situation = Situation::new("tdx", "");
    situation.fixture.pins.firmware[1].secure_boot = SecureBoot::Enrolled;
    assert!(refusal(&situation).to_string().contains("Secure Boot"));

    let mut situation = Situation::new("snp", "");
    situation.fixture.pins.firmware.clear();
    let error = refusal(&situation);
    assert_eq!(error.outcome(), Outcome::Refused);
    assert!(error.hint().unwrap().contains("--simulate"));
    situation.facts.kvm = KvmAccess::Usable { vm_types: 1 };
    situation.fixture.simulate();
    let plan = situation.plan().unwrap();
    assert!(plan.to_string().contains("SIMULATED") && plan.notes[0].contains("would be refused"), "{plan}");
}

#[test]
fn firmware_that_accepts_all_of_a_large_guests_memory() {
    let mut situation = Situation::new("tdx", "");
    situation.fixture.pins.firmware[1].memory_acceptance = Some(MemoryAcceptance::Eager);
    assert!(situation.plan().is_ok(), "a small guest is started");
    situation.fixture.vm.memory = "128GiB".parse().unwrap();
    let error = refusal(&situation);
    assert_eq!(error.outcome(), Outcome::Refused);
    assert!(error.to_string().contains("all of the guest's 128GiB"), "{error}");
    situation.fixture.pins.firmware[1].memory_acceptance = Some(MemoryAcceptance::Lazy);
    assert!(situation.plan().is_ok());
}

#[test]
fn a_host_without_the_tee() {
    for tee in ["snp", "tdx"] {
        let mut situation = Situation::new(tee, "");
        situation.facts.kvm = KvmAccess::Usable { vm_types: 1 };
        let error = refusal(&situation);
        assert_eq!(error.outcome(), Outcome::HostCannot);
        assert!(error.hint().unwrap().contains("--simulate"), "{error}");
        situation.facts.kvm = KvmAccess::Unusable { reason: "there is no /dev/kvm".to_owned() };
        assert_eq!(refusal(&situation).to_string().matches("there is no /dev/kvm").count(), 1);
        situation.fixture.simulate();
        assert_eq!(refusal(&situation).outcome(), Outcome::HostCannot);
    }
}

#[test]
fn accelerators() {
    let unusable = || KvmAccess::Unusable { reason: "there is no /dev/kvm".to_owned() };
    let mut situation = Situation::new("none", "");
    situation.facts.kvm = unusable();
    assert!(situation.plan().unwrap().argv.iter().any(|word| word == "tcg,thread=multi"));
    let mut situation = Situation::new("none", "accelerator = \"kvm\"");
    situation.facts.kvm = unusable();
    assert_eq!(refusal(&situation).outcome(), Outcome::HostCannot);
    let situation = Situation::new("none", "accelerator = \"tcg\"");
    assert_eq!(situation.plan().unwrap().notes, Vec::<String>::new());
}

#[test]
fn a_qemu_that_cannot() {
    let mut situation = Situation::new("none", "");
    situation.features = Features::assumed([10, 0, 8], features().types);
    assert_eq!(refusal(&situation).to_string(), "QEMU 10.0.8 is too old: 10.1.0 or later is needed");
    let mut situation = Situation::new("tdx", "");
    situation.features.types.remove("tdx-guest");
    let error = refusal(&situation);
    assert_eq!((error.to_string().as_str(), error.outcome()), ("QEMU 11.1.3 has no tdx-guest", Outcome::HostCannot));
    let mut situation = Situation::new("none", "");
    situation.fixture.vm.cpu = Some("Pentium-9".to_owned());
    assert_eq!(refusal(&situation).outcome(), Outcome::Usage);
}

#[test]
fn contradictions() {
    let mut situation = Situation::new("none", "");
    situation.fixture.simulate();
    assert_eq!(refusal(&situation).outcome(), Outcome::Usage);
    let mut situation = Situation::new("snp", "");
    situation.fixture.options.dangerously_skip_artifact_verification = true;
    assert_eq!(refusal(&situation).outcome(), Outcome::Refused);
    let situation = Situation::new("snp", "");
    let mut without = artifacts();
    without.remove("firmware-snp.fd");
    write_image(&situation.fixture.path("image"), &without, COMMAND_LINE);
    assert_eq!(refusal(&situation).outcome(), Outcome::InputMismatch);
    let situation = Situation::new("none", "");
    without.remove("initrd");
    write_image(&situation.fixture.path("image"), &without, COMMAND_LINE);
    assert_eq!(refusal(&situation).to_string(), "image minimal has no artifact \"initrd\"");
}

#[test]
fn images_that_are_less_than_they_could_be() {
    let notes = |tee: &str, changes: &[(&str, &str)]| {
        let situation = Situation::new(tee, "");
        let path = situation.fixture.path("image/manifest.json");
        let text = changes.iter().fold(fs::read_to_string(&path).unwrap(), |text, (old, new)| text.replace(old, new));
        fs::write(&path, text).unwrap();
        situation.plan().unwrap().notes
    };
    let (dev, unpublished) = ("the image is of class dev", "the image is UNPUBLISHED");
    let has = |notes: &[String], what| notes.iter().any(|note| note.contains(what));
    assert!(has(&notes("snp", &[]), dev) && has(&notes("tdx", &[]), dev) && !has(&notes("none", &[]), dev));
    let situation = Situation::new("snp", "");
    make_release(&situation.fixture.path("image/manifest.json"));
    assert!(!has(&situation.plan().unwrap().notes, dev));
    let change = [("\"published\"", "\"unpublished\"")];
    for tee in ["none", "snp", "tdx"] {
        assert!(has(&notes(tee, &change), unpublished) && !has(&notes(tee, &[]), unpublished));
    }
}

/// Rewrites a manifest as one of class release, with components behind guest binary and kernel.
fn make_release(path: &Path) {
    let mut manifest = Manifest::parse("manifest.json", &fs::read(path).unwrap()).unwrap();
    let guest = Artifact { size: manifest.guest.size, sha256: manifest.guest.sha256 };
    let kernel = manifest.artifacts[artifact::KERNEL].clone();
    for (name, output, made) in [("guest", GUEST_OUTPUT, guest), ("kernel", kernel_output::KERNEL, kernel)] {
        let inputs = ComponentInputs {
            name: name.to_owned(),
            sandbox: 1,
            script: "true".to_owned(),
            outputs: vec![output.to_owned()],
            packages: Vec::new(),
            crates: Vec::new(),
            sources: Vec::new(),
            files: BTreeMap::new(),
        };
        manifest.components.push(Component {
            key: inputs.key().unwrap(),
            lock_sha256: manifest.lock_sha256,
            standing: manifest.standing,
            inputs,
            outputs: BTreeMap::from([(output.to_owned(), made)]),
        });
    }
    let (qemu_version, qemu_lock_sha256) = ("11.1.0".to_owned(), Sha256Digest([8; 32]));
    let admitted = AcpiAdmission { qemu_version, qemu_lock_sha256, digests: vec![Sha256Digest([9; 32])] };
    manifest.command_line = format!("{} {} {RELEASE_WORD}", manifest.command_line, admitted.word());
    let line = manifest.command_line.as_bytes();
    let written = Artifact { size: line.len() as u64, sha256: Sha256Digest::of(line) };
    fs::write(path.with_file_name(artifact::COMMAND_LINE), line).unwrap();
    manifest.artifacts.insert(artifact::COMMAND_LINE.to_owned(), written);
    manifest.acpi = Some(admitted);
    manifest.guest.origin = GUEST_FROM_COMPONENT.to_owned();
    manifest.class = Class::Release;
    fs::write(path, manifest.to_bytes().unwrap()).unwrap();
}

fn verified(fixture: &Fixture) -> Result<usize, VerifyError> {
    let image = fixture.image();
    verify(&image.directory, &image.manifest).map(|open| open.len())
}

#[test]
fn an_image_that_is_not_what_its_manifest_says() {
    let fixture = Fixture::new("none", "");
    assert_eq!(verified(&fixture).unwrap(), 6);

    let rootfs = fixture.path("image/rootfs");
    let mut bytes = fs::read(&rootfs).unwrap();
    bytes[777_777] ^= 1;
    fs::write(&rootfs, &bytes).unwrap();
    let error = verified(&fixture).unwrap_err();
    assert_eq!(error.outcome(), Outcome::InputMismatch);
    // sha256sum of a MiB of 0x07 is what the manifest has.
    let expected = "expected SHA-256 51b12eb838732b786b4d45c660a974ddf3860ae09084fd293fa6e5df46581a6c";
    let text = error.to_string();
    assert!(text.contains("/image/rootfs") && text.contains(expected) && text.contains("found "), "{text}");

    fs::write(&rootfs, &bytes[1..]).unwrap();
    assert!(verified(&fixture).unwrap_err().to_string().contains("expected 1048576 bytes, found 1048575"));
    fs::remove_file(&rootfs).unwrap();
    assert!(matches!(verified(&fixture), Err(VerifyError::Unreadable { .. })));
    nix::unistd::mkfifo(&rootfs, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(verified(&fixture), Err(VerifyError::NotAFile { .. })));

    let fixture = Fixture::new("none", "");
    write_image(&fixture.path("image"), &artifacts(), "another command line");
    let error = Image::open(&fixture.path("image")).unwrap_err();
    assert!(error.to_string().contains("corrupt") && error.outcome() == Outcome::InputMismatch, "{error}");
}

#[test]
fn a_manifest_that_is_missing_or_corrupt() {
    let fixture = Fixture::new("none", "");
    let path = fixture.path("image/manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let error = Image::open(&fixture.path("image")).unwrap_err();
    assert_eq!(error.outcome(), Outcome::InputMismatch);
    assert!(error.to_string().contains("corrupt"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = Image::open(&fixture.path("image")).unwrap_err();
    assert!(error.to_string().contains("manifest.json") && error.hint().unwrap().contains("bullion build"));
    assert!(error.hint().unwrap().contains("`--image DIRECTORY`"), "{error}");
}

#[test]
fn an_image_that_is_not_a_signed_release_does_not_start_in_a_tee() {
    for tee in ["snp", "tdx"] {
        let mut situation = Situation::new(tee, "");
        situation.fixture.options.dangerously_allow_unsigned = false;
        let error = refusal(&situation);
        assert!(matches!(error, PlanError::Unsigned { .. }), "{error}");
        assert_eq!(error.outcome(), Outcome::SignatureInvalid);
        let release = situation.fixture.release();
        let plan = situation.plan_of(Some(&release)).unwrap();
        assert!(plan.notes.iter().any(|note| note.starts_with("release 4 of minimal, signed by ")), "{:?}", plan.notes);
        // The release of what the image was before it was changed.
        situation.fixture.rewrite_manifest(|text| text.replace("7.3.4", "7.3.5"));
        assert!(matches!(situation.plan_of(Some(&release)), Err(PlanError::Unsigned { .. })));
        situation.fixture.simulate();
        situation.plan().unwrap();
    }
    let mut situation = Situation::new("none", "");
    situation.fixture.options.dangerously_allow_unsigned = false;
    situation.plan().unwrap();
}

/// What is said about a VM on a host of the shelf.
fn said(host: &str, tee: &str, more: &str) -> String {
    let error = refusal(&crate::golden::on(host, tee, more));
    assert_eq!(error.outcome(), Outcome::HostCannot);
    format!("{error}; {}", error.hint().unwrap())
}

#[test]
fn devices_that_cannot_be_passed() {
    let gpu = "pci = [{ address = \"0000:c1:00.0\" }]";
    let drive = "pci = [{ address = \"0000:42:00.0\" }]";
    let has =
        |said: String, words: &[&str]| words.iter().for_each(|word| assert!(said.contains(word), "{word}: {said}"));
    has(said("genoa", "snp", "pci = [{ address = \"0000:99:00.0\" }]"), &["no PCI function 0000:99:00.0", "lspci"]);
    has(said("genoa", "snp", "pci = [{ address = \"0000:00:01.0\" }]"), &["bridge"]);
    has(said("genoa", "none", drive), &["shares IOMMU group 31 with 0000:43:00.0, which nvme drives"]);
    has(said("genoa", "none", "pci = [{ address = \"0000:41:00.0\" }]"), &["driven by nvme", "bullion host prepare"]);
    has(said("shared-group", "snp", gpu), &["group 21 with 0000:41:00.0"]);
    has(said("debian-kernel-vfio", "snp", gpu), &["no character device"]);
    has(said("genoa-small-rmp", "snp", gpu), &["no permission to open /dev/iommu"]);
    assert!(crate::golden::on("genoa", "snp", gpu).plan().is_ok());
    assert!(crate::golden::on("debian-kernel-vfio", "none", gpu).plan().is_ok());
    let mut situation = crate::golden::on("genoa", "snp", gpu);
    situation.facts.devices.iter_mut().for_each(|device| device.prefetchable_bars = vec![16 << 20, 512 << 30]);
    has(refusal(&situation).to_string(), &["514 GiB of room", "40 address bits"]);
    // Classes are compared whole: an NVSwitch is of the bridges' class, and no bridge.
    situation.facts.devices.iter_mut().for_each(|device| device.class = 0x06_8000);
    assert!(!refusal(&situation).to_string().contains("a bridge"));
}

#[test]
fn drives_that_no_volume_can_be_on() {
    let driven = |change: &dyn Fn(&mut PciFunction), address: &str, words: &str| {
        let mut situation = crate::golden::on("genoa", "none", &crate::golden::with_drive(address, words));
        let drive = situation.facts.devices.iter_mut().find(|device| device.address == address).unwrap();
        drive.driver = Some("vfio-pci".to_owned());
        change(drive);
        situation
    };
    let said = |situation: &Situation| {
        let error = refusal(situation);
        assert_eq!(error.outcome(), Outcome::HostCannot);
        format!("{error}; {}", error.hint().unwrap())
    };
    let has =
        |said: String, words: &[&str]| words.iter().for_each(|word| assert!(said.contains(word), "{word}: {said}"));
    has(said(&driven(&|_| {}, "0000:c1:00.0", "")), &["0000:c1:00.0 [10de:2330] is no NVMe controller (class 030200)"]);
    let holds = |drive: &mut PciFunction| drive.labels = vec!["nvme0n1 holds an XFS file system".to_owned()];
    has(
        said(&driven(&holds, "0000:41:00.0", "")),
        &["nvme0n1 holds an XFS", "scratch would destroy it", "dangerously_overwrite"],
    );
    driven(&holds, "0000:41:00.0", ", dangerously_overwrite = true").plan().unwrap();
    // The guest would count a second one.
    let mut two = driven(&|_| {}, "0000:41:00.0", "");
    two.fixture.vm.host.pci.push(PciDevice::at("0000:45:00.0"));
    let mut other = two.facts.device("0000:41:00.0").unwrap().clone();
    (other.address, other.group) = ("0000:45:00.0".to_owned(), Some(45));
    two.facts.devices.push(other);
    has(said(&two), &["0000:45:00.0 [144d:a824] is an NVMe controller that no volume is on"]);
}

#[test]
fn gpus_that_do_not_go_together() {
    let more = "pci = [{ address = \"0000:c1:00.0\" }, { address = \"0000:c2:00.0\" }]";
    let two = |id: &str| {
        let mut situation = crate::golden::on("genoa", "snp", more);
        let first = situation.facts.device("0000:c1:00.0").unwrap().clone();
        situation.facts.devices.retain(|device| device.address != "0000:c2:00.0");
        let second = PciFunction { address: "0000:c2:00.0".to_owned(), id: id.to_owned(), ..first };
        situation.facts.devices.push(second);
        situation
    };
    let error = refusal(&two("10de:2330"));
    assert!(
        error.to_string().contains("2 H100 SXM") && error.to_string().contains("a guest has 1 Hopper GPU"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("all eight GPUs and four NVSwitches"), "{error}");
    assert!(refusal(&two("10de:2901")).to_string().contains("Blackwell and Hopper"));
    assert!(refusal(&two("10de:20b0")).to_string().contains("not known to have a confidential mode"));
    let mut said = crate::golden::on("genoa", "snp", "pci = [{ address = \"0000:c1:00.0\" }]");
    said.fixture.vm.guest.gpus = Some(spec::gpus::Gpus { count: 2, ..Default::default() });
    assert!(refusal(&said).to_string().contains("the measured configuration says 2 GPUs"));
}

#[test]
fn memory_that_is_not_where_it_is_asked_for() {
    assert!(said("genoa", "snp", "numa_node = 5").contains("there is no NUMA node 5"));
    let huge = said("genoa", "none", "huge_pages = \"2MiB\"\nnuma_node = 1");
    assert!(huge.contains("the VM needs 256") && huge.contains("node1/hugepages/hugepages-2048kB"), "{huge}");
    let halves = said("genoa", "snp", "huge_pages = \"2MiB\"\nnuma_nodes = [0, 1]");
    assert!(halves.contains("are free on node 1") && halves.contains("the VM needs 128"), "{halves}");
    assert!(crate::golden::on("genoa", "none", "huge_pages = \"2MiB\"\nnuma_node = 0").plan().is_ok());
    let mut situation = crate::golden::on("genoa", "none", "numa_node = 1");
    situation.facts.memory.nodes.get_mut(&1).unwrap().available_mib = 100;
    assert!(refusal(&situation).to_string().contains("from there alone"));
}

#[test]
fn a_policy_that_weakens_the_guest_is_told() {
    let mut situation = Situation::new("snp", "");
    assert!(situation.plan().unwrap().notes.iter().all(|note| !note.contains("DEBUG")));
    situation.fixture.vm.snp = Some(spec::vm::SnpPolicy { dangerously_allow_debug: true, ..Default::default() });
    let plan = situation.plan().unwrap();
    assert!(plan.notes.iter().any(|note| note.contains("DEBUG")), "{plan}");
    assert!(plan.argv.iter().any(|word| word.contains("policy=0xb0000")), "{plan}");
    situation.fixture.vm.snp =
        Some(spec::vm::SnpPolicy { single_socket: true, forbid_smt: true, ..Default::default() });
    assert!(situation.plan().unwrap().argv.iter().any(|word| word.contains("policy=0x120000")));
}

#[test]
fn a_manifest_of_another_qemu_or_firmware() {
    let reference = |firmware: Sha256Digest, releases: &str| {
        let register = "00".repeat(48);
        format!(
            r#""tdx":[{{"firmware_sha256":"{firmware}","mrtd":"{register}","platform":{{"qemu_version":"10.2.1","same_with":[{releases}],
            "rtmr0":[{{"vcpus":2,"memory_mib":512,"rtmr0":"{register}"}}]}}}}]"#
        )
    };
    let firmware = Sha256Digest::of(b"tdx firmware");
    let with = |reference: String| {
        let situation = Situation::new("tdx", "");
        let references = format!("\"references\":{{{reference}}}");
        situation.fixture.rewrite_manifest(|text| text.replace("\"references\":{}", &references));
        situation
    };
    let error = refusal(&with(reference(firmware, "\"10.1\",\"10.2\"")));
    assert_eq!(error.outcome(), Outcome::Refused);
    let text = error.to_string();
    assert!(text.contains("RTMR0 is of QEMU 10.2.1 (the same with 10.1, 10.2), and this is QEMU 11.1.3"), "{text}");
    assert!(error.hint().unwrap().contains("measure IMAGE --write"));
    with(reference(firmware, "\"11.1\"")).plan().unwrap();
    let other = refusal(&with(reference(Sha256Digest::of(b"older firmware"), "\"11.1\"")));
    assert!(other.to_string().contains("MRTD and RTMR0 are of firmware"), "{other}");
    let mut simulated = with(reference(firmware, "\"10.1\""));
    simulated.fixture.simulate();
    simulated.plan().unwrap();
}
