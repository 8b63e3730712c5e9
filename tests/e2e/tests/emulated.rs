//! Predictions beside logs that firmware wrote: a real OVMF measures a real boot into a TPM, and neither is ours.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use e2e::emulator::{Firmware, Stopped, Trees};
use e2e::{Bench, bench};
use measure::eventlog::{AlgorithmId, EventLog, EventType};
use measure::smbios::{self, BiosInformation};
use measure::tdx::Profile;
use measure::uefi::load_option::{PciSlot, firmware_application, virtio_disk};
use measure::uefi::{SecureBootVariables, VariableStore};
use serde_json::Value;
use spec::pins::Pins;

/// The last event of firmware.
const BOOTED: &[u8] = b"Exit Boot Services Returned with Success";

/// In the data of a log's first event.
const SIGNATURE: &[u8] = b"Spec ID Event03\0";

/// The complete log in memory: what Linux copies before it leaves firmware is shorter.
fn log(memory: &[u8]) -> Option<EventLog<'_>> {
    // The signature is in the event data, 32 bytes into the log.
    let starts = memchr(memory, SIGNATURE).filter_map(|position| position.checked_sub(32));
    let logs = starts.filter_map(|start| Some(EventLog::parse_lenient(memory.get(start..)?).ok()?.0));
    let is_complete = |log: &EventLog<'_>| log.events.iter().any(|event| event.data == BOOTED);
    logs.filter(is_complete).map(until_booted).next()
}

/// Without what follows the log in memory, or the kernel adds to it.
fn until_booted(mut log: EventLog<'_>) -> EventLog<'_> {
    let last = log.events.iter().position(|event| event.data == BOOTED).unwrap();
    log.events.truncate(last + 1);
    log
}

/// Where the pattern is, which starts with no zero: most of the memory is, and passed over page by page.
fn memchr<'a>(memory: &'a [u8], pattern: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    const PAGE: usize = 4096;
    const ZERO: [u8; PAGE] = [0; PAGE];
    let first = pattern[0];
    let pages = memory.chunks(PAGE).enumerate().filter(|(_, page)| **page != ZERO[..page.len()]);
    let candidates = pages.flat_map(move |(number, page)| {
        let bytes = page.iter().enumerate().filter(move |(_, byte)| **byte == first);
        bytes.map(move |(position, _)| number * PAGE + position)
    });
    candidates.filter(move |position| memory[*position..].starts_with(pattern))
}

struct Files<'a> {
    code: &'a Path,
    variables: &'a Path,
    kernel: &'a Path,
    initrd: Option<&'a Path>,
    cmdline: Option<&'a str>,
}

/// What `bullion measure tpm` says, from inputs alone.
fn prediction(bench: &Bench, files: &Files<'_>, stopped: &Stopped) -> Value {
    let path = |path: &Path| path.display().to_string();
    let mut words = vec!["measure", "tpm", "--json", "--firmware"].into_iter().map(str::to_owned).collect::<Vec<_>>();
    words.extend([path(files.code), "--variables".to_owned(), path(files.variables)]);
    let place =
        if files.kernel.extension().is_some_and(|extension| extension == "raw") { "--disk" } else { "--kernel" };
    words.extend(["--fw-cfg".to_owned(), path(&stopped.fw_cfg), place.to_owned(), path(files.kernel)]);
    if let Some(cmdline) = files.cmdline {
        words.extend(["--cmdline".to_owned(), cmdline.to_owned()]);
    }
    if let Some(initrd) = files.initrd {
        words.extend(["--initrd".to_owned(), path(initrd)]);
    }
    let answer = bench.run(words).expect(0, &[]).json();
    e2e::documented("measure tpm", &answer);
    answer
}

/// The log replays to what the TPM holds, and is what was predicted, event by event.
#[track_caller]
fn assert_as_predicted(stopped: &Stopped, prediction: &Value) {
    assert_events(stopped, prediction, |_| true);
}

