//! What goes wrong is said, with the file, a hint and the right exit code, and leaves nothing half-made behind.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use e2e::{Bench, bench, names, run, skipped};

/// A cache of its own whose blobs are copies of the real cache's, so that a test may spoil them.
fn own_cache(bench: &Bench, directory: &Path) -> PathBuf {
    let listed = bench.run(["cache", "list", "--json"]).json();
    let cache = directory.join("cache");
    let lock = std::fs::read_to_string(bench.recipe.with_extension("lock")).unwrap();
    for entry in listed["entries"].as_array().unwrap().iter().filter(|entry| entry["kind"] == "blob") {
        let path = Path::new(entry["path"].as_str().unwrap());
        let name = path.file_name().unwrap().to_str().unwrap();
        if lock.contains(name) {
            let target = cache.join("blobs/sha256").join(&name[..2]);
            std::fs::create_dir_all(&target).unwrap();
            std::fs::copy(path, target.join(name)).unwrap();
        }
    }
    cache
}

/// The cached file of a locked package.
fn blob(bench: &Bench, cache: &Path, package: &str) -> PathBuf {
    let text = std::fs::read_to_string(bench.recipe.with_extension("lock")).unwrap();
    let lock = spec::lock::Lock::parse("lock", &text).unwrap();
    let hex = lock.package.iter().find(|locked| locked.name == package).unwrap().sha256.to_string();
    cache.join("blobs/sha256").join(&hex[..2]).join(hex)
}

fn recipe_with(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path)
}

#[test]
fn recipes_with_mistakes_are_refused_with_their_line() {
    let Some(bench) = bench() else { return };
    let base = "schema = 1\nname = \"bad\"\n[suites.trixie]\n[packages]\n";
    for (text, wanted) in [
        (format!("{base}ad = [\"libc6\"]\n"), vec!["bad.toml:5", "unknown field `ad`", "did you mean \"add\"?"]),
        (format!("{base}add = [\"Libc6\"]\n"), vec!["bad.toml:5", "does not name a package"]),
        (
            format!(
                "{base}add = [\"libc6/sid\"]\n[kernel]\npackage = \"linux\"\n[rootfs]\nverity_salt = \"{}\"\nuuid = \"6f2d9e57-3c81-4b0a-9d64-0e7a51c8b2f3\"\n",
                "00".repeat(32)
            ),
            vec!["bad.toml:5", "suite \"sid\""],
        ),
        ("schema = 2\nname = \"bad\"\n".to_owned(), vec!["bad.toml:1", "schema 2 is not known"]),
        (format!("{base}add = [\n"), vec!["bad.toml:"]),
        ("schema = 1\nname = \"bad\"\nextends = \"bad.toml\"\n".to_owned(), vec!["extend each other"]),
    ] {
        let (_directory, path) = recipe_with(&text);
        bench.run(["build".as_ref(), path.as_os_str(), "-o".as_ref(), "out".as_ref()]).expect(2, &wanted);
    }
    bench.run(["build", "no-such-recipe.toml", "-o", "out"]).expect(2, &["no-such-recipe.toml"]);
    bench.run(["build", "--no-such-flag"]).expect(2, &[]);
}

#[test]
fn an_unlocked_recipe_and_a_stale_lock_are_refused() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    let build =
        || bench.run(["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), scratch.path().join("out").as_os_str()]);
    build().expect(2, &["is not locked", "hint:", "bullion lock"]);
    std::fs::copy(bench.recipe.with_extension("lock"), scratch.path().join("minimal.lock")).unwrap();
    let base = scratch.path().join("base.toml");
    let text = std::fs::read_to_string(&base).unwrap().replace("\"tzdata\"", "\"tzdata\", \"zlib1g\"");
    std::fs::write(&base, text).unwrap();
    build().expect(4, &["another state of", "bullion lock"]);
    assert_eq!(names(scratch.path()), ["base.toml", "minimal.lock", "minimal.toml"]);
}

#[test]
fn damaged_missing_and_swapped_packages_are_refused() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let cache = own_cache(&bench, scratch.path());
    let output = scratch.path().join("out");
    let build = || {
        let words = [
            "build".as_ref(),
            bench.recipe.as_os_str(),
            "-o".as_ref(),
            output.as_os_str(),
            "--cache-dir".as_ref(),
            cache.as_os_str(),
        ];
        bench.run(words)
    };
    let victim = blob(&bench, &cache, "tzdata");
    let good = std::fs::read(&victim).unwrap();

    std::fs::write(&victim, &good[..good.len() - 1]).unwrap();
    build().expect(4, &["tzdata", &format!("{} bytes, expected {}", good.len() - 1, good.len()), "hint:"]);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    std::fs::write(&victim, &flipped).unwrap();
    build().expect(4, &["tzdata", "SHA-256", "expected"]);
    std::fs::copy(blob(&bench, &cache, "base-files"), &victim).unwrap();
    build().expect(4, &["tzdata"]);
    std::fs::remove_file(&victim).unwrap();
    build().expect(4, &["tzdata", "bullion fetch"]);
    assert!(!output.exists(), "a failed build left an output");
    std::fs::write(&victim, &good).unwrap();
    build().expect(0, &[]);
    assert_eq!(
        std::fs::read(output.join("manifest.json")).unwrap(),
        std::fs::read(bench.image().join("manifest.json")).unwrap()
    );
}

