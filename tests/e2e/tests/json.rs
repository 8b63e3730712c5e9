//! Every key that a measuring verb writes is in docs/json.md, under that verb.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use e2e::vectors::vector;
use e2e::{bench, documented};

#[test]
fn every_key_is_documented() {
    let Some(bench) = bench() else { return };
    let image = bench.image().display().to_string();
    let of = |name: &str| bench.image().join(name).display().to_string();
    let json = |words: &[&str], codes: &[i32]| {
        let run = bench.run(words.iter().chain(&["--json"]));
        assert!(codes.contains(&run.code), "{words:?}: {}", run.stderr);
        run.json()
    };
    documented("measure IMAGE_OR_VM", &json(&["measure", &image, "--vcpus", "1,2"], &[0]));
    let (kernel, initrd) = (of("vmlinuz"), of("initrd"));
    let boot = ["--kernel", &kernel, "--initrd", &initrd, "--cmdline", "quiet"];
    let snp = of("firmware-snp.fd");
    let words = [&["measure", "snp", "--firmware", &snp, "--vcpus", "2", "--steps"][..], &boot].concat();
    let digest = json(&words, &[0]);
    documented("measure snp", &digest);
    let tdx = of("firmware-tdx.fd");
    let words = [&["measure", "tdx", "--firmware", &tdx, "--steps"][..], &boot].concat();
    documented("measure tdx", &json(&words, &[0, 6]));
    documented("firmware show", &json(&["firmware", "show", &tdx], &[0]));
    documented("firmware show", &json(&["firmware", "show", &snp], &[0]));
    let found = "ab".repeat(48);
    documented("explain", &json(&["explain", "--digest", &found, "--against", &image], &[6]));
    let Some(log) = vector("tdx/ccel/trustee/CCEL_data") else { return };
    let log = log.display().to_string();
    documented("eventlog show", &json(&["eventlog", "show", &log], &[0]));
    documented("eventlog replay", &json(&["eventlog", "replay", &log], &[0]));
    documented("explain", &json(&["explain", &log, "--against", &image], &[4, 6]));
    let against = ["explain", &log, "--against", &log];
    documented("explain", &json(&against, &[0]));
    let Some(quote) = vector("tdx/quotes/trustee_quote_4.dat") else { return };
    let quote = quote.display().to_string();
    documented("eventlog replay", &json(&["eventlog", "replay", &log, "--quote", &quote], &[4, 6]));
    documented("explain", &json(&["explain", &quote, "--against", &image], &[4, 6]));
}

/// What needs a QEMU that answers: registers of a platform, and what a rewritten manifest has other values of.
#[test]
fn every_key_about_machines_is_documented() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let of = |name: &str| image.join(name).display().to_string();
    let json = |words: &[&str]| bench.run(words.iter().chain(&["--json"])).expect(0, &[]).json();
    if bench.unpublished {
        return e2e::skipped("the firmware of an UNPUBLISHED lock may not be pinned");
    }
    let (firmware, kernel, initrd) = (of("firmware-tdx.fd"), of("vmlinuz"), of("initrd"));
    let boot = ["--kernel", &kernel, "--initrd", &initrd, "--vcpus", "1", "--memory", "2GiB"];
    documented("measure tdx", &json(&[&["measure", "tdx", "--steps", "--firmware", &firmware][..], &boot].concat()));
    let path = |path: &Path| path.display().to_string();
    let written = json(&["measure", &path(&image), "--write", "--vcpus", "1", "--memory", "2GiB"]);
    assert!(!written["moved"].as_array().unwrap().is_empty(), "{written}");
    documented("measure IMAGE --write", &written);
    documented(
        "measure IMAGE_OR_VM",
        &json(&["measure", &path(&image), "--tee", "tdx", "--vcpus", "1", "--memory", "2GiB"]),
    );
}