/// The same of the PCRs that `is_told` says.
#[track_caller]
fn assert_events(stopped: &Stopped, prediction: &Value, is_told: impl Fn(u32) -> bool) {
    let log = log(&stopped.memory).unwrap();
    let logged = log.events.iter().filter(|event| event.event_type != EventType::EV_NO_ACTION && is_told(event.index));
    let logged = logged.map(|event| format!("PCR {} {} {}", event.index, event.event_type, event.sha384().unwrap()));
    let predicted = prediction["steps"].as_array().unwrap().iter().map(|step| {
        let text = |key: &str| step[key].as_str().unwrap().to_owned();
        format!("PCR {} {} {}", step["pcr"], text("event_type"), text("digest"))
    });
    assert_eq!(predicted.collect::<Vec<_>>(), logged.collect::<Vec<_>>());
    for (number, value) in log.replay_pcrs(AlgorithmId::SHA384).unwrap() {
        let value = measure::digest::encode_hex(&value);
        assert_eq!(stopped.pcrs[&number], value, "the log does not replay to PCR {number}");
        if is_told(number) {
            assert_eq!(prediction[format!("pcr{number}")], value, "PCR {number}");
        }
    }
    for number in (0..16).filter(|number| *number != 10 && is_told(*number)) {
        assert_eq!(prediction[format!("pcr{number}")], stopped.pcrs[&number], "PCR {number}");
    }
}

/// QEMU's words for a direct boot of the minimal image, and its command line.
fn direct_words(image: &Path) -> (Vec<String>, String) {
    let cmdline = std::fs::read_to_string(image.join("cmdline")).unwrap();
    let path = |name: &str| image.join(name).display().to_string();
    let words =
        ["-kernel".into(), path("vmlinuz"), "-initrd".into(), path("initrd"), "-append".into(), cmdline.clone()];
    (words.to_vec(), cmdline)
}

#[test]
fn a_direct_boot_is_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let (words, cmdline) = direct_words(bench.image());
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let (kernel, initrd) = (bench.image().join("vmlinuz"), bench.image().join("initrd"));
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let files =
        Files { code: &code, variables: &variables, kernel: &kernel, initrd: Some(&initrd), cmdline: Some(&cmdline) };
    assert_as_predicted(&stopped, &prediction(&bench, &files, &stopped));
}

/// Keys and signatures by `openssl` and `sbsign`; `None` where these judges are not there.
struct Keys<'a> {
    directory: &'a Path,
}

impl Keys<'_> {
    fn run(&self, program: &str, words: &[&str]) -> Option<()> {
        let output = e2e::judge(program)?.args(words).current_dir(self.directory).output().unwrap();
        assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    }

    /// A certificate NAME.pem and its key NAME.key: of an authority, issued by `issuer` or by itself.
    fn certificate(&self, name: &str, issuer: Option<&str>) -> Option<()> {
        let (key, pem, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN=Test {name}"));
        let mut words = vec!["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", &subject];
        words.extend(["-keyout", &key, "-out", &pem]);
        let of_issuer = issuer.map(|issuer| (format!("{issuer}.pem"), format!("{issuer}.key")));
        if let Some((pem, key)) = &of_issuer {
            words.extend(["-CA", pem, "-CAkey", key]);
        }
        self.run("openssl", &words)
    }

    /// `image` signed: the signed file.
    fn sign(&self, image: &Path, name: &str, carried: Option<&str>) -> Option<PathBuf> {
        let (key, pem, signed) = (format!("{name}.key"), format!("{name}.pem"), self.directory.join("signed.efi"));
        let carried = carried.map(|name| format!("{name}.pem"));
        let (image, to) = (image.display().to_string(), signed.display().to_string());
        let mut words = vec!["--key", &key, "--cert", &pem, "--output", &to];
        words.extend(carried.iter().flat_map(|pem| ["--addcert", pem]));
        words.push(&image);
        self.run("sbsign", &words)?;
        Some(signed)
    }
}