#[test]
fn an_existing_output_is_kept_unless_told_otherwise() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("out");
    std::fs::create_dir(&output).unwrap();
    std::fs::write(output.join("precious"), "data").unwrap();
    let words = ["build".as_ref(), bench.recipe.as_os_str(), "-o".as_ref(), output.as_os_str()];
    let replace = || bench.run(words.into_iter().chain(["--replace".as_ref()]));
    bench.run(words).expect(2, &["hint:"]);
    // What is not an image is not even replaced when told to.
    replace().expect(2, &["is not an image directory"]);
    assert_eq!(names(&output), ["precious"]);
    std::fs::remove_dir_all(&output).unwrap();
    bench.build(&output);
    std::fs::write(output.join("initrd"), "damaged").unwrap();
    bench.run(words).expect(2, &["--replace"]);
    replace().expect(0, &[]);
    assert_eq!(std::fs::read(output.join("initrd")).unwrap(), std::fs::read(bench.image().join("initrd")).unwrap());
    assert_eq!(names(scratch.path()), ["out"]);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    bench.image();
    let script = format!(
        "mount -t tmpfs -o size=4m tmpfs '{0}' || exit 99; '{1}' build '{2}' -o '{0}/out'; code=$?; ls -A '{0}' >&2; exit $code",
        scratch.path().display(),
        bench.bullion.display(),
        bench.recipe.display()
    );
    let run = run(Command::new("unshare").args(["--mount", "--map-root-user", "sh", "-c", &script]));
    if run.code == 99 || run.stderr.contains("unshare") {
        return skipped("a full disk: this host lets no test mount a small file system");
    }
    let run = run.expect(3, &["No space left on device"]);
    assert!(
        !run.stderr.lines().any(|line| line.contains("out")
            && !line.contains("error")
            && !line.contains("hint")
            && !line.contains('/')),
        "{}",
        run.stderr
    );
}

#[test]
fn a_mirror_that_cannot_be_read_or_lies_is_refused() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    let cache = scratch.path().join("cache");
    let lock = |mirror: &str| {
        let words = [
            "lock".as_ref(),
            recipe.as_os_str(),
            "--mirror".as_ref(),
            mirror.as_ref(),
            "--cache-dir".as_ref(),
            cache.as_os_str(),
        ];
        bench.run(words)
    };
    let unreadable = lock("http://127.0.0.1:9/nothing");
    assert_eq!(unreadable.code, 4, "{unreadable:?}");
    assert!(unreadable.stderr.contains("127.0.0.1"), "{unreadable:?}");
    let dists = scratch.path().join("mirror/dists");
    for suite in ["trixie", "trixie-backports", "sid"] {
        std::fs::create_dir_all(dists.join(suite)).unwrap();
        std::fs::write(dists.join(suite).join("InRelease"), "Origin: Debian\nSuite: stable\nCodename: trixie\n")
            .unwrap();
    }
    lock(&format!("file://{}", scratch.path().join("mirror").display()))
        .expect(5, &["the release file of suite", "hint:"]);
    assert!(!scratch.path().join("minimal.lock").exists());
}

#[test]
fn a_damaged_manifest_is_refused() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let vm = bench.vm(scratch.path(), "t-manifest", "none", 1, &image);
    let path = image.join("manifest.json");
    let good = std::fs::read(&path).unwrap();
    for bad in [&good[..good.len() / 2], b"", b"{}", b"\xff\xfe"] {
        std::fs::write(&path, bad).unwrap();
        bench.launch(&vm, &["--until-ready"]).expect(4, &["manifest.json", "hint:"]);
    }
    std::fs::remove_file(&path).unwrap();
    bench.launch(&vm, &["--until-ready"]).expect(4, &["manifest.json", "hint:"]);
}

