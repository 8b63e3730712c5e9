//! Every key that a measuring verb writes is in docs/json.md, under that verb.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use e2e::bench;
use e2e::vectors::vector;
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../docs/json.md");

/// Objects whose keys are data: names of algorithms, numbers of registers.
const BY_NAME: [&str; 2] = ["digests", "pcrs"];

fn keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                found.insert(key.clone());
                if !BY_NAME.contains(&key.as_str()) {
                    keys(value, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

/// What the document says of a verb, and of what all verbs have.
fn section(title: &str) -> String {
    let (common, _) = DOCUMENT.split_once("\n## ").unwrap();
    let start = DOCUMENT.find(&format!("## `{title}`\n")).unwrap_or_else(|| panic!("there is no section {title}"));
    let (_, section) = DOCUMENT[start..].split_once('\n').unwrap();
    common.to_owned() + section.split("\n## ").next().unwrap()
}

#[track_caller]
fn documented(title: &str, value: &Value) {
    let (text, mut found) = (section(title), BTreeSet::new());
    keys(value, &mut found);
    assert!(found.len() > 2, "{title}: {value}");
    let missing: Vec<_> = found.iter().filter(|key| !text.contains(&format!("`{key}`"))).collect();
    assert_eq!(missing, Vec::<&String>::new(), "docs/json.md, {title}");
}

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
}