/// Debian's test key, for which it ships variables: the kernel is signed with it, and firmware measures the one entry of db. Unsigned, it
/// would not be started, and nothing is predicted.
#[test]
fn a_signed_kernel_is_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let keys = Keys { directory: directory.path() };
    let shipped = |name: &str| trees.ovmf("../ovmf").join(name).display().to_string();
    std::fs::copy(shipped("PkKek-1-snakeoil.pem"), directory.path().join("snakeoil.pem")).unwrap();
    // Its password is written beside it in the package.
    let (key, out) = (shipped("PkKek-1-snakeoil.key"), "snakeoil.key");
    let made = keys.run("openssl", &["pkey", "-in", &key, "-passin", "pass:snakeoil", "-out", out]);
    let signed = made.and_then(|()| keys.sign(&bench.image().join("vmlinuz"), "snakeoil", None));
    let Some(kernel) = signed else { return };
    let (mut words, cmdline) = direct_words(bench.image());
    words[1] = kernel.display().to_string();
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.secboot.fd"), trees.ovmf("OVMF_VARS_4M.snakeoil.fd"));
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let initrd = bench.image().join("initrd");
    let files =
        Files { code: &code, variables: &variables, kernel: &kernel, initrd: Some(&initrd), cmdline: Some(&cmdline) };
    assert_as_predicted_but_for_pcr_0(&stopped, &prediction(&bench, &files, &stopped));
    let path = |path: &Path| path.display().to_string();
    // Debian has signed it, for a certificate that is not in this db.
    let foreign = ["measure", "tpm", "--firmware", &path(&code), "--variables", &path(&variables), "--fw-cfg"];
    let foreign = foreign.map(str::to_owned).into_iter().chain([path(&stopped.fw_cfg), "--kernel".into()]);
    bench
        .run(foreign.chain([path(&bench.image().join("vmlinuz"))]))
        .expect(6, &["does not start the image", "no certificate in db leads to"]);
}

/// Keys of our own, enrolled by `virt-fw-vars`: db has a certificate that has nothing to do with it before the root that a unified kernel
/// image leads to, by a certificate that its signature carries.
#[test]
fn a_unified_kernel_image_is_verified_by_a_chain() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(uki) = unified_image(&bench, directory.path()) else { return };
    let keys = Keys { directory: directory.path() };
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.secboot.fd"), directory.path().join("variables.fd"));
    let (empty, enrolled) = (trees.ovmf("OVMF_VARS_4M.fd").display().to_string(), variables.display().to_string());
    const OWNER: &str = "4dbb5ac1-6d3e-4bb8-95b9-8d5c1d2aa1f0";
    let signed = (|| {
        keys.certificate("other", None)?;
        keys.certificate("root", None)?;
        keys.certificate("middle", Some("root"))?;
        keys.certificate("leaf", Some("middle"))?;
        let words =
            ["--input", &empty, "--output", &enrolled, "--set-pk", OWNER, "other.pem", "--add-kek", OWNER, "other.pem"];
        let db = ["--add-db", OWNER, "other.pem", "--add-db", OWNER, "root.pem", "--secure-boot"];
        keys.run("virt-fw-vars", &[&words[..], &db].concat())?;
        keys.sign(&uki, "leaf", Some("middle"))
    })();
    let Some(signed) = signed else { return };
    let words = ["-kernel".to_owned(), signed.display().to_string()];
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let files = Files { code: &code, variables: &variables, kernel: &signed, initrd: None, cmdline: None };
    assert_as_predicted_but_for_pcr_0(&stopped, &prediction(&bench, &files, &stopped));
    let log = log(&stopped.memory).unwrap();
    let authorities = log.events.iter().filter(|event| event.event_type == EventType::EV_EFI_VARIABLE_AUTHORITY);
    let root = std::fs::read_to_string(directory.path().join("root.pem")).unwrap();
    let used: Vec<_> = authorities.map(|event| event.data).collect();
    assert_eq!(used.len(), 1);
    assert!(used[0].ends_with(&der(&root)), "the root certificate");
}

/// A certificate in PEM as DER.
fn der(pem: &str) -> Vec<u8> {
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    e2e::vectors::piped("base64", &["-d"], text.as_bytes()).unwrap()
}

/// Builds with SMM, as those with Secure Boot are, change a volume that PCR 0 covers before they measure it.
#[track_caller]
fn assert_as_predicted_but_for_pcr_0(stopped: &Stopped, prediction: &Value) {
    assert_events(stopped, prediction, |pcr| pcr != 0);
}

