//! The compiled kernel: it boots what Debian's boots, is smaller, and takes no ACPI tables but those that its command line
//! names. Debian's kernel runs the same code that it refuses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use e2e::container::Archive;
use e2e::{Bench, Run, bench, copy_of};
use serde_json::Value;
use spec::Sha256Digest;

/// A VM that is not tried with a KVM first: one that cannot run this kernel does not say so, but stands still.
fn emulated(vm: PathBuf) -> PathBuf {
    let text = std::fs::read_to_string(&vm).unwrap();
    let (guest, host) = text.split_once("[host]\n").unwrap_or((&text, ""));
    std::fs::write(&vm, format!("{guest}[host]\naccelerator = \"tcg\"\n{host}")).unwrap();
    vm
}

fn manifest(image: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn the_compiled_kernel_boots_the_image_and_is_small() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.release("minimal") else { return };
    let manifest = manifest(&image);
    assert_eq!(manifest["class"], "release");
    let size = |name: &str| manifest["artifacts"][name]["size"].as_u64().unwrap();
    assert!(size("vmlinuz") <= 12_000_000, "{} bytes", size("vmlinuz"));
    assert!(size("vmlinuz") + size("initrd") <= 16_000_000, "{} bytes", size("vmlinuz") + size("initrd"));
    let scratch = tempfile::tempdir().unwrap();
    let vm = emulated(bench.vm(scratch.path(), "t-hardened", "none", 2, &image));
    let answer = bench.launch(&vm, &["--until-ready", "--json"]).expect(0, &[]).json();
    assert_eq!(answer["identity"]["kernel_release"], manifest["kernel_version"]);
    assert_eq!(answer["identity"]["root_hash"], manifest["verity"]["root_hash"]);
}

#[test]
fn a_container_runs_under_the_compiled_kernel() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(image) = bench.release("container") else { return };
    let archive = Archive::new("under the compiled kernel", 7);
    std::fs::write(directory.path().join("app.tar"), &archive.bytes).unwrap();
    let more = archive.description("app.tar");
    let vm = emulated(bench.container_vm(directory.path(), "t-hardened-container", &image, &more));
    let answer = bench.launch(&vm, &["--json"]).expect(7, &[]).json();
    assert_eq!((&answer["workload"]["state"], &answer["workload"]["exit_code"]), (&"ended".into(), &7.into()));
    let printed = bench.run(["logs", "t-hardened-container", "--workload"]).expect(0, &[]);
    assert_eq!(printed.stdout, "under the compiled kernel\n");
}

/// What the configuration of a guest with both devices says of them.
const SIGNS: &str = "pvpanic = true\n[guest.watchdog]\ntimeout_s = 15\n";

#[test]
fn a_release_feeds_its_watchdog() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.release("minimal") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-hardened-fed", "none", 1, &image);
    let text = std::fs::read_to_string(&vm).unwrap();
    std::fs::write(&vm, text + SIGNS).unwrap();
    let supervisor = started(&bench, &emulated(vm));
    bench.wait_for_phase("t-hardened-fed", "ready");
    // Longer than the watchdog waits.
    std::thread::sleep(Duration::from_secs(25));
    bench.wait_for_phase("t-hardened-fed", "ready");
    bench.run(["stop", "t-hardened-fed"]).expect(0, &[]);
    Run::of(&supervisor.wait_with_output().unwrap()).expect(0, &[]);
}

/// Once a release is ready its console is closed, so that its kernel's last words go nowhere.
#[test]
fn the_panic_of_a_release_is_told_by_pvpanic() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(image) = bench.release("container") else { return };
    let image = copy_of(&image, directory.path());
    let archive = Archive::new("never printed", 7);
    std::fs::write(directory.path().join("app.tar"), &archive.bytes).unwrap();
    let more = format!("[guest]\n{SIGNS}{}", archive.description("app.tar"));
    let supervisor =
        started(&bench, &emulated(bench.container_vm(directory.path(), "t-hardened-panic", &image, &more)));
    bench.wait_for_phase("t-hardened-panic", "ready");
    flip_everywhere(&image.join("rootfs"));
    let words = "the guest's kernel panicked: QEMU was told so by the guest, whose console does not say why";
    Run::of(&supervisor.wait_with_output().unwrap()).expect(7, &[words]);
}

