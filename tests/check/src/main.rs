//! `cargo run -p bullion-check`: does the workspace keep the rules that are written about it?
//!
//! Written rules alone decay, so this program compares them with what is there: the crate table of ARCHITECTURE.md with
//! the real dependencies, deny.toml with the resolved ones, the invariants about I/O with the sources. It is fast, needs
//! no network and no other program than cargo and git. Exit 0: all rules are kept; 1: some are not; 2: cannot tell.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose only output is a table and findings")]

mod allow;
mod deny;
mod edges;
mod fuzzed;
mod licences;
mod metadata;
mod network;
mod prose;
mod report;
mod sources;
mod table;
mod tracked;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use report::Report;

fn main() -> ExitCode {
    match run() {
        Ok(report) => {
            print!("{}", report.as_text());
            ExitCode::from(u8::from(report.has_findings()))
        }
        Err(message) => {
            eprintln!("bullion-check: {message}");
            ExitCode::from(2)
        }
    }
}

/// Runs every check on the workspace that this program was built from.
fn run() -> Result<Report, String> {
    let root = workspace_root()?;
    let metadata = metadata::read(&root)?;
    let deny = deny::Deny::parse("deny.toml", &read(&root.join("deny.toml"))?)?;
    let table = table::parse("ARCHITECTURE.md", &read(&root.join("ARCHITECTURE.md"))?)?;
    let allow = allow::Allowances::parse(&read(&root.join("tests/check/allow.toml"))?)?;
    let files = tracked::list(&root)?;
    let fuzz = fuzzed::Targets::parse(&read(&root.join("fuzz/Cargo.toml"))?)?;

    let mut report = Report::default();
    report.add("dependencies between crates", edges::check(&metadata, &table));
    report.add("reach of the network", network::check(&metadata));
    report.add("licences", licences::check(&metadata, &deny));
    report.add("banned crates and features", deny.check_bans(&metadata));
    report.add("sources of crates", deny.check_sources(&metadata));
    report.add("no I/O where none is promised", sources::check_purity(&root, &metadata)?);
    report.add("panics denied where foreign bytes are read", sources::check_panic_lints(&root, &metadata)?);
    report.add("tracked files", tracked::check(&root, &files, &allow)?);
    report.add("fuzz targets", fuzzed::check(&root, &metadata, &fuzz)?);
    report.add("what documents point at", prose::check(&root, &files, &fuzz.names())?);
    Ok(report)
}

fn workspace_root() -> Result<PathBuf, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(Path::to_path_buf).ok_or_else(|| format!("{} has no workspace", here.display()))
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("reading {}: {error}", path.display()))
}
