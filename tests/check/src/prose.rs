//! What the documents point at is there: the files behind relative links, and the tests and fuzz targets that the tables
//! of proofs name in their last column.
//!
//! A test is a name in backquotes with two underscores at least; a fuzz target stands behind the word `fuzz`.

use std::collections::BTreeSet;
use std::path::Path;

use crate::report::{Finding, Outcome};

/// Documents whose tables name tests.
const PROOFS: [&str; 2] = ["docs/threat-model.md", "SPECIFICATION.md"];

pub(crate) fn check(root: &Path, files: &[String], targets: &BTreeSet<String>) -> Result<Outcome, String> {
    let mut outcome = Outcome::default();
    let mut functions = BTreeSet::new();
    for file in files.iter().filter(|file| file.ends_with(".rs") && root.join(file).is_file()) {
        functions.extend(functions_in(&crate::read(&root.join(file))?));
    }
    for file in files.iter().filter(|file| file.ends_with(".md") && root.join(file).is_file()) {
        outcome.looked_at += 1;
        let text = crate::read(&root.join(file))?;
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        let is_there = |target: &str| root.join(folder).join(target).exists();
        outcome.findings.extend(dead_links(file, &text, is_there));
        if PROOFS.contains(&file.as_str()) {
            outcome.findings.extend(missing_proofs(file, &text, &functions, targets));
        }
    }
    Ok(outcome)
}

fn functions_in(text: &str) -> impl Iterator<Item = String> + '_ {
    let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(|c: char| !is_name_part(c)).next());
    names.filter(|name| !name.is_empty()).map(str::to_owned)
}

fn is_name_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Relative links whose file is not there.
fn dead_links(file: &str, text: &str, is_there: impl Fn(&str) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let path = target.split('#').next().unwrap_or(target);
            if !is_there(path) {
                found.push(Finding::new(
                    format!("{file}:{}", index + 1),
                    format!("links to {path}, which is not there"),
                ));
            }
        }
    }
    found
}

/// Names of tests and fuzz targets in the last column of a table that nothing has.
fn missing_proofs(file: &str, text: &str, functions: &BTreeSet<String>, targets: &BTreeSet<String>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some(cell) = line.trim().strip_suffix('|').and_then(|row| row.rsplit('|').next()) else { continue };
        let mut before = "";
        for (position, part) in cell.split('`').enumerate() {
            if position % 2 == 0 {
                before = part;
                continue;
            }
            let is_fuzz = before.trim_end().ends_with("fuzz");
            let is_test = part.chars().all(is_name_part) && part.matches('_').count() >= 2;
            if (is_fuzz && !targets.contains(part)) || (!is_fuzz && is_test && !functions.contains(part)) {
                let kind = if is_fuzz { "fuzz target" } else { "test" };
                found.push(Finding::new(format!("{file}:{}", index + 1), format!("there is no {kind} {part}")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(findings: Vec<Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| format!("{}: {}", finding.place, finding.message)).collect()
    }

    #[test]
    fn links_to_nothing_are_found() {
        let text = "[a](there.md#part) [b](https://example.com/x) [c](#here)\n[d](gone.md)\n";
        assert_eq!(
            messages(dead_links("A.md", text, |path| path == "there.md")),
            ["A.md:2: links to gone.md, which is not there"]
        );
    }

    #[test]
    fn tests_that_do_not_exist_are_found() {
        let functions: BTreeSet<String> = functions_in("fn a_real_test() {}\npub fn other_real_one<T>() {}").collect();
        let targets = BTreeSet::from(["deb".to_owned()]);
        let text = "| attack | test |\n|---|---|\n| a | `x` `a_real_test`, fuzz `deb` |\n| b | `no_such_test` |\n\
                    | c | fuzz `rpm` |\n| `not_in_last_column` | no test yet |\n";
        let found = messages(missing_proofs("A.md", text, &functions, &targets));
        assert_eq!(found, ["A.md:4: there is no test no_such_test", "A.md:5: there is no fuzz target rpm"]);
        assert!(functions.contains("other_real_one"));
    }
}
