//! What no tracked file may hold: a path of the machine it was written on, the name of a package host, more than 300 KiB,
//! or binary data.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::allow::Allowances;
use crate::report::{Finding, Outcome};

const MAX_BYTES: usize = 300 << 10;

/// Folders of people and of build machines. In pieces, so that this file does not break its own rule.
const MACHINE_PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tmp/bul", "lion")];

/// Hosts that packages are fetched from, labels reversed for the same reason. `*` is any one label.
const PACKAGE_HOSTS: [&str; 12] = [
    "org.debian.*",
    "com.ubuntu.*",
    "org.pypi",
    "org.pythonhosted.*",
    "io.crates.index",
    "io.crates.static",
    "org.npmjs.*",
    "io.docker.*",
    "com.docker.*",
    "io.ghcr",
    "io.quay",
    "org.golang.proxy",
];

/// Hosts of documentation, which are no package hosts.
const DOCUMENTATION: [&str; 9] = [
    "org.debian.www",
    "org.debian.wiki",
    "org.debian.manpages",
    "org.debian.bugs",
    "org.debian.salsa",
    "org.debian.lists",
    "org.debian.sources",
    "com.ubuntu.manpages",
    "com.docker.docs",
];

/// The files that git tracks, or would if they were added: a mistake is best found before its commit.
pub(crate) fn list(root: &Path) -> Result<Vec<String>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let output = output.map_err(|error| format!("running git ls-files: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text =
        String::from_utf8(output.stdout).map_err(|_| "a tracked file has a name that is not UTF-8".to_owned())?;
    let files: BTreeSet<String> = text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(files.into_iter().collect())
}

pub(crate) fn check(root: &Path, files: &[String], allow: &Allowances) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let mut needed = BTreeSet::new();
    for file in files {
        let path = root.join(file);
        // A file deleted but not yet committed, and a link, which has no content of its own.
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        outcome.looked_at += 1;
        let content = fs::read(&path).map_err(|error| format!("reading {file}: {error}"))?;
        for (rule, finding) in findings(file, &content) {
            match allow.find(file, rule) {
                Some(index) => drop(needed.insert(index)),
                None => outcome.findings.push(finding),
            }
        }
    }
    for (index, unused) in allow.allow.iter().enumerate().filter(|(index, _)| !needed.contains(index)) {
        let message = format!("exception {} ({} in {}) is needed by nothing", index + 1, unused.rule, unused.file);
        outcome.findings.push(Finding::new("tests/check/allow.toml", message));
    }
    Ok(outcome)
}

/// What is wrong with one file, each with the rule it breaks.
fn findings(file: &str, content: &[u8]) -> Vec<(&'static str, Finding)> {
    let mut found = Vec::new();
    if content.len() > MAX_BYTES {
        found.push(("size", Finding::new(file, format!("has {} bytes: the limit is {MAX_BYTES}", content.len()))));
    }
    let text = match std::str::from_utf8(content) {
        Ok(text) if !text.contains('\0') => text,
        _ => {
            found.push(("binary", Finding::new(file, "is binary")));
            return found;
        }
    };
    for (index, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", index + 1);
        if let Some(path) = MACHINE_PATHS.iter().find(|path| has_path(line, path)) {
            found.push(("path", Finding::new(&place, format!("names a path of a machine ({path}...)"))));
        }
        if let Some(host) = package_host(line) {
            found.push(("host", Finding::new(&place, format!("names a package host ({host})"))));
        }
    }
    found
}

/// Whether `line` has an absolute path that starts with `path`; `trees/x` + `path` is a path in something else.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(start, _)| {
        let before = line.get(..start).and_then(|head| head.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '>' | ')' | '*' | '~' | '$'))
    })
}

/// The first package host in `line`.
fn package_host(line: &str) -> Option<&str> {
    let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'));
    words.map(|word| word.trim_matches('.')).find(|word| {
        let labels: Vec<&str> = word.rsplit('.').collect();
        let is = |pattern: &&str| {
            let wanted: Vec<&str> = pattern.split('.').collect();
            labels.len() >= wanted.len()
                && wanted.iter().zip(&labels).all(|(want, label)| *want == "*" || want == label)
        };
        PACKAGE_HOSTS.iter().any(is) && !DOCUMENTATION.iter().any(is)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(content: &[u8]) -> Vec<&'static str> {
        findings("x", content).into_iter().map(|(rule, _)| rule).collect()
    }

    fn host(reversed: &str) -> String {
        reversed.split('.').rev().collect::<Vec<_>>().join(".")
    }

    #[test]
    fn machine_paths_are_found_and_paths_inside_something_are_not() {
        for path in MACHINE_PATHS {
            assert_eq!(rules(format!("cd {path}x\n").as_bytes()), ["path"], "{path}");
            assert_eq!(rules(format!("\"{path}x\"\n").as_bytes()), ["path"], "{path}");
            assert_eq!(rules(format!("trees{path}x {{dir}}{path}x ~{path}\n").as_bytes()), [""; 0], "{path}");
        }
    }

    #[test]
    fn package_hosts_are_found_and_documentation_is_not() {
        for name in ["org.debian.deb", "org.debian.snapshot", "org.debian.de.ftp", "org.pypi", "io.crates.static"] {
            let line = format!("see https://{}/x for more", host(name));
            assert_eq!(rules(line.as_bytes()), ["host"], "{line}");
        }
        for name in ["org.debian.www", "org.debian", "com.example", "org.xpypi"] {
            let line = format!("see https://{}/x for more", host(name));
            assert_eq!(rules(line.as_bytes()), [""; 0], "{line}");
        }
        assert_eq!(rules(crate::deny::PUBLIC_REGISTRY.as_bytes()), [""; 0], "the registry's name in Cargo.lock");
    }

    #[test]
    fn large_and_binary_files_are_found() {
        assert_eq!(rules(&vec![b'a'; MAX_BYTES + 1]), ["size"]);
        assert_eq!(rules(b"a\0b"), ["binary"]);
        assert_eq!(rules(&[0xff, 0xfe]), ["binary"]);
        assert_eq!(rules("text, é".as_bytes()), [""; 0]);
    }

    #[test]
    fn an_exception_covers_one_rule_in_one_file_and_must_be_needed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = ["Cargo.toml".to_owned()];
        let allow = |text: &str| Allowances::parse(text).expect("allowances");
        let one = allow("[[allow]]\nfile = \"Cargo.toml\"\nrule = \"host\"\nreason = \"a reason in words\"\n");
        let outcome = check(root, &files, &one).expect("a check");
        assert_eq!(outcome.findings.len(), 1, "{:?}", outcome.findings);
        assert!(outcome.findings[0].message.contains("needed by nothing"));
        assert!(Allowances::parse("[[allow]]\nfile = \"a\"\nrule = \"host\"\nreason = \"\"\n").is_err());
    }
}
