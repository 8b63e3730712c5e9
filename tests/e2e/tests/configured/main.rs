//! The builder's tree against one that dpkg configured: the same packages, with their maintainer scripts run, in a root of
//! their own. Every difference has a reason: the recipe's own words (`rootfs.drop`), or a line of `explained.txt`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod dpkg;
mod facts;

use std::path::PathBuf;

use image::tree::Glob;
use spec::lock::Lock;
use spec::manifest::Manifest;

use facts::Tree;

/// A line of the table: a path pattern as `rootfs.drop` has them, and why what it names differs.
struct Explained {
    pattern: &'static str,
    glob: Glob,
}

fn table() -> Vec<Explained> {
    let lines = include_str!("explained.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (pattern, reason) = line.split_once(char::is_whitespace).unwrap_or_default();
            assert!(reason.trim().len() > 10, "no reason: {line}");
            Explained { pattern, glob: Glob::parse(pattern).unwrap() }
        })
        .collect()
}

#[test]
fn what_dpkg_configures_is_what_is_built_but_for_what_is_explained() {
    let Some(bench) = e2e::bench() else { return };
    let Some(recipe) = std::env::var_os("BULLION_TEST_CONFIGURED").map(PathBuf::from) else {
        return e2e::skipped("BULLION_TEST_CONFIGURED is not set");
    };
    if let Some(reason) = dpkg::cannot_run() {
        return e2e::skipped(reason);
    }
    let directory = tempfile::tempdir().unwrap();
    let lock_path = recipe.with_extension("lock");
    let text = std::fs::read_to_string(&lock_path).unwrap();
    let lock = Lock::parse(&lock_path.display().to_string(), &text).unwrap();
    let theirs = facts::of_directory(&dpkg::configured(&lock, directory.path()));

    let image = directory.path().join("image");
    bench.run(["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), image.as_os_str()]).expect(0, &[]);
    let ours = facts::of_image(&std::fs::read(image.join("rootfs")).unwrap());
    let manifest = Manifest::parse("manifest.json", &std::fs::read(image.join("manifest.json")).unwrap()).unwrap();
    assert!(theirs.len() > 5000 && ours.len() > 2000, "{} and {}", theirs.len(), ours.len());

    let drop = &manifest.recipe.image.as_ref().unwrap().drop;
    let drop: Vec<Glob> = drop.iter().map(|pattern| Glob::parse(pattern).unwrap()).collect();
    compare(&theirs, &ours, &drop);
}

fn compare(theirs: &Tree, ours: &Tree, drop: &[Glob]) {
    let table = table();
    let mut used = vec![false; table.len()];
    let mut unexplained = Vec::new();
    for path in theirs.keys().chain(ours.keys().filter(|path| !theirs.contains_key(*path))) {
        let (there, here) = (theirs.get(path), ours.get(path));
        let left_out = here.is_none() && drop.iter().any(|glob| glob.matches(path));
        if there == here || left_out {
            continue;
        }
        match table.iter().position(|line| line.glob.matches(path)) {
            Some(line) => used[line] = true,
            None => unexplained.push(format!("/{path}\n  dpkg:  {there:?}\n  built: {here:?}")),
        }
    }
    assert!(unexplained.is_empty(), "{} differences are not explained:\n{}", unexplained.len(), unexplained.join("\n"));
    let stale: Vec<&str> = table.iter().zip(&used).filter(|(_, used)| !**used).map(|(line, _)| line.pattern).collect();
    assert!(stale.is_empty(), "lines of explained.txt that explain nothing: {stale:?}");
}