/// A launch that goes on meanwhile.
fn started(bench: &Bench, vm: &Path) -> Child {
    bench.launching(vm, &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Changes a byte of every block: whatever the guest reads from now on does not verify.
fn flip_everywhere(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes.iter_mut().step_by(4096).for_each(|byte| *byte ^= 1);
    // In place: QEMU has it open.
    std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all(&bytes).unwrap();
}

#[test]
fn the_tables_that_firmware_makes_are_those_that_were_predicted() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.release("minimal") else { return };
    let scratch = tempfile::tempdir().unwrap();
    // SeaBIOS and OVMF. The firmware for SEV-SNP starts no kernel where there is no page with its hashes.
    for tee in ["none", "tdx"] {
        let vm = bench.vm(scratch.path(), &format!("t-tables-{tee}"), tee, 2, &image);
        let console = bench.emulate(&vm, &image, Some("bullion: ACPI tables "), |words| verbose(words, None));
        assert!(console.contains("bullion: ACPI tables admitted: digest"), "{tee}: {console}");
        // A machine that the recipe does not name.
        let console = bench.emulate(&vm, &image, Some("bullion: ACPI tables "), |words| {
            verbose(words, None);
            *words.iter_mut().find(|word| word.starts_with("-smp ")).unwrap() =
                "-smp 3,sockets=1,cores=3,threads=1".to_owned();
        });
        assert!(console.contains("ACPI tables refused: no bullion.acpi= names them"), "{tee}: {console}");
    }
}

#[test]
fn a_machine_that_the_kernel_would_stop_in_is_refused_before_it_starts() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.release("minimal") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let others = ["3 vCPUs", "none of the ", "[[kernel.admit]]", "tee none/snp/tdx, 1/2/4/8 vCPUs, 512MiB/2GiB"];
    for words in [&["--plan"][..], &["--until-ready"]] {
        let vm = bench.vm(scratch.path(), "t-not-admitted", "none", 3, &image);
        let refused = bench.launch(&vm, words).expect(6, &others);
        assert!(!refused.stderr.contains("QEMU started"), "{}", refused.stderr);
    }
    // What is simulated runs nowhere, and its digest is predicted for any machine.
    let vm = bench.vm(scratch.path(), "t-not-admitted", "snp", 3, &image);
    bench.launch(&vm, &["--plan", "--simulate"]).expect(0, &[]);
}

/// Lets the kernel say all, and replaces what it admits.
fn verbose(words: &mut [String], admit: Option<&str>) {
    let line = words.iter_mut().find(|word| word.starts_with("-append ")).unwrap();
    let kept =
        line.split(' ').filter(|word| *word != "quiet" && (admit.is_none() || !word.starts_with("bullion.acpi=")));
    *line = kept.collect::<Vec<_>>().join(" ");
    if let Some(admit) = admit {
        line.push_str(&format!(" bullion.acpi={admit}"));
    }
}

/// Memory that Linux keeps for itself from the start (below 1 MiB) and that nothing writes to later.
const TARGET: u32 = 0x7000;
const PATTERN: &[u8; 8] = b"BULLION!";

/// A table of code (ACPI 6.5, 5.2.11.2) that begins with `code` as soon as it is loaded.
fn ssdt(name: &[u8; 8], code: &[u8]) -> Vec<u8> {
    let mut table = b"SSDT".to_vec();
    table.extend(u32::try_from(36 + code.len()).unwrap().to_le_bytes());
    table.extend([2, 0]);
    table.extend(b"EVIL  ");
    table.extend(name);
    table.extend(b"\x01\0\0\0EVIL\x01\0\0\0");
    table.extend(code);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    table
}

