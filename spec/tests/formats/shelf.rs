//! The shelf of bad files, one test for each format.

use std::fs;
use std::path::{Path, PathBuf};

use spec::recipe::{RecipeFile, flatten};
use spec::{Diagnostic, Outcome, SyntaxError};

/// What the first lines of a bad file say of it.
struct Expected {
    error: String,
    line: Option<usize>,
    hint: Option<String>,
}

fn expected(file: &Path, text: &str) -> Expected {
    let header = |key: &str| {
        let prefix = format!("# {key}:");
        let line = text.lines().take(3).find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("{} has no \"{prefix}\" line", file.display())).trim()
    };
    let unless_none = |value: &str| Some(value.to_owned()).filter(|value| value != "none");
    Expected {
        error: header("error").to_owned(),
        line: unless_none(header("line")).map(|line| line.parse().expect("a line number")),
        hint: unless_none(header("hint")),
    }
}

fn files(format: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/bad").join(format);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("the shelf").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Runs `parse` over the shelf of `format` and compares all its errors before failing, so that one run shows them all.
fn check_shelf(format: &str, at_least: usize, parse: impl Fn(&str, &str) -> Result<(), SyntaxError>) {
    let files = files(format);
    assert!(files.len() >= at_least, "the shelf of {format} has lost files: {}", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a text file");
        let expected = expected(&path, &text);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match parse(&name, &text) {
            Ok(()) => wrong.push(format!("{name}: accepted")),
            Err(error) => {
                let prefix = expected.line.map_or(format!("{name}: "), |line| format!("{name}:{line}: "));
                let shown = error.to_string();
                let text_ok = shown.starts_with(&prefix) && shown.contains(&expected.error);
                if !text_ok || error.hint() != expected.hint {
                    wrong.push(format!("{shown}\n    hint: {:?}", error.hint()));
                }
                assert_eq!(error.outcome(), Outcome::Usage, "{name}");
            }
        }
    }
    assert!(wrong.is_empty(), "not as their first lines say:\n{}", wrong.join("\n"));
}

#[test]
fn bad_recipes_are_refused_with_line_and_suggestion() {
    check_shelf("recipe", 40, |file, text| {
        let recipe = RecipeFile::parse(file, text)?;
        flatten(&[(file.to_owned(), text.to_owned(), recipe)]).map(drop)
    });
}

#[test]
fn bad_vm_descriptions_are_refused_with_line_and_suggestion() {
    check_shelf("vm", 20, |file, text| spec::vm::Vm::parse(file, text).map(drop));
}

#[test]
fn bad_locks_are_refused_with_line_and_suggestion() {
    check_shelf("lock", 11, |file, text| spec::lock::Lock::parse(file, text).map(drop));
}

#[test]
fn bad_pins_are_refused_with_line_and_suggestion() {
    check_shelf("pins", 5, |file, text| spec::pins::Pins::parse(file, text).map(drop));
}

#[test]
fn bad_hardening_tables_are_refused_with_line_and_suggestion() {
    check_shelf("hardening", 6, |file, text| spec::hardening::Hardening::parse(file, text).map(drop));
}