/// The image of `minimal-disk`; `None` (and a word why) where its recipe was not named.
fn unified_image(bench: &Bench, directory: &Path) -> Option<PathBuf> {
    let Some(recipe) = std::env::var_os("BULLION_TEST_DISK_RECIPE") else {
        e2e::skipped("BULLION_TEST_DISK_RECIPE is set by scripts/test only");
        return None;
    };
    let image = directory.join("image");
    bench.run([OsStr::new("build"), &recipe, OsStr::new("-o"), image.as_os_str()]).expect(0, &[]);
    Some(image.join("uki.efi"))
}

#[test]
fn a_unified_kernel_image_is_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(uki) = unified_image(&bench, directory.path()) else { return };
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let words = ["-kernel".to_owned(), uki.display().to_string()];
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let files = Files { code: &code, variables: &variables, kernel: &uki, initrd: None, cmdline: None };
    assert_as_predicted(&stopped, &prediction(&bench, &files, &stopped));
}

/// The slot that the disk of these tests is in: not the one that QEMU would choose.
const SLOT: &str = "05.0";

/// QEMU's words for the disk of `minimal-disk`; what is written to it is forgotten.
fn disk_words(image: &Path) -> Vec<String> {
    let drive = format!("if=none,id=disk,format=raw,snapshot=on,file={}", image.join("disk.raw").display());
    let device = format!("virtio-blk-pci,drive=disk,addr=0x{SLOT}");
    ["-drive".to_owned(), drive, "-device".to_owned(), device].to_vec()
}

/// The same where QEMU's boot order names the disk.
fn ordered_disk_words(image: &Path) -> Vec<String> {
    let mut words = disk_words(image);
    words[3].push_str(",bootindex=0");
    words
}

/// Partition table, boot entries with the place of the disk, and the unified kernel image from the disk.
#[test]
fn a_disk_is_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(uki) = unified_image(&bench, directory.path()) else { return };
    let image = uki.with_file_name("");
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let path = |path: &Path| path.display().to_string();
    let predicted = |stopped: &Stopped| {
        let words = ["measure", "tpm", "--json", "--disk-at", SLOT, "--firmware", &path(&code), "--variables"];
        let files = [path(&variables), "--fw-cfg".into(), path(&stopped.fw_cfg), "--disk".into()];
        let words = words.map(str::to_owned).into_iter().chain(files).chain([path(&image.join("disk.raw"))]);
        bench.run(words).expect(0, &[]).json()
    };
    let boot = |words: &[String]| trees.boot(Firmware::Split(&code, &variables), words, |memory| log(memory).is_some());
    let ordered = boot(&ordered_disk_words(&image));
    assert_as_predicted(&ordered, &predicted(&ordered));
    let stopped = boot(&disk_words(&image));
    assert_as_predicted(&stopped, &predicted(&stopped));
    assert_ne!(ordered.pcrs[&1], stopped.pcrs[&1]);
    let firmware = image.join("firmware-tdx.fd");
    let tdx = bench.run([
        "measure",
        "tdx",
        "--json",
        "--firmware",
        &path(&firmware),
        "--disk",
        &path(&image.join("disk.raw")),
    ]);
    if !bench.unpublished {
        let tdx = tdx.expect(0, &[]).json();
        // Of this firmware it was not seen whether the kernel has to try twice, as it has to here.
        assert_eq!(tdx["rtmr1_one_of"][1], as_rtmr(&stopped, 2..=6));
        assert_ne!(tdx["rtmr1_one_of"][0], tdx["rtmr1_one_of"][1]);
        assert_eq!(tdx["rtmr2"], as_rtmr(&stopped, 8..=15));
    }
}

/// What firmware measured into these PCRs, as the one register that TDX has for them: in the order of the log, and with one separator.
fn as_rtmr(stopped: &Stopped, pcrs: std::ops::RangeInclusive<u32>) -> String {
    let log = log(&stopped.memory).unwrap();
    let mut separated = false;
    let mut register = measure::Digest384::ZERO;
    for event in log.events.iter().filter(|event| pcrs.contains(&event.index)) {
        if event.event_type == EventType::EV_SEPARATOR && std::mem::replace(&mut separated, true) {
            continue;
        }
        register = register.extended(&event.sha384().unwrap());
    }
    register.to_string()
}