/// `OperationRegion (MEMO, SystemMemory, TARGET, 8)`, a field of two double words in it, and a store to each (ACPI 6.5, 20.2.5).
fn writes_memory() -> Vec<u8> {
    let region = [b"\x5b\x80MEMO\x00\x0c".as_slice(), &TARGET.to_le_bytes(), b"\x0a\x08"].concat();
    let field = b"\x5b\x81\x10MEMO\x03AAAA\x20BBBB\x20";
    let store = |half: &[u8], name: &[u8]| [b"\x70\x0c", half, name].concat();
    let stores = [store(&PATTERN[..4], b"AAAA"), store(&PATTERN[4..], b"BBBB")].concat();
    ssdt(b"MEMORY  ", &[&region, field.as_slice(), &stores].concat())
}

/// `Name (BUFX, Buffer () { a table }) Name (HNDL, 0) Load (BUFX, HNDL)`.
fn loads_a_table() -> Vec<u8> {
    let inner = ssdt(b"INNER   ", b"\x08LOAD\x01");
    let size = u8::try_from(inner.len()).unwrap();
    let package = [size + 3];
    assert!(package[0] < 0x40, "a package length of one byte");
    let buffer = [b"\x08BUFX\x11".as_slice(), &package, b"\x0a", &[size], &inner].concat();
    ssdt(b"LOADER  ", &[buffer.as_slice(), b"\x08HNDL\x00", b"\x5b\x20BUFXHNDL"].concat())
}

/// What a machine without a TEE says with this table more, and what is at the target then.
fn attack(bench: &Bench, image: &Path, table: &[u8], admit: Option<&str>) -> (String, [u8; 8]) {
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-evil", "none", 2, image);
    let (file, memory) = (scratch.path().join("evil.aml"), scratch.path().join("memory"));
    std::fs::write(&file, table).unwrap();
    let console = bench.emulate(&vm, image, None, |words| {
        verbose(words, admit);
        words.push(format!("-acpitable file={}", file.display()));
        words.push(format!("-object memory-backend-file,id=ram,share=on,size=512M,mem-path={}", memory.display()));
        let machine = words.iter_mut().find(|word| word.starts_with("-machine ")).unwrap();
        machine.push_str(",memory-backend=ram");
    });
    let mut memory = std::fs::File::open(memory).unwrap();
    let mut found = [0; 8];
    memory.seek(SeekFrom::Start(TARGET.into())).unwrap();
    memory.read_exact(&mut found).unwrap();
    (console, found)
}

/// The digest that a refusal names.
fn digest(console: &str) -> Sha256Digest {
    let (_, rest) = console.split_once("tables, digest ").unwrap_or_else(|| panic!("{console}"));
    rest.get(..64).unwrap().parse().unwrap()
}

#[test]
fn code_in_an_acpi_table_writes_the_memory_of_the_stock_kernel_and_is_refused_by_ours() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.release("minimal") else { return };
    let table = writes_memory();
    let (console, found) = attack(&bench, bench.image(), &table, None);
    assert_eq!(&found, PATTERN, "Debian's kernel is to run it: {console}");

    let (console, found) = attack(&bench, &image, &table, None);
    assert!(console.contains("ACPI tables refused: no bullion.acpi= names them"), "{console}");
    assert_eq!(found, [0; 8]);
    // The same kernel, told to take whatever comes, is as open as Debian's.
    let (unchecked, found) = attack(&bench, &image, &table, Some("unchecked"));
    assert!(unchecked.contains("ACPI tables are not checked"), "{unchecked}");
    assert_eq!(&found, PATTERN, "{unchecked}");
    // Even where somebody had named it, code is kept from memory.
    let named = digest(&console).to_string();
    let (console, found) = attack(&bench, &image, &table, Some(&named));
    assert!(
        console.contains("ACPI tables admitted") && console.contains("it reaches for memory at 0x7000"),
        "{console}"
    );
    assert_eq!(found, [0; 8]);
}

#[test]
fn code_in_an_acpi_table_cannot_bring_more_of_its_kind() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.release("minimal") else { return };
    let table = loads_a_table();
    let (console, _) = attack(&bench, bench.image(), &table, None);
    assert!(console.contains("ACPI: Dynamic OEM Table Load"), "Debian's kernel is to load it: {console}");
    let (console, _) = attack(&bench, &image, &table, None);
    let named = digest(&console).to_string();
    let (console, _) = attack(&bench, &image, &table, Some(&named));
    assert!(console.contains("ACPI code refused: it loads another table"), "{console}");
}