#[test]
fn firmware_that_is_not_pinned_is_refused_in_a_tee() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let image = bench.copy_image(scratch.path());
    let path = image.join("firmware-snp.fd");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0x1000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let manifest = image.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let old = value["artifacts"]["firmware-snp.fd"]["sha256"].as_str().unwrap();
    std::fs::write(&manifest, text.replace(old, &spec::Sha256Digest::of(&bytes).to_string())).unwrap();
    let vm = bench.vm(scratch.path(), "t-unpinned", "snp", 1, &image);
    bench.launch(&vm, &["--until-ready", "--dangerously-allow-unsigned"]).expect(6, &["not pinned", "hint:"]);
    // It can still be measured.
    bench.run(["measure", image.to_str().unwrap(), "--tee", "snp", "--vcpus", "1"]).expect(0, &[]);
}

#[test]
fn a_program_that_is_not_qemu_is_refused() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-qemu", "none", 1, bench.image());
    let qemu = scratch.path().join("qemu-system-x86_64");
    let script = |text: &str| {
        std::fs::write(&qemu, text).unwrap();
        std::fs::set_permissions(&qemu, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("#!/bin/sh\necho 'QEMU emulator version 9.0.2'\n");
    bench.launch(&vm, &["--until-ready", "--qemu", qemu.to_str().unwrap()]).expect(3, &["qemu-system-x86_64", "hint:"]);
    script("#!/bin/sh\nexit 1\n");
    bench.launch(&vm, &["--until-ready", "--qemu", qemu.to_str().unwrap()]).expect(3, &["qemu-system-x86_64"]);
    bench.launch(&vm, &["--qemu", "/no/such/qemu"]).expect(3, &["/no/such/qemu"]);
}

/// Starts a program, and kills it unless it has ended by then.
fn kill_after(delay_ms: u64, command: &mut Command) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(delay_ms));
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_build_killed_at_any_moment_leaves_no_output_and_the_next_one_works() {
    let Some(bench) = bench() else { return };
    let whole = bench.image();
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("out");
    for delay_ms in [5, 20, 50, 100, 150, 200, 300, 400, 600] {
        let words = ["build".as_ref(), bench.recipe.as_os_str(), "-o".as_ref(), output.as_os_str()];
        kill_after(delay_ms, &mut bench.command(words));
        if output.exists() {
            assert_eq!(names(&output), names(whole), "a killed build left a part of an output");
            std::fs::remove_dir_all(&output).unwrap();
        }
    }
    bench.build(&output);
    assert_eq!(names(scratch.path()), ["out"], "remains of killed builds were not cleared");
    assert_eq!(
        std::fs::read(output.join("manifest.json")).unwrap(),
        std::fs::read(whole.join("manifest.json")).unwrap()
    );
}

#[test]
fn a_lock_killed_at_any_moment_leaves_the_old_lock_whole() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    let lock = scratch.path().join("minimal.lock");
    std::fs::copy(bench.recipe.with_extension("lock"), &lock).unwrap();
    let before = std::fs::read(&lock).unwrap();
    for delay_ms in [10, 100, 400, 1000] {
        let words = [
            "lock".as_ref(),
            recipe.as_os_str(),
            "--update".as_ref(),
            "--no-fetch".as_ref(),
            "--accept-expired".as_ref(),
            "sid".as_ref(),
        ];
        kill_after(delay_ms, &mut bench.command(words));
        let now = std::fs::read_to_string(&lock).unwrap();
        assert!(
            now.as_bytes() == before || spec::lock::Lock::parse("lock", &now).is_ok(),
            "a killed lock left a broken file"
        );
    }
}

#[test]
fn a_launch_killed_at_any_moment_leaves_no_vm_behind() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-kill", "none", 1, bench.image());
    for delay_ms in [10, 60, 120, 250, 500, 1000] {
        kill_after(delay_ms, &mut bench.launching(&vm, &[]));
        std::thread::sleep(Duration::from_millis(100));
        let listed = bench.run(["ps", "--json"]).expect(0, &[]).json();
        let running =
            listed["vms"].as_array().unwrap().iter().any(|vm| vm["name"] == "t-kill" && vm["phase"] != "exited");
        assert!(!running, "after {delay_ms} ms: {listed}");
    }
    let processes = run(Command::new("sh").args(["-c", "grep -lz [t]-kill /proc/[0-9]*/cmdline 2>/dev/null | wc -l"]));
    assert_eq!(processes.stdout.trim(), "0", "a QEMU of a killed launch is still there");
}

