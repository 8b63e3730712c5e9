//! What the sources of a crate must not do, and what they must say, found in their tokens: comments and strings do not
//! count, and neither does code under `#[cfg(test)]`.

mod scan;

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::TokenTree;

use crate::metadata::Metadata;
use crate::report::{Finding, Outcome};
use scan::{flat, paths_into_std, without_tests};

/// What each crate promises not to touch: modules of `std`, `*` being all of it.
const PROMISES: [(&str, &[&str]); 5] = [
    ("measure", &["*"]),
    ("evidence", &["fs", "env", "io", "net", "os", "process", "thread", "time"]),
    ("spec", &["fs", "env", "io", "net", "os", "process", "thread", "time"]),
    ("store", &["net"]),
    ("image", &["net"]),
];

/// Words that reach the clock or the outside without naming a module of `std`.
const PURE_CRATES: [&str; 3] = ["measure", "evidence", "spec"];
const IMPURE_WORDS: [&str; 5] = ["SystemTime", "Instant", "println", "eprintln", "dbg"];
/// What makes images must not ask a clock, of whatever type: `build --verify` cannot set the date of the second build.
const CLOCKLESS_CRATES: [&str; 1] = ["image"];
const CLOCK_WORDS: [&str; 2] = ["now", "clock_gettime"];

/// Crates that read foreign bytes in most of their modules: the panic lints stand at their root.
const NO_PANIC_CRATES: [&str; 4] = ["spec", "measure", "evidence", "guest"];
const NO_PANIC_LINTS: [&str; 4] = ["unwrap_used", "expect_used", "panic", "indexing_slicing"];

/// A source file: its path below the root of the workspace, and its tokens outside tests.
struct Source {
    place: String,
    tokens: Vec<TokenTree>,
}

/// The promises about I/O are kept.
pub(crate) fn check_purity(root: &Path, metadata: &Metadata) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for (name, forbidden) in PROMISES {
        if !metadata.members().any(|package| metadata.folder(package) == name) {
            outcome.findings.push(Finding::new(name, "a crate that promises something is not there"));
            continue;
        }
        let sources = sources_of(root, name)?;
        if name == "measure" && !sources.iter().any(|source| is_root(&source.place) && has_word(source, "no_std")) {
            outcome.findings.push(Finding::new(format!("{name}/src/lib.rs"), "does not say #![no_std]"));
        }
        for source in &sources {
            outcome.looked_at += 1;
            let pure: &[&str] = if PURE_CRATES.contains(&name) { &IMPURE_WORDS } else { &[] };
            let clock: &[&str] = if CLOCKLESS_CRATES.contains(&name) { &CLOCK_WORDS } else { &[] };
            outcome.findings.extend(impurities(source, forbidden, &[pure, clock].concat()));
        }
    }
    Ok(outcome)
}

fn impurities(source: &Source, forbidden: &[&str], words: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (module, line) in paths_into_std(&source.tokens) {
        if forbidden.contains(&"*") || forbidden.contains(&module.as_str()) {
            findings.push(Finding::new(format!("{}:{line}", source.place), format!("uses std::{module}")));
        }
    }
    for token in flat(&source.tokens) {
        if let TokenTree::Ident(word) = &token
            && words.iter().any(|impure| word == impure)
        {
            let line = word.span().start().line;
            findings.push(Finding::new(format!("{}:{line}", source.place), format!("uses {word}")));
        }
    }
    findings
}

/// The crates that mostly read foreign bytes deny every way to panic that clippy knows, at their root.
pub(crate) fn check_panic_lints(root: &Path, metadata: &Metadata) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    for name in NO_PANIC_CRATES {
        outcome.looked_at += 1;
        if !metadata.members().any(|package| metadata.folder(package) == name) {
            outcome.findings.push(Finding::new(name, "a crate that must not panic is not there"));
            continue;
        }
        let sources = sources_of(root, name)?;
        let missing = |lint: &&&str| !sources.iter().any(|source| is_root(&source.place) && has_word(source, lint));
        for lint in NO_PANIC_LINTS.iter().filter(missing) {
            outcome
                .findings
                .push(Finding::new(format!("{name}/src"), format!("its root does not deny clippy::{lint}")));
        }
    }
    Ok(outcome)
}