/// Firmware with Secure Boot and no keys, as the TDX default is: its PCR 7. Its PCR 0 covers a volume that it has written to.
#[test]
fn variables_without_keys_are_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let (words, _) = direct_words(bench.image());
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.secboot.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let log = log(&stopped.memory).unwrap();
    for (number, value) in log.replay_pcrs(AlgorithmId::SHA384).unwrap() {
        assert_eq!(stopped.pcrs[&number], measure::digest::encode_hex(&value), "PCR {number}");
    }
    let store = std::fs::read(&variables).unwrap();
    let mut predicted: Vec<_> = SecureBootVariables::of_store(&VariableStore::parse(&store).unwrap()).events();
    predicted.push(("separator", measure::Digest384::of(&[0; 4])));
    let logged = log.events.iter().filter(|event| event.index == 7).map(|event| event.sha384().unwrap());
    assert_eq!(predicted.into_iter().map(|(_, digest)| digest).collect::<Vec<_>>(), logged.collect::<Vec<_>>());
}

/// The same with the keys that Debian enrols: SecureBoot, PK, KEK, db and dbx, before anything is started.
#[test]
fn enrolled_variables_are_measured_as_predicted() {
    let Some(trees) = Trees::find() else { return };
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.secboot.fd"), trees.ovmf("OVMF_VARS_4M.ms.fd"));
    let store = std::fs::read(&variables).unwrap();
    let store = VariableStore::parse(&store).unwrap();
    assert!(store.has_keys());
    let mut predicted: Vec<_> = SecureBootVariables::of_store(&store).events();
    predicted.push(("separator", measure::Digest384::of(&[0; 4])));
    let predicted: Vec<_> = predicted.into_iter().map(|(_, digest)| digest).collect();
    // There is nothing to boot: firmware has measured all of PCR 7 when its menu starts.
    let logged = |memory: &[u8]| {
        let logs = memchr(memory, SIGNATURE)
            .filter_map(|position| EventLog::parse_lenient(memory.get(position.checked_sub(32)?..)?).ok());
        let of_pcr_7 = logs.map(|(log, _)| {
            let events = log.events.iter().filter(|event| event.index == 7 && event.event_type.name().is_some());
            events.filter_map(|event| event.sha384()).collect::<Vec<_>>()
        });
        of_pcr_7.max_by_key(Vec::len).filter(|events| events.len() >= predicted.len())
    };
    let stopped = trees.boot(Firmware::Split(&code, &variables), &[], |memory| logged(memory).is_some());
    assert_eq!(logged(&stopped.memory).unwrap(), predicted);
    let pcr = predicted.iter().fold(measure::Digest384::ZERO, |pcr, digest| pcr.extended(digest));
    assert_eq!(stopped.pcrs[&7], pcr.to_string());
}

/// The default TDX firmware without a TEE measures nothing; what it would measure is what it leaves in memory.
#[test]
fn the_default_tdx_firmware_makes_what_is_predicted_for_it() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let firmware = bench.image().join("firmware-tdx.fd");
    let pins = Pins::parse("pins.toml", include_str!("../../../firmware/pins.toml")).unwrap();
    let Some(pin) = pins.find(&spec::Sha256Digest::of(&std::fs::read(&firmware).unwrap())) else {
        return e2e::skipped("the TDX firmware of the image is not pinned");
    };
    let profile = Profile::of_build(&pin.edk2, &format!("{:?}", pin.platform)).unwrap();
    let order: Vec<u8> = (0_u16..).zip(profile.boot_entries).flat_map(|(number, _)| number.to_le_bytes()).collect();
    let entries = profile.boot_entries.iter().map(firmware_application).zip(["Boot0000", "Boot0001"]);
    let mut expected: Vec<_> = entries.map(|(value, name)| (name, value)).collect();
    expected.extend([("BootOrder", order), ("SecureBoot", vec![0])]);
    let (words, _) = direct_words(bench.image());
    // The kernel runs: the console is the first thing that it unpacks itself for.
    let stopped = trees.boot(Firmware::Whole(&firmware), &words, |memory| {
        expected.iter().all(|(name, _)| variable(memory, name).is_some()) && smbios_table(memory).is_some()
    });
    for (name, value) in &expected {
        assert_eq!(variable(&stopped.memory, name).as_ref(), Some(value), "{name}");
    }
    assert_eq!(variable(&stopped.memory, "Boot0001").is_some(), profile.boot_entries.len() > 1);
    let bios = pin.bios.as_ref().unwrap();
    let bios = BiosInformation { vendor: &bios.vendor, version: &bios.version, release_date: &bios.release_date };
    let qemu = std::fs::read(stopped.fw_cfg.join("etc/smbios/smbios-tables")).unwrap();
    assert_eq!(smbios_table(&stopped.memory), smbios::completed(&qemu, &bios).ok());
}