#[test]
fn the_cache_is_listed_checked_and_pruned() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let cache = own_cache(&bench, scratch.path());
    let run = |words: &[&str]| {
        let mut all: Vec<&std::ffi::OsStr> =
            vec!["--cache-dir".as_ref(), cache.as_os_str(), "--json".as_ref(), "cache".as_ref()];
        all.extend(words.iter().map(std::ffi::OsStr::new));
        bench.run(all)
    };
    let packages = run(&["list"]).expect(0, &[]).json()["entries"].as_array().unwrap().len();
    assert!(packages >= 9);
    assert_eq!(run(&["verify"]).expect(0, &[]).json()["checked"], packages);
    let victim = blob(&bench, &cache, "tzdata");
    std::fs::write(&victim, "damaged").unwrap();
    run(&["verify"]).expect(4, &[victim.file_name().unwrap().to_str().unwrap(), "hint:"]);
    // What the lock names is kept, everything else goes.
    let stray = spec::Sha256Digest::of(b"stray").to_string();
    std::fs::create_dir_all(cache.join("blobs/sha256").join(&stray[..2])).unwrap();
    std::fs::write(cache.join("blobs/sha256").join(&stray[..2]).join(&stray), "stray").unwrap();
    let pruned = run(&["prune", "--keep", bench.recipe.to_str().unwrap()]).expect(0, &[]).json();
    assert_eq!(pruned["removed"].as_array().unwrap().len(), 1, "{pruned}");
    run(&["prune"]).expect(2, &["--all"]);
    run(&["prune", "--all"]).expect(0, &[]);
    assert_eq!(run(&["list"]).json()["entries"].as_array().unwrap().len(), 0);
}

#[test]
fn data_that_cannot_be_written_is_a_failure_and_a_reader_that_left_is_not() {
    let Some(bench) = bench() else { return };
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = bench.command(["cache", "list"]).stdout(full.try_clone().unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("writing standard output"), "{output:?}");
    let status = bench.command(["logs", "no-such-vm"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2), "standard error that cannot be written must not hide the exit code");
    let head = format!("'{}' cache list | head -n 1 > /dev/null; exit ${{PIPESTATUS[0]}}", bench.bullion.display());
    run(Command::new("bash").args(["-c", &head])).expect(0, &[]);
}

#[test]
fn a_damaged_lock_is_named_and_can_be_replaced() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    std::fs::write(scratch.path().join("minimal.lock"), "schema = 1\n[[package\n").unwrap();
    bench.run(["lock".as_ref(), recipe.as_os_str()]).expect(2, &["minimal.lock:2", "--update"]);
    bench
        .run(["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), "out".as_ref()])
        .expect(2, &["minimal.lock:2", "--update"]);
}

#[test]
fn an_image_from_an_unpublished_lock_says_so() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    let text = std::fs::read_to_string(bench.recipe.with_extension("lock")).unwrap();
    let text = text.replace("standing = \"published\"", "standing = \"unpublished\"");
    std::fs::write(scratch.path().join("minimal.lock"), text).unwrap();
    let output = scratch.path().join("out");
    let words = ["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), output.as_os_str(), "--json".as_ref()];
    let manifest = bench.run(words).expect(0, &["UNPUBLISHED"]).json();
    assert_eq!((manifest["standing"].as_str(), manifest["class"].as_str()), (Some("unpublished"), Some("dev")));
}

#[test]
fn a_lock_without_the_scripts_of_its_packages_makes_no_release() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let recipe = bench.copy_recipe(scratch.path());
    let text = std::fs::read_to_string(bench.recipe.with_extension("lock")).unwrap();
    // As `lock --no-fetch` writes it, or whoever edits a lock.
    let tables = text.split("\n[[").filter(|table| !table.starts_with("package.script]]"));
    std::fs::write(scratch.path().join("minimal.lock"), tables.collect::<Vec<_>>().join("\n[[")).unwrap();
    let output = scratch.path().join("out");
    let run = bench.run(["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), output.as_os_str()]).expect(0, &[]);
    let said = "the lock has no answer to the postinst of base-files";
    assert!(run.stdout.contains("class dev") && run.stdout.contains(said), "{run:#?}");
}
