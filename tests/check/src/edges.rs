//! The dependencies between the crates of the workspace are those that ARCHITECTURE.md allows.
//!
//! A library's tests keep to the table too: an edge that only tests have still decides who can be changed without whom.

use std::collections::BTreeSet;

use crate::metadata::Metadata;
use crate::report::{Finding, Outcome};
use crate::table::{MayUse, Table};

/// Crates below this folder test the others; nothing may depend on them but another of them.
const TESTS: &str = "tests/";

pub(crate) fn check(metadata: &Metadata, table: &Table) -> Outcome {
    let mut outcome = Outcome::default();
    let mut used: BTreeSet<(String, String)> = BTreeSet::new();
    for package in metadata.members() {
        let from = metadata.folder(package);
        let manifest = format!("{from}/Cargo.toml");
        outcome.looked_at += 1;
        let row = table.rows.get(from);
        if row.is_none() {
            outcome.findings.push(Finding::new(&manifest, format!("the crate is not in the table of {}", table.file)));
        }
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let Some(target) = metadata.members().find(|member| member.name == dependency.name) else { continue };
            let to = metadata.folder(target);
            if to == from {
                continue;
            }
            used.insert((from.to_owned(), to.to_owned()));
            let kind = dependency.kind.as_deref().map(|kind| format!(" ({kind})")).unwrap_or_default();
            if let Some(reason) = refusal(from, to, row.map(|(_, uses)| uses), &table.file) {
                outcome.findings.push(Finding::new(&manifest, format!("depends on {to}{kind}: {reason}")));
            }
        }
    }
    notes(metadata, table, &used, &mut outcome);
    outcome
}

/// Why `from` may not depend on `to`; `None` where it may.
fn refusal(from: &str, to: &str, uses: Option<&MayUse>, file: &str) -> Option<String> {
    let allowed = match uses? {
        MayUse::Any => true,
        MayUse::Only(names) => names.contains(to),
    };
    if from.starts_with(TESTS) {
        return None;
    }
    if to.starts_with(TESTS) {
        return Some(format!("nothing outside may depend on a crate below {TESTS}"));
    }
    if allowed {
        return None;
    }
    Some(format!("the table of {file} does not allow it"))
}

fn notes(metadata: &Metadata, table: &Table, used: &BTreeSet<(String, String)>, outcome: &mut Outcome) {
    let folders: BTreeSet<&str> = metadata.members().map(|package| metadata.folder(package)).collect();
    for (name, (line, uses)) in &table.rows {
        let place = format!("{}:{line}", table.file);
        if !folders.contains(name.as_str()) {
            outcome.findings.push(Finding::new(place, format!("the table has {name}, the workspace has not")));
            continue;
        }
        let MayUse::Only(uses) = uses else { continue };
        for to in uses.iter().filter(|to| !used.contains(&(name.clone(), (*to).clone()))) {
            outcome.notes.push(Finding::new(&place, format!("{name} may use {to} and does not")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fixture::workspace;

    const TABLE: &str = "| crate | what | may use |\n|---|---|---|\n| spec | s | - |\n| image | i | spec |\n\
                         | archive | a | spec |\n| tests/e2e | t | any |\n";

    fn run(members: &[crate::metadata::fixture::Member]) -> (Vec<String>, Vec<String>) {
        let outcome = check(&workspace(members), &crate::table::parse("A.md", TABLE).unwrap());
        let texts = |found: Vec<Finding>| found.iter().map(|f| format!("{}: {}", f.place, f.message)).collect();
        (texts(outcome.findings), texts(outcome.notes))
    }

    #[test]
    fn a_violating_edge_is_found_in_every_kind() {
        for (kind, shown) in [(None, ""), (Some("dev"), " (dev)"), (Some("build"), " (build)")] {
            let (findings, _) = run(&[
                ("spec", &[]),
                ("archive", &[("spec", None)]),
                ("image", Box::leak(Box::new([("spec", None), ("archive", kind)]))),
                ("tests/e2e", &[("archive", None)]),
            ]);
            let expected = format!("image/Cargo.toml: depends on archive{shown}: the table of A.md does not allow it");
            assert_eq!(findings, [expected]);
        }
    }

    #[test]
    fn nothing_depends_on_a_test_crate() {
        let (findings, _) =
            run(&[("spec", &[("tests/e2e", Some("dev"))]), ("archive", &[]), ("image", &[]), ("tests/e2e", &[])]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].contains("nothing outside may depend"), "{findings:?}");
    }

    #[test]
    fn a_test_crate_may_depend_on_another() {
        let table = TABLE.to_owned() + "| tests/lab | l | any |\n";
        let members: [crate::metadata::fixture::Member; 5] = [
            ("spec", &[]),
            ("archive", &[]),
            ("image", &[]),
            ("tests/e2e", &[]),
            ("tests/lab", &[("tests/e2e", Some("dev"))]),
        ];
        let outcome = check(&workspace(&members), &crate::table::parse("A.md", &table).unwrap());
        assert_eq!(outcome.findings.len(), 0);
    }

    #[test]
    fn crates_and_rows_without_each_other_are_found_and_unused_permissions_noted() {
        let (findings, notes) =
            run(&[("spec", &[]), ("image", &[]), ("broker", &[]), ("tests/e2e", &[("spec", None)])]);
        assert_eq!(
            findings,
            [
                "broker/Cargo.toml: the crate is not in the table of A.md",
                "A.md:5: the table has archive, the workspace has not",
            ]
        );
        assert_eq!(notes, ["A.md:4: image may use spec and does not"]);
    }
}
