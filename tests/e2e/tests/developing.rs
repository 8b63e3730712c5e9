//! What makes work on an image quick, and never reaches a release: a shell on the serial line, and builds that take up what
//! earlier ones left.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use e2e::{Bench, bench, run, skipped};

/// The overlay of the minimal image, with its recipe.
fn overlay(bench: &Bench) -> Option<(PathBuf, &'static Path)> {
    static IMAGE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let Some(recipe) = std::env::var_os("BULLION_TEST_DEV").map(PathBuf::from) else {
        skipped("BULLION_TEST_DEV is not set");
        return None;
    };
    let (_, path) = IMAGE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("minimal-dev");
        bench.run([OsStr::new("build"), recipe.as_os_str(), OsStr::new("-o"), path.as_os_str()]).expect(0, &[]);
        (directory, path)
    });
    Some((recipe, path))
}

#[test]
fn whoever_has_the_serial_line_of_an_overlay_has_a_shell() {
    let Some(bench) = bench() else { return };
    let Some((_, image)) = overlay(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-shell", "none", 1, image);
    let text = std::fs::read_to_string(&vm).unwrap();
    std::fs::write(&vm, format!("{text}[host]\nready_timeout_s = 180\n")).unwrap();
    let mut words = vec!["launch".to_owned(), vm.display().to_string(), "--console".to_owned()];
    words.extend(bench.vmm_words());
    let mut command = bench.command(&words);
    let mut launch = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut keyboard = launch.stdin.take().unwrap();
    let (mut asked, mut answered) = (false, false);
    for line in BufReader::new(launch.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // Its tty tells a shell with job control from a program that merely reads.
        if !asked && line.contains(spec::agent::CONSOLE_READY) {
            asked = true;
            std::thread::sleep(std::time::Duration::from_secs(3));
            keyboard.write_all(b"echo answer $((6 * 7)) $(tty) pid $$\n").unwrap();
        }
        if line.contains("answer 42 /dev/ttyS0") {
            answered = true;
            bench.run(["stop", "t-shell"]).expect(0, &[]);
        }
    }
    launch.wait().unwrap();
    assert!(asked && answered, "asked: {asked}");
}

#[test]
fn an_image_with_a_shell_says_so_and_is_never_released() {
    let Some(bench) = bench() else { return };
    let Some((recipe, image)) = overlay(&bench) else { return };
    let scratch = tempfile::tempdir().unwrap();
    let described = bench.run([OsStr::new("describe"), image.as_os_str(), OsStr::new("--json")]).expect(0, &[]).json();
    assert_eq!((described["shell"].as_str(), described["class"].as_str()), (Some("/usr/bin/busybox sh"), Some("dev")));
    let plain = bench.run([OsStr::new("describe"), bench.image().as_os_str(), OsStr::new("--json")]).expect(0, &[]);
    assert!(plain.json()["shell"].is_null());
    let told = bench.run([OsStr::new("describe"), image.as_os_str()]).expect(0, &[]).stdout;
    assert!(told.contains("shell on console   YES: /usr/bin/busybox sh"), "{told}");

    let built = bench.run([
        OsStr::new("build"),
        recipe.as_os_str(),
        OsStr::new("-o"),
        scratch.path().join("again").as_os_str(),
    ]);
    assert!(built.stdout.contains("it has a shell on its serial line"), "{built:?}");
    let at = |name: &str| scratch.path().join(name).display().to_string();
    bench.run(["keygen", "-o", &at("key")]).expect(0, &[]);
    let image = image.display().to_string();
    bench
        .run(["publish", &image, "--key", &at("key"), "-o", &at("bundle")])
        .expect(6, &["has a shell on its serial line (/usr/bin/busybox sh)"]);
    assert!(!scratch.path().join("bundle").exists());
}

#[test]
fn what_has_not_changed_is_not_built_and_what_has_is() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    std::fs::copy(bench.recipe.with_extension("lock"), recipe.with_extension("lock")).unwrap();
    let output = scratch.path().join("image");
    let build = || {
        let mut command = bench.command(["build", "minimal.toml", "-o", "image", "--replace"]);
        let run = run(command.current_dir(scratch.path())).expect(0, &[]);
        run.stderr.contains("nothing has changed")
    };
    build();
    let manifest = std::fs::read(output.join("manifest.json")).unwrap();
    assert!(build(), "the same inputs");
    assert_eq!(std::fs::read(output.join("manifest.json")).unwrap(), manifest);
    // Whatever is not as it was built is built again, to the same bits.
    for spoil in ["rootfs", "cmdline", "sbom.spdx.json"] {
        std::fs::write(output.join(spoil), "spoilt").unwrap();
        assert!(!build(), "{spoil} was spoilt");
        assert!(build());
    }
    std::fs::write(output.join("stray"), "").unwrap();
    assert!(!build() && !output.join("stray").exists());
    let text = std::fs::read_to_string(&recipe).unwrap();
    std::fs::write(&recipe, format!("{text}\n[[rootfs.file]]\npath = \"/etc/changed\"\ncontent = \"x\"\n")).unwrap();
    assert!(!build(), "the recipe has changed");
    assert_ne!(std::fs::read(output.join("manifest.json")).unwrap(), manifest);
}
