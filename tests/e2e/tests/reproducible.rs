//! The same lock gives the same bits: at another path, as another user, with another umask, time zone, locale and job count.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use e2e::{Bench, bench, names, run};

/// Copies what a build needs to where another user can read it: the recipe, its lock, the guest, the locked inputs.
fn open_to_everyone(bench: &Bench, to: &Path) {
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o777)).unwrap();
    let recipes = bench.recipe.parent().unwrap();
    let guest = std::env::var("BULLION_GUEST").unwrap();
    let cache = run(&mut bench.command(["cache", "list", "--json"])).json();
    let blobs = format!("{}/blobs", cache.get("directory").unwrap().as_str().unwrap());
    let script = format!(
        "set -e; mkdir -p cache; cp -r '{blobs}' cache/blobs; cp -r '{}' recipes; cp '{guest}' guest; cp '{}' bullion; chmod -R a+rwX .",
        recipes.display(),
        bench.bullion.display()
    );
    run(Command::new("sh").arg("-c").arg(script).current_dir(to)).expect(0, &[]);
}

#[test]
fn a_build_does_not_depend_on_who_makes_it_where_and_when() {
    let Some(bench) = bench() else { return };
    let elsewhere = tempfile::Builder::new().prefix("another place ").tempdir().unwrap();
    open_to_everyone(&bench, elsewhere.path());
    let build = |name: &str, umask: &str, user: Option<u32>, settings: &[(&str, &str)], jobs: &str| {
        let recipe = bench.recipe.file_name().unwrap().to_str().unwrap().to_owned();
        let line = format!(
            "umask {umask}; exec ./bullion build recipes/{recipe} -o '{name}' --guest guest --jobs {jobs} --cache-dir cache"
        );
        let mut command = match user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={user}")]).args([
                    "--clear-groups",
                    "sh",
                    "-c",
                    &line,
                ]);
                command
            }
            None => {
                let mut command = Command::new("sh");
                command.args(["-c", &line]);
                command
            }
        };
        run(command.current_dir(elsewhere.path()).envs(settings.iter().copied())).expect(0, &[]);
    };
    build("first", "022", None, &[("TZ", "UTC"), ("LC_ALL", "C")], "1");
    build(
        "second",
        "077",
        None,
        &[("TZ", "Pacific/Kiritimati"), ("LC_ALL", "tr_TR.UTF-8"), ("SOURCE_DATE_EPOCH", "1")],
        "4",
    );
    let mut copies = vec!["second"];
    if nix::unistd::geteuid().is_root() {
        build("third", "027", Some(54321), &[("HOME", "/nonexistent"), ("USER", "somebody")], "2");
        copies.push("third");
    } else {
        e2e::skipped("building as another user needs root");
    }
    for copy in copies {
        same(&elsewhere.path().join("first"), &elsewhere.path().join(copy));
    }
    same(&elsewhere.path().join("first"), bench.image());
}

/// Asserts that two image directories are the same to the bit; on failure says which files inside differ.
#[track_caller]
fn same(a: &Path, b: &Path) {
    assert_eq!(names(a), names(b));
    let differing: Vec<String> = names(a)
        .into_iter()
        .filter(|name| std::fs::read(a.join(name)).unwrap() != std::fs::read(b.join(name)).unwrap())
        .collect();
    assert!(differing.is_empty(), "{} and {} differ in {differing:?}:\n{}", a.display(), b.display(), difference(a, b));
}

fn difference(a: &Path, b: &Path) -> String {
    match image::compare::compare_images(a, b) {
        Ok(differences) => differences.iter().map(|difference| format!("  {difference}\n")).collect(),
        Err(error) => format!("(no file-level difference: {error})"),
    }
}

#[test]
fn vendored_inputs_are_enough_for_the_same_image() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (store, output) = (directory.path().join("inputs"), directory.path().join("image"));
    let recipe = bench.recipe.to_str().unwrap();
    let none = ["build", recipe, "--store", store.to_str().unwrap(), "--output", output.to_str().unwrap()];
    bench.run(none).expect(2, &["there is no store at", "hint:"]);
    assert!(!store.exists(), "a name that was mistyped is not made");
    let vendor = ["vendor", recipe, "--output", store.to_str().unwrap()];
    assert!(bench.run(vendor).expect(0, &[]).stdout.contains("9 packages written"));
    assert!(bench.run(vendor).expect(0, &[]).stdout.contains(": 0 packages written"));
    // No cache, and no mirror that could be asked.
    let build = ["build", recipe, "--store", store.to_str().unwrap(), "--output", output.to_str().unwrap()];
    let mut command = bench.command(build);
    command.env("BULLION_CACHE", directory.path().join("empty")).env("BULLION_MIRROR", "http://127.0.0.1:1/");
    run(&mut command).expect(0, &[]);
    for artifact in ["rootfs", "initrd", "vmlinuz", "cmdline", "recipe.lock"] {
        let [ours, theirs] =
            [output.as_path(), bench.image()].map(|image| std::fs::read(image.join(artifact)).unwrap());
        assert!(ours == theirs, "{artifact} differs");
    }
}
