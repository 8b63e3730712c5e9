//! Every published vector is read by a test, or stands in `unread_vectors.txt` with the reason: a file that somebody adds
//! to the shelf does not lie there unnoticed.
//!
//! What tests read is told from the string literals in Rust sources. A literal names a file if it is its path, or the end
//! of its path; `{...}` stands for a part of a name, and for a whole one only where that is a literal of the same source.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

const LIST: &str = include_str!("unread_vectors.txt");

/// All files below `folder`, relative to `root`, apart from what a build makes and what git keeps.
fn files(root: &Path, folder: &Path, out: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !matches!(name, "target" | ".git") {
            files(root, &path, out);
        } else if path.is_file() {
            out.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

fn literals(tokens: TokenStream, out: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => literals(group.stream(), out),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                out.extend(inside.filter(|text| !text.is_empty()).map(str::to_owned));
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// Whether `name` is what the pattern says, with at least one sign for each `{...}`.
fn matches(pattern: &str, name: &str, known: &BTreeSet<&str>) -> bool {
    let Some((before, rest)) = pattern.split_once('{') else { return pattern == name };
    let Some((_, after)) = rest.split_once('}') else { return false };
    if before.is_empty() && after.is_empty() {
        return known.contains(name);
    }
    let Some(name) = name.strip_prefix(before) else { return false };
    (1..=name.len()).filter(|at| name.is_char_boundary(*at)).any(|at| {
        let rest = &name[at..];
        if after.contains('{') { matches(after, rest, known) } else { rest == after }
    })
}

/// Whether a literal names the file at `path`.
fn names(literal: &str, path: &str, known: &BTreeSet<&str>) -> bool {
    let (pattern, parts): (Vec<&str>, Vec<&str>) = (literal.split('/').collect(), path.split('/').collect());
    // A name alone says little: it must look like one, and be a whole name.
    let is_enough = pattern.len() > 1 || (literal.len() > 8 && !literal.contains(['{', ' ']));
    is_enough
        && pattern.len() <= parts.len()
        && pattern.iter().rev().zip(parts.iter().rev()).all(|(pattern, part)| matches(pattern, part, known))
}

/// The literals of each Rust source.
fn sources(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = Vec::new();
    files(root, root, &mut all);
    let own = |path: &String| path.ends_with(".rs") && !path.ends_with("check/tests/vectors.rs");
    let read = |path: String| {
        let text = std::fs::read_to_string(root.join(&path)).unwrap();
        let mut found = BTreeSet::new();
        literals(text.parse().unwrap(), &mut found);
        (path, found)
    };
    all.into_iter().filter(own).map(read).collect()
}

#[test]
fn every_vector_is_read_or_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let shelf = std::env::var_os("BULLION_VECTORS").map_or_else(|| root.join("../shared/vectors"), PathBuf::from);
    if !shelf.exists() {
        eprintln!("skipped: no vectors at {}", shelf.display());
        return;
    }
    let (mut vectors, sources) = (Vec::new(), sources(&root));
    files(&shelf, &shelf, &mut vectors);
    // What describes the files beside it.
    vectors.retain(|path| !path.ends_with("README.md") && !path.contains("SHA256SUMS"));
    vectors.sort();
    let is_read = |path: &str| {
        sources.values().any(|literals| {
            let parts = literals.iter().flat_map(|literal| literal.split('/')).collect();
            literals.iter().any(|literal| names(literal, path, &parts))
        })
    };
    let unread: BTreeSet<&str> = vectors.iter().map(String::as_str).filter(|path| !is_read(path)).collect();
    let listed: Vec<(&str, &str)> = LIST
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once("  ").expect("a path, two blanks, a reason"))
        .collect();
    let covers = |entry: &str, path: &str| path == entry || (entry.ends_with('/') && path.starts_with(entry));
    let unlisted: Vec<_> = unread.iter().filter(|path| !listed.iter().any(|(entry, _)| covers(entry, path))).collect();
    assert!(unlisted.is_empty(), "no test reads these vectors: read them, or say why not\n{unlisted:#?}");
    let needless: Vec<_> = listed.iter().filter(|(entry, _)| !unread.iter().any(|path| covers(entry, path))).collect();
    assert!(needless.is_empty(), "these are read now, or are not there: take them off the list\n{needless:#?}");
}
