//! `bullion explain` on real logs, quotes and reports: what differs is named by the input behind it, and what cannot be told
//! is never called a match.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::Path;

use e2e::vectors::{sha, unhex, unpacked, vector};
use e2e::{Bench, Run, bench, skipped};
use serde_json::{Value, json};

/// A direct kernel boot with 2 GiB, firmware of before edk2 202411 (confidential-containers/trustee).
const LOG: &str = "tdx/ccel/trustee/CCEL_data_ovmf";
/// Firmware with the sections and the empty variable store of the one that wrote it.
const FIRMWARE: &str = "tdx/firmware/ubuntu-24.04_ovmf_2024.02-2_OVMF.fd.xz";
/// Firmware whose MRTD a hardware quote has: quotes/quote_v5_sample.dat.
const QUOTED_FIRMWARE: &str = "tdx/firmware/ubuntu-25.10_ovmf-inteltdx_2025.02-8ubuntu3_OVMF.inteltdx.fd.xz";

fn explain(bench: &Bench, words: &[&str]) -> Run {
    bench.run(["explain", "--json"].iter().chain(words))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `(input, kind)` of every difference.
fn differences(answer: &Value) -> Vec<(String, String)> {
    let of = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    answer["differences"].as_array().unwrap().iter().map(|row| (of(row, "input"), of(row, "kind"))).collect()
}

fn verdicts(answer: &Value) -> Vec<&str> {
    answer["registers"].as_array().unwrap().iter().map(|register| register["verdict"].as_str().unwrap()).collect()
}

/// Puts another digest in the place of the first event that has `old`.
fn replace(log: &mut [u8], old: &[u8], new: &[u8]) {
    let at = log.windows(old.len()).position(|window| window == old).unwrap();
    log[at..at + new.len()].copy_from_slice(new);
}

/// The SHA-384 of the event of this number, as `eventlog show` prints it.
fn digest_of(bench: &Bench, log: &Path, event: usize) -> Vec<u8> {
    let shown = bench.run(["eventlog", "show", "--json", text(log)]).expect(0, &[]).json();
    unhex(shown["events"][event]["digests"]["sha384"].as_str().unwrap())
}

#[test]
fn a_log_against_itself_with_one_input_changed() {
    let Some(bench) = bench() else { return };
    let Some(log) = vector(LOG) else { return };
    let against = ["--against", text(&log)];
    let answer = explain(&bench, &[&[text(&log)], &against[..]].concat()).expect(0, &[]).json();
    assert_eq!((&answer["verdict"], &answer["differences"]), (&json!("equal"), &json!([])));
    let shown = bench.run(["eventlog", "show", "--json", text(&log)]).expect(0, &[]).json();
    let scratch = tempfile::tempdir().unwrap();
    let changed = scratch.path().join("log");
    for (event, input) in [(0, "memory"), (1, "variable_store"), (2, "secure_boot"), (10, "acpi"), (11, "kernel")] {
        let original = digest_of(&bench, &log, event);
        let mut bytes = std::fs::read(&log).unwrap();
        replace(&mut bytes, &original, &sha(384, b"another"));
        std::fs::write(&changed, &bytes).unwrap();
        let answer = explain(&bench, &[&[text(&changed)], &against[..]].concat()).expect(6, &[]).json();
        assert_eq!(differences(&answer), [(input.to_owned(), "differs".to_owned())], "event {event}");
        assert_eq!(answer["differences"][0]["event"], event);
        assert_eq!(answer["differences"][0]["register"], shown["events"][event]["register"]);
    }
    // The last event cut off, and everything of the other log too much.
    let offset =
        usize::try_from(shown["events"].as_array().unwrap().last().unwrap()["offset"].as_u64().unwrap()).unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[offset..].fill(0xff);
    std::fs::write(&changed, &bytes).unwrap();
    let answer = explain(&bench, &[&[text(&changed)], &against[..]].concat()).expect(6, &[]).json();
    assert_eq!(differences(&answer), [("action".to_owned(), "missing".to_owned())]);
    let answer = explain(&bench, &[text(&log), "--against", text(&changed)]).expect(6, &[]).json();
    assert_eq!(differences(&answer), [("action".to_owned(), "unexpected".to_owned())]);
}

/// The log of somebody else's guest beside our image: same firmware, everything else another.
#[test]
fn a_log_against_an_image_names_memory_kernel_command_line_and_initrd() {
    let Some(bench) = bench() else { return };
    let Some(log) = vector(LOG) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(firmware) = unpacked(FIRMWARE) else { return };
    let image = bench.image_with_firmware(scratch.path(), "firmware-tdx.fd", &firmware);
    let words = |log: &Path| explain(&bench, &[text(log), "--against", text(&image), "--memory", "4GiB"]);
    let answer = words(&log).expect(6, &["the number of vCPUs is not known"]).json();
    let changed = |input: &str| (input.to_owned(), "differs".to_owned());
    let inputs = ["memory", "kernel", "cmdline", "initrd"].map(changed);
    assert_eq!(differences(&answer), inputs);
    assert_eq!(answer["differences"][0]["value"], 2048);
    assert_eq!(answer["unknown"].as_array().unwrap().len(), 3);
    assert_eq!(verdicts(&answer), ["cannot-tell", "differs", "differs", "equal"]);

    // The same boot with our initrd and a line that a script left a newline on, by digests that coreutils compute.
    let line = format!("{}\n", std::fs::read_to_string(image.join("cmdline")).unwrap());
    let options: Vec<u8> = format!("{line} initrd=initrd\0").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut bytes = std::fs::read(&log).unwrap();
    let shown = bench.run(["eventlog", "show", "--json", text(&log)]).expect(0, &[]).json();
    let tags: Vec<usize> = (0..shown["events"].as_array().unwrap().len())
        .filter(|number| shown["events"][number]["type"] == "EV_EVENT_TAG")
        .collect();
    replace(&mut bytes, &digest_of(&bench, &log, tags[0]), &sha(384, &options));
    let initrd = std::fs::read(image.join("initrd")).unwrap();
    replace(&mut bytes, &digest_of(&bench, &log, tags[1]), &sha(384, &initrd));
    let ours = scratch.path().join("log");
    std::fs::write(&ours, &bytes).unwrap();
    let answer = words(&ours).expect(6, &[]).json();
    assert_eq!(differences(&answer), ["memory", "kernel", "cmdline"].map(changed));
    assert_eq!(answer["differences"][2]["value"], json!(line));
    assert!(answer["differences"][2]["details"].to_string().contains("only blanks differ"), "{answer}");
}

/// The store of a guest's variables was that of other firmware, which is pinned.
#[test]
fn a_variable_store_is_named() {
    let Some(bench) = bench() else { return };
    if bench.unpublished {
        return skipped("the pinned QEMU is gone from the mirror");
    }
    let (Some(log), Some(judged)) = (vector(LOG), vector("tdx/firmware/mrtd.json")) else { return };
    let judged: Value = serde_json::from_slice(&std::fs::read(judged).unwrap()).unwrap();
    let enrolled = &judged["ovmf-inteltdx_2026.08+ds-2_debian-sid/OVMF.inteltdx.ms.fd"]["cfv_sha384"][0];
    let mut bytes = std::fs::read(&log).unwrap();
    replace(&mut bytes, &digest_of(&bench, &log, 1), &unhex(enrolled.as_str().unwrap()));
    let scratch = tempfile::tempdir().unwrap();
    let changed = scratch.path().join("log");
    std::fs::write(&changed, &bytes).unwrap();
    let answer = explain(&bench, &[text(&changed), "--against", text(bench.image())]).expect(6, &[]).json();
    let rows = answer["differences"].as_array().unwrap();
    let store = rows.iter().find(|row| row["input"] == "variable_store").unwrap();
    assert_eq!((&store["value"], &store["event"]), (&json!("debian-inteltdx-ms-2026.08"), &json!(1)), "{store}");
}

/// What is right and cannot be known is not called right.
#[test]
fn a_missing_reference_is_never_a_match() {
    let Some(bench) = bench() else { return };
    let Some(log) = vector(LOG) else { return };
    // Firmware that nobody has pinned: which events it measures is not known.
    let scratch = tempfile::tempdir().unwrap();
    let Some(mut firmware) = unpacked(FIRMWARE) else { return };
    firmware[0x10_0000] ^= 1;
    let unknown = bench.image_with_firmware(scratch.path(), "firmware-tdx.fd", &firmware);
    let answer = explain(&bench, &[text(&log), "--against", text(&unknown)]).expect(4, &["not pinned"]);
    let answer = answer.json();
    assert_eq!(answer["verdict"], "cannot-tell");
    assert_eq!(verdicts(&answer), ["cannot-tell", "cannot-tell", "cannot-tell", "equal"]);
    // A manifest alone has no firmware to search with, where that is not pinned; what it lists, it knows.
    let image = bench.image();
    let manifest = scratch.path().join("manifest.json");
    let mut known: Value = serde_json::from_slice(&std::fs::read(image.join("manifest.json")).unwrap()).unwrap();
    known["artifacts"]["firmware-snp.fd"]["sha256"] = json!("0".repeat(64));
    std::fs::write(&manifest, known.to_string()).unwrap();
    let references = known["references"].clone();
    let of = |vcpus: u32| {
        let all = references["snp"].as_array().unwrap();
        let found = all.iter().find(|known| known["vcpus"] == vcpus && known["cpu"] == "EPYC-v4").unwrap();
        found["launch_digest"].as_str().unwrap().to_owned()
    };
    let digest = |digest: &str, words: &[&str]| {
        explain(&bench, &[&["--digest", digest, "--against", text(&manifest)], words].concat())
    };
    digest(&of(4), &[]).expect(0, &[]);
    digest(&of(4), &["--vcpus", "4"]).expect(0, &[]);
    let answer = digest(&of(4), &["--vcpus", "2"]).expect(6, &[]).json();
    assert_eq!(differences(&answer), [("vcpus".to_owned(), "differs".to_owned())]);
    digest(&"0".repeat(96), &["--vcpus", "2"]).expect(6, &["name it with --firmware"]);
    digest(&"0".repeat(96), &["--vcpus", "499"]).expect(4, &["name it with --firmware"]);
}

/// A quote of real hardware: its MRTD is that of a firmware that Ubuntu published.
#[test]
fn a_quote_is_compared_register_by_register() {
    let Some(bench) = bench() else { return };
    let Some(quote) = vector("tdx/quotes/quote_v5_sample.dat") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(firmware) = unpacked(QUOTED_FIRMWARE) else { return };
    let image = bench.image_with_firmware(scratch.path(), "firmware-tdx.fd", &firmware);
    let answer = explain(&bench, &[text(&quote), "--against", text(&image), "--memory", "2GiB"]);
    let answer = answer.expect(6, &["NOT verified"]).json();
    assert_eq!(
        answer["registers"][0],
        json!({
            "name": "MRTD",
            "found": answer["registers"][0]["expected"],
            "expected": answer["registers"][0]["expected"],
            "verdict": "equal",
        })
    );
    assert!(answer["differences"].to_string().contains("the log would tell"), "{answer}");
    // Another image; the firmware of the quote is among the candidates.
    let ours = bench.image();
    let words = [text(&quote), "--against", text(ours), "--firmware"];
    let firmware = image.join("firmware-tdx.fd");
    let answer = explain(&bench, &[&words[..], &[text(&firmware)]].concat()).expect(6, &[]).json();
    assert_eq!(differences(&answer)[0].0, "firmware");
    assert_eq!(answer["differences"][0]["value"], text(&firmware));
    // It is pinned, and so found without it; of a manifest alone too.
    let manifest = scratch.path().join("manifest.json");
    std::fs::copy(ours.join("manifest.json"), &manifest).unwrap();
    for against in [ours, manifest.as_path()] {
        let answer = explain(&bench, &[text(&quote), "--against", text(against)]).expect(6, &[]).json();
        let first = (&answer["differences"][0]["input"], &answer["differences"][0]["value"]);
        assert_eq!(first, (&json!("firmware"), &json!("ubuntu-25.10-inteltdx-2025.02")), "{answer}");
    }
    // Cut off, it is no quote.
    let cut = scratch.path().join("cut");
    std::fs::write(&cut, &std::fs::read(&quote).unwrap()[..600]).unwrap();
    explain(&bench, &[text(&cut), "--against", text(ours)]).expect(4, &["cut off"]);
}

/// A quote and the log of the same boot, as Google Compute Engine made them.
#[test]
fn a_log_explains_a_quote_only_where_it_replays_to_it() {
    let Some(bench) = bench() else { return };
    let Some(quote) = vector("tdx/pairs/gce-cos113/quote.bin") else { return };
    let log = vector("tdx/pairs/gce-cos113/ccel.bin").unwrap();
    let other = vector(LOG).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let Some(firmware) = unpacked(QUOTED_FIRMWARE) else { return };
    let image = bench.image_with_firmware(scratch.path(), "firmware-tdx.fd", &firmware);
    let answer = explain(&bench, &[text(&log), "--against", text(&quote)]).expect(0, &[]).json();
    assert_eq!(verdicts(&answer), ["equal"; 4]);
    explain(&bench, &[text(&other), "--against", text(&quote)]).expect(6, &[]);
    let against = ["--against", text(&image), "--memory", "2GiB", "--eventlog"];
    let with = |log: &Path| explain(&bench, &[&[text(&quote)], &against[..], &[text(log)]].concat());
    let answer = with(&log).expect(6, &[]).json();
    let boot_loader: Vec<_> = differences(&answer).into_iter().filter(|(input, _)| input == "boot_loader").collect();
    assert!(boot_loader.iter().all(|(_, kind)| kind == "unexpected") && !boot_loader.is_empty(), "{answer}");
    let answer = with(&other).expect(6, &["does not replay to RTMR0, RTMR1, RTMR2"]).json();
    assert!(answer["differences"].as_array().unwrap().iter().all(|row| row["event"].is_null()), "{answer}");
    let image_words = [text(&log), "--eventlog", text(&log), "--against", text(&image)];
    explain(&bench, &image_words).expect(2, &["--eventlog goes with a TDX quote"]);
}

#[test]
fn what_was_not_compared_is_never_a_match() {
    let Some(bench) = bench() else { return };
    let Some(quote) = vector("tdx/pairs/gce-cos113/quote.bin") else { return };
    let log = vector(LOG).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = scratch.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    // ATTRIBUTES.DEBUG and a byte of MRCONFIGID (Intel TDX DCAP quote format, TD report: offsets 120 and 184 after 48).
    for (at, register) in [(48 + 120, "ATTRIBUTES"), (48 + 184, "MRCONFIGID")] {
        let mut bytes = std::fs::read(&quote).unwrap();
        bytes[at] ^= 1;
        let changed = write("quote", &bytes);
        let answer = explain(&bench, &[text(&changed), "--against", text(&quote)]).expect(6, &[]).json();
        let differing = answer["registers"].as_array().unwrap().iter().filter(|row| row["verdict"] == "differs");
        assert_eq!(differing.map(|row| row["name"].as_str().unwrap()).collect::<Vec<_>>(), [register]);
    }
    explain(&bench, &[text(&quote), "--against", text(&quote)]).expect(0, &[]);
    // Two logs with the same damage in the middle of an event.
    let bytes = std::fs::read(&log).unwrap();
    let event = digest_of(&bench, &log, 3);
    let at = bytes.windows(event.len()).position(|window| window == event).unwrap();
    let cut = write("cut", &bytes[..at + 10]);
    let answer = explain(&bench, &[text(&cut), "--against", text(&cut)]).expect(4, &[]).json();
    assert_eq!(answer["unknown"][0]["input"], "log");
}

#[test]
fn what_is_no_evidence_is_refused_by_what_it_is() {
    let Some(bench) = bench() else { return };
    let Some(table) = vector("tdx/ccel/go-eventlog/CCEL.bin") else { return };
    let image = text(bench.image());
    explain(&bench, &[text(&table), "--against", image]).expect(4, &["/sys/firmware/acpi/tables/data/CCEL"]);
    let kernel = bench.image().join("vmlinuz");
    explain(&bench, &[text(&kernel), "--against", image]).expect(4, &["neither an event log"]);
    let report = vector("snp/reports/attestation.bin").unwrap();
    let log = vector(LOG).unwrap();
    explain(&bench, &[text(&report), "--against", text(&log)]).expect(2, &["nothing in common"]);
    explain(&bench, &["--against", image]).expect(2, &[]);
}
