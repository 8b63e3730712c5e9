//! A shelf of hosts: each file describes one, as its kernel shows it and as its system calls answer, and the text beside it is
//! what `bullion host check` says about it. A new file is a new test. `BULLION_BLESS=1` writes the texts anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use launcher::HostFacts;
use launcher::host::Answers;
use launcher::host::check::{Needs, Qemu, Status, check, worst};
use serde::Deserialize;
use spec::Tee;

use crate::fixture::vm;
use crate::golden::features;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    /// The file of another host that this one differs from.
    like: Option<String>,
    /// Files and their text; an empty text removes one.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// Symbolic links and their targets.
    #[serde(default)]
    links: BTreeMap<String, String>,
    /// What system calls said, key by key.
    #[serde(default)]
    answers: toml::Table,
    /// The worst line without a VM, and with an ordinary VM of each TEE.
    #[serde(default)]
    worst: BTreeMap<String, String>,
}

fn shelf() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/launch/hosts")
}

fn read(name: &str) -> Host {
    let path = shelf().join(format!("{name}.toml"));
    let host: Host =
        toml::from_str(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let Some(base) = &host.like else { return host };
    let mut whole = read(base);
    whole.files.extend(host.files);
    whole.links.extend(host.links);
    merge(&mut whole.answers, host.answers);
    whole.worst.extend(host.worst);
    whole
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

/// The host as a directory, and its facts.
pub(crate) fn facts(name: &str, root: &Path) -> HostFacts {
    let host = read(name);
    let place = |path: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    for (path, text) in host.files.iter().filter(|(_, text)| !text.is_empty()) {
        fs::write(place(path), text).unwrap();
    }
    for (path, target) in &host.links {
        std::os::unix::fs::symlink(target, place(path)).unwrap();
    }
    let mut answers = serde_json::to_value(Answers::default()).unwrap();
    for (key, value) in host.answers {
        answers[&key] = serde_json::to_value(value).unwrap();
    }
    // TOML has no null: an empty text says that a device can be opened.
    for reason in answers["devices"].as_object_mut().unwrap().values_mut() {
        if reason.as_str() == Some("") {
            *reason = serde_json::Value::Null;
        }
    }
    fs::write(root.join("answers.json"), answers.to_string()).unwrap();
    HostFacts::of_tree(root).unwrap()
}

fn tee(name: &str) -> Option<Needs> {
    (name != "host").then(|| Needs::of(&vm(name, "")))
}

#[test]
fn every_host_on_the_shelf_is_judged_as_the_text_beside_it_says() {
    let mut names: Vec<_> = fs::read_dir(shelf()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names.iter().filter(|path| path.extension().is_some_and(|ending| ending == "toml")) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let root = tempfile::tempdir().unwrap();
        let facts = facts(name, root.path());
        let (features, host) = (features(), read(name));
        let mut text = String::new();
        for kind in ["host", "none", "snp", "tdx"] {
            let lines = check(&facts, Qemu::Known(&features), tee(kind).as_ref());
            if let Some(expected) = host.worst.get(kind) {
                let found = format!("{:?}", worst(&lines)).to_lowercase();
                assert_eq!(&found, expected, "{name}, {kind}: {lines:#?}");
                text.push_str(&format!("== {kind}\n"));
                text.extend(lines.iter().map(|line| format!("{line}\n")));
            }
            for line in lines.iter().filter(|line| line.status == Status::Refusal) {
                assert!(line.remedy.is_some() || line.cause.is_some() || line.reference.is_some(), "{name}: {line}");
            }
        }
        crate::golden::agrees_at(&path.with_extension("txt"), &text);
    }
}

#[test]
fn a_refusal_of_the_check_is_a_refusal_of_the_launch() {
    for name in ["genoa", "genoa-without-snp", "emerald-rapids", "debian-kernel", "cloud-vm"] {
        let root = tempfile::tempdir().unwrap();
        let facts = facts(name, root.path());
        for kind in [Tee::Snp, Tee::Tdx] {
            let kind = kind.to_string();
            let mut situation = crate::golden::Situation::new(&kind, "");
            situation.facts = facts.clone();
            let lines = check(&facts, Qemu::Known(&situation.features), tee(&kind).as_ref());
            let topic = format!("{kind} kvm");
            let kvm_refuses = lines.iter().any(|line| line.topic == topic && line.status == Status::Refusal);
            let no_processor =
                lines.iter().any(|line| line.topic == format!("{kind} processor") && line.status == Status::Refusal);
            assert_eq!(situation.plan().is_err(), kvm_refuses || no_processor, "{name} {kind}: {lines:#?}");
        }
    }
}

#[test]
fn this_host_is_asked_and_judged() {
    let facts = HostFacts::probe();
    let lines = check(&facts, Qemu::NotFetched, None);
    let kvm = lines.iter().find(|line| line.topic == "kvm").unwrap();
    let readable = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    assert!(readable || kvm.status == Status::Refusal, "{kvm}");
}