/// The same where it starts a disk: an entry for the disk's place, and none of the program that a TDX guest lacks.
#[test]
fn the_default_tdx_firmware_makes_the_boot_entries_of_a_disk() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(uki) = unified_image(&bench, directory.path()) else { return };
    let (image, firmware) = (uki.with_file_name(""), uki.with_file_name("firmware-tdx.fd"));
    let pins = Pins::parse("pins.toml", include_str!("../../../firmware/pins.toml")).unwrap();
    let Some(pin) = pins.find(&spec::Sha256Digest::of(&std::fs::read(&firmware).unwrap())) else {
        return e2e::skipped("the TDX firmware of the image is not pinned");
    };
    let profile = Profile::of_build(&pin.edk2, &format!("{:?}", pin.platform)).unwrap();
    let own = profile.boot_entries.iter().map(firmware_application);
    let disk = virtio_disk(PciSlot { device: 5, function: 0 });
    let later = profile.disk_boot.unwrap().later_entries.iter().map(firmware_application);
    let entries: Vec<_> = own.chain([disk]).chain(later).collect();
    let order: Vec<u8> = (0_u16..).zip(&entries).flat_map(|(number, _)| number.to_le_bytes()).collect();
    let stopped =
        trees.boot(Firmware::Whole(&firmware), &disk_words(&image), |memory| variable(memory, "BootCurrent").is_some());
    assert_eq!(variable(&stopped.memory, "BootOrder"), Some(order));
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(variable(&stopped.memory, &format!("Boot000{number}")).as_ref(), Some(entry), "{number}");
    }
    // What is measured of them, in a TDX guest.
    let measured = |stopped: &Stopped, more: &[&str]| -> Vec<_> {
        std::fs::write(stopped.fw_cfg.join("BootMenu"), [0; 2]).unwrap();
        let path = |path: &Path| path.display().to_string();
        let words = ["measure", "tdx", "--json", "--firmware", &path(&firmware), "--memory", "512MiB", "--acpi"];
        let files = [path(&stopped.fw_cfg), "--disk".to_owned(), path(&image.join("disk.raw"))];
        let more = more.iter().map(|word| (*word).to_owned());
        let tdx = bench.run(words.map(str::to_owned).into_iter().chain(files).chain(more)).expect(0, &[]).json();
        let steps = tdx["steps"].as_array().unwrap().iter().filter(|step| step["kind"] == "EV_EFI_VARIABLE_BOOT");
        steps.map(|step| (step["name"].clone(), step["digest"].clone())).collect()
    };
    let expected = |stopped: &Stopped, names: [&str; 3]| {
        let digest = |name: &str| measure::Digest384::of(&variable(&stopped.memory, name).unwrap()).to_string();
        names.map(|name| (Value::from(name), Value::from(digest(name))))
    };
    assert_eq!(measured(&stopped, &["--disk-at", SLOT]), expected(&stopped, ["BootOrder", "Boot0000", "Boot0001"]));
    // QEMU's boot order puts the disk first, and leaves a later disk without an entry.
    let later =
        ["-blockdev", "driver=null-co,node-name=later,size=1048576", "-device", "virtio-blk-pci,drive=later,addr=0x6"];
    let words = [ordered_disk_words(&image), later.map(str::to_owned).to_vec()].concat();
    let ordered = trees.boot(Firmware::Whole(&firmware), &words, |memory| variable(memory, "BootCurrent").is_some());
    assert_eq!(variable(&ordered.memory, "BootOrder"), Some(vec![1, 0, 0, 0]));
    assert_eq!(measured(&ordered, &[]), expected(&ordered, ["BootOrder", "Boot0001", "Boot0000"]));
}