/// Whether some module of a crate says that it reads foreign bytes, by denying indexing.
pub(crate) fn reads_foreign_bytes(root: &Path, folder: &str) -> Result<bool, String> {
    Ok(sources_of(root, folder)?.iter().any(|source| has_word(source, "indexing_slicing")))
}

fn is_root(place: &str) -> bool {
    place.ends_with("src/lib.rs") || place.ends_with("src/main.rs")
}

fn has_word(source: &Source, wanted: &str) -> bool {
    flat(&source.tokens).iter().any(|token| matches!(token, TokenTree::Ident(word) if word == wanted))
}

/// The sources of the crate in `folder`, without the files that only its tests are made of.
fn sources_of(root: &Path, folder: &str) -> Result<Vec<Source>, String> {
    let src = root.join(folder).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files)?;
    files.sort();
    let mut sources = Vec::new();
    let mut only_tests: Vec<PathBuf> = Vec::new();
    for file in files {
        let text = crate::read(&file)?;
        let place = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let (tokens, test_modules) = without_tests(&text).map_err(|error| format!("{place}: {error}"))?;
        only_tests.extend(test_modules.iter().map(|name| module_folder(&file).join(name)));
        sources.push((file, Source { place, tokens }));
    }
    let is_test =
        |file: &Path| only_tests.iter().any(|test| file.with_extension("") == *test || file.starts_with(test));
    Ok(sources.into_iter().filter(|(file, _)| !is_test(file)).map(|(_, source)| source).collect())
}

/// Where the modules that `file` declares lie.
fn module_folder(file: &Path) -> PathBuf {
    let is_folder_root = file.file_stem().is_some_and(|stem| stem == "lib" || stem == "main" || stem == "mod");
    if is_folder_root { file.parent().unwrap_or(file).to_path_buf() } else { file.with_extension("") }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("reading {}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| format!("reading {}: {error}", folder.display()))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, forbidden: &[&str], pure: bool) -> Vec<String> {
        let words: &[&str] = if pure { &IMPURE_WORDS } else { &[] };
        let source = Source { place: "x.rs".to_owned(), tokens: without_tests(text).expect("Rust").0 };
        impurities(&source, forbidden, words).into_iter().map(|f| format!("{}: {}", f.place, f.message)).collect()
    }

    #[test]
    fn uses_of_the_outside_are_found_with_their_line() {
        let text = "use std::collections::BTreeMap;\nuse std::{fmt, fs};\nfn f() { let _ = std::env::var(\"X\"); }\n";
        assert_eq!(found(text, &["fs", "env"], false), ["x.rs:2: uses std::fs", "x.rs:3: uses std::env"]);
        assert_eq!(found(text, &["*"], false).len(), 4);
        assert_eq!(found("fn f() -> Instant { Instant::now() }", &[], true).len(), 2);
        assert_eq!(found("use ::std::net::TcpStream;", &["net"], false), ["x.rs:1: uses std::net"]);
        assert_eq!(found("extern crate std;", &["*"], false), ["x.rs:1: uses std::*"]);
    }

    #[test]
    fn asking_a_clock_is_told_from_having_a_time() {
        let text = "fn f() { file.set_modified(SystemTime::UNIX_EPOCH); }\nfn g() -> u64 { Clock::now().into() }\n";
        let source = Source { place: "x.rs".to_owned(), tokens: without_tests(text).expect("Rust").0 };
        let found = impurities(&source, &[], &CLOCK_WORDS);
        assert_eq!(found.iter().map(|finding| finding.place.as_str()).collect::<Vec<_>>(), ["x.rs:2"]);
    }

    #[test]
    fn comments_strings_and_tests_do_not_count() {
        let text = "//! std::fs\nconst A: &str = \"std::fs\"; // std::env\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(found(text, &["*"], true), [""; 0]);
        assert_eq!(found("#[cfg(unix)]\nmod a { use std::fs; }\n", &["fs"], true).len(), 1, "another cfg is no test");
    }
}