/// The value of a variable in a store of firmware (edk2 `VariableFormat.h`, AUTHENTICATED_VARIABLE_HEADER).
fn variable(memory: &[u8], name: &str) -> Option<Vec<u8>> {
    const HEADER: usize = 60;
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let number = |at: usize| Some(u32::from_le_bytes(memory.get(at..at + 4)?.try_into().ok()?) as usize);
    memchr(memory, &name).filter_map(|position| position.checked_sub(HEADER)).find_map(|start| {
        // Start mark, and the state of a variable that is not deleted.
        let is_set = memory[start..].starts_with(&[0xaa, 0x55, 0x3f]) && number(start + 36)? == name.len();
        let value = start + HEADER + name.len();
        memory.get(value..value + number(start + 40)?).filter(|_| is_set).map(<[u8]>::to_vec)
    })
}

/// The table that the SMBIOS 2 entry point in memory leads to.
fn smbios_table(memory: &[u8]) -> Option<Vec<u8>> {
    memchr(memory, b"_SM_").find_map(|at| {
        let entry = memory.get(at..at + 31).filter(|entry| &entry[16..21] == b"_DMI_")?;
        let length = usize::from(u16::from_le_bytes(entry[22..24].try_into().ok()?));
        let address = u32::from_le_bytes(entry[24..28].try_into().ok()?) as usize;
        memory.get(address..address + length).filter(|table| !table.is_empty()).map(<[u8]>::to_vec)
    })
}

/// The log of a TPM of version 1.2: where the ACPI table TCPA says that it is (TCG ACPI Specification 1.2, section 7.1),
/// once SeaBIOS has ended its measurements and looks for something to boot.
fn bios_log(memory: &[u8]) -> Option<&[u8]> {
    let tables = memchr(memory, b"TCPA\x32\0\0\0").filter_map(|at| memory.get(at..at + 50));
    let areas = tables.filter(|table| table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0);
    let mut areas = areas.filter_map(|table| {
        let size = u32::from_le_bytes(table[38..42].try_into().unwrap());
        let start = usize::try_from(u64::from_le_bytes(table[42..].try_into().unwrap())).unwrap();
        memory.get(start..start + usize::try_from(size).unwrap())
    });
    let is_complete = |area: &&[u8]| {
        let log = EventLog::parse_lenient(area).ok().map(|(log, _)| log);
        let ended =
            |log: EventLog<'_>| log.events.iter().any(|e| (e.index, e.event_type) == (7, EventType::EV_SEPARATOR));
        log.is_some_and(ended)
    };
    areas.find(is_complete)
}

#[test]
fn a_log_of_a_tpm_of_version_1_2_replays_to_its_pcrs() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let stopped = trees.boot(Firmware::Bios, &[], |memory| bios_log(memory).is_some());
    let area = bios_log(&stopped.memory).unwrap();
    let log = EventLog::parse(area).unwrap();
    let pcrs = log.replay_pcrs(AlgorithmId::SHA1).unwrap();
    assert!(pcrs.len() >= 8 && log.events.len() > 8, "{log:?}");
    for (number, value) in pcrs {
        assert_eq!(stopped.pcrs[&number], measure::digest::encode_hex(&value), "PCR {number}: {log:?}");
    }
    assert!(log.events.iter().all(|event| event.data_matches() != Some(false)), "{log:?}");
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("binary_bios_measurements");
    std::fs::write(&file, area).unwrap();
    let answer = bench.run(["eventlog", "replay", file.to_str().unwrap(), "--strict", "--json"]).expect(0, &[]).json();
    assert_eq!(answer["pcrs"]["sha1"]["7"], stopped.pcrs[&7]);
}
