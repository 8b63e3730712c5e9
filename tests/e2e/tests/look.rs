//! What `describe`, `diff` and `build --verify` say of images, against what others see in the same files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Bench, bench, judge, names, run};
use serde_json::{Value, json};

/// The root file system as `fsck.erofs` unpacks it.
fn extract(image: &Path, to: PathBuf) -> Option<PathBuf> {
    run(judge("fsck.erofs")?.arg(format!("--extract={}", to.display())).arg(image.join("rootfs"))).expect(0, &[]);
    Some(to)
}

fn shell(directory: &Path, script: &str) -> String {
    run(Command::new("sh").args(["-ec", script]).current_dir(directory)).expect(0, &[]).stdout
}

#[test]
fn describe_counts_what_another_reader_finds() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    for image in [Some(bench.image()), bench.container()].into_iter().flatten() {
        let Some(root) = extract(image, scratch.path().join(image.file_name().unwrap())) else { return };
        let told = bench.run(["describe", image.to_str().unwrap(), "--json"]).expect(0, &[]).json();
        let count = |kind: &str| shell(&root, &format!("find . -mindepth 1 -type {kind} | wc -l")).trim().to_owned();
        assert_eq!(told["root"]["files"].to_string(), count("f"));
        assert_eq!(told["root"]["links"].to_string(), count("l"));
        let directories: u64 = count("d").parse().unwrap();
        assert_eq!(told["root"]["directories"], directories + 1, "with the root itself");
        let bytes = shell(&root, "find . -type f -printf '%i %s\\n' | sort -u | awk '{ s += $2 } END { print s }'");
        assert_eq!(told["root"]["content_bytes"].to_string(), bytes.trim());
        let users = shell(&root, "cut -d: -f1 etc/passwd");
        let told_users = told["root"]["users"].as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap());
        assert_eq!(told_users.collect::<Vec<_>>(), users.lines().collect::<Vec<_>>());
        assert_eq!(told["runs_workloads"], root.join("usr/bin/podman").exists());
    }
    let text = bench.run(["describe", bench.image().to_str().unwrap()]).expect(0, &[]).stdout;
    for words in ["class dev", "linux-binary", "SNP launch digest", "nothing measures", "no: there is no podman"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // It tells of the files that are there, or not at all.
    let spoilt = bench.copy_image(scratch.path());
    fs::write(spoilt.join("cmdline"), "quiet").unwrap();
    bench.run(["describe", spoilt.to_str().unwrap()]).expect(4, &["cmdline", "does not match the manifest"]);
}

/// Every path with what an inode is: its type, mode, owner, target and content.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let others = shell(root, "find . -mindepth 1 ! -type f -printf '/%P\\t%y %m %U %G %l\\n'");
    let script = "find . -type f -printf '/%P\\t%y %m %U %G ' -exec sh -c 'sha256sum < \"$1\"' - {} \\;";
    let text = others + &shell(root, script);
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(path, what)| (path.to_owned(), what.to_owned()))
        .collect()
}

const CHANGED: &str = "schema = 1\nname = \"minimal\"\nextends = \"plain.toml\"\n\
    [rootfs]\ndrop = [\"/usr/share/zoneinfo/Africa/**\"]\n\
    [[rootfs.file]]\npath = \"/etc/motd\"\nmode = \"0600\"\nowner = \"65534:65534\"\ncontent = \"other\"\n\
    [[rootfs.link]]\npath = \"/etc/added\"\ntarget = \"motd\"\n";

/// An image whose root file system has a file changed, a link added and a directory removed.
fn changed(bench: &Bench, directory: &Path) -> PathBuf {
    let plain = bench.copy_recipe(directory);
    fs::rename(plain, directory.join("plain.toml")).unwrap();
    let (recipe, image) = (directory.join("changed.toml"), directory.join("changed"));
    fs::write(&recipe, CHANGED).unwrap();
    let lock = bench.recipe.with_extension("lock");
    let words = ["build", recipe.to_str().unwrap(), "-o", image.to_str().unwrap(), "--lock", lock.to_str().unwrap()];
    // The lock is for a recipe of this name and these packages.
    bench.run(words).expect(0, &[]);
    image
}

#[test]
fn diff_names_every_file_that_differs_and_what_it_moves() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (before, after) = (bench.image(), changed(&bench, scratch.path()));
    let words = ["diff", before.to_str().unwrap(), after.to_str().unwrap()];
    let told = bench.run([&words[..], &["--json"]].concat()).expect(6, &[]).json();

    let roots = (extract(before, scratch.path().join("a")), extract(&after, scratch.path().join("b")));
    let (Some(a), Some(b)) = roots else { return };
    let (a, b) = (listing(&a), listing(&b));
    let all: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differing: BTreeSet<&str> =
        all.into_iter().filter(|path| a.get(*path) != b.get(*path)).map(String::as_str).collect();
    assert!(differing.contains("/etc/added") && differing.len() > 20, "{differing:?}");
    let files: Vec<&Value> =
        told["files"].as_array().unwrap().iter().filter(|file| file["artifact"] == "rootfs").collect();
    // How many names a directory has is no property of a listing.
    let named = files.iter().filter(|file| !file["what"].as_str().unwrap().starts_with("links "));
    assert_eq!(named.map(|file| file["path"].as_str().unwrap()).collect::<BTreeSet<_>>(), differing);
    let of = |path: &str, what: &str| {
        files.iter().any(|file| file["path"] == path && file["what"].as_str().unwrap().contains(what))
    };
    assert!(
        of("/etc/motd", "mode 100644 and 100600") && of("/etc/motd", "owner 0 and 65534") && of("/etc/motd", "size")
    );
    assert!(files.iter().any(|file| file["path"] == "/etc/added" && file["change"] == "added"));
    assert!(files.iter().any(|file| file["path"] == "/usr/share/zoneinfo/Africa" && file["change"] == "removed"));

    let of_disk = |value: &Value| value["value"].as_str().unwrap().contains("disk");
    assert!(!told["measured"].as_array().unwrap().iter().any(of_disk), "neither has a disk: {told}");
    // The values are those of the manifests, and what does not depend on the root has not moved.
    let moved = |name: &str| {
        let values: Vec<&Value> =
            told["measured"].as_array().unwrap().iter().filter(|value| value["value"] == name).collect();
        assert!(!values.is_empty(), "{name}");
        values
            .into_iter()
            .map(|value| (value["before"] != value["after"], value["moved_by"].to_string()))
            .collect::<BTreeSet<_>>()
    };
    let only = |moves: bool, by: &str| BTreeSet::from([(moves, by.to_owned())]);
    assert_eq!(moved("dm-verity root hash"), only(true, "[\"rootfs\"]"));
    assert_eq!(moved("SNP launch digest"), only(true, "[\"cmdline\"]"));
    assert_eq!(moved("RTMR2"), only(true, "[\"cmdline\"]"));
    assert_eq!(moved("RTMR1"), only(false, "[]"));
    assert_eq!(moved("MRTD"), only(false, "[]"));
    assert_eq!(told["packages"].as_array().unwrap().len(), 0);

    let text = bench.run(words).expect(6, &[]).stdout;
    assert!(
        text.contains("+ /etc/added") && text.contains("rootfs (moves dm-verity root hash, SNP launch digest, RTMR2)"),
        "{text}"
    );
    let same = ["diff", before.to_str().unwrap(), before.to_str().unwrap()];
    assert!(bench.run(same).expect(0, &[]).stdout.contains("the same to the byte"));
}

#[test]
fn diff_compares_the_registers_of_both_boots_as_measure_has_them() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(images) = bench.disk_images(scratch.path()) else { return };
    if bench.unpublished {
        return e2e::skipped("the firmware may not be pinned, and then no register is predicted");
    }
    // RTMR0 of a shape is in one manifest, and of the other image nothing.
    let words = ["measure", images[0].to_str().unwrap(), "--write", "--vcpus", "2", "--memory", "1GiB"];
    bench.run(words).expect(0, &[]);
    let words = ["diff".as_ref(), images[0].as_os_str(), images[1].as_os_str(), "--json".as_ref()];
    let told = bench.run(words).expect(6, &[]).json();
    let measured = told["measured"].as_array().unwrap();

    // What `measure` says of the files of each image: of the second, no manifest holds it.
    let shape = &measured.iter().find(|value| value["value"] == "RTMR0 from disk").unwrap()["shape"];
    let (vcpus, memory) = shape.as_str().unwrap().split_once(" vCPUs, ").unwrap();
    let memory = memory.replace(" MiB", "MiB");
    let measure = |image: &Path, words: &[&str]| {
        let firmware = image.join("firmware-tdx.fd").display().to_string();
        let words =
            [&["measure", "tdx", "--json", "--vcpus", vcpus, "--memory", &memory, "--firmware", &firmware], words];
        bench.run(words.concat()).expect(0, &[]).json()
    };
    let at = |image: &Path, name: &str| image.join(name).display().to_string();
    for (image, side) in images.iter().zip(["before", "after"]) {
        let cmdline = fs::read_to_string(image.join("cmdline")).unwrap();
        let words = ["--kernel", &at(image, "vmlinuz"), "--initrd", &at(image, "initrd"), "--cmdline", &cmdline];
        let (direct, disk) = (measure(image, &words), measure(image, &["--disk", &at(image, "disk.raw")]));
        let of = |name: &str, shape: Option<&Value>| {
            let is = |value: &&Value| value["value"] == name && shape.is_none_or(|shape| value["shape"] == *shape);
            measured.iter().find(is).unwrap()[side].clone()
        };
        for (name, value) in [("MRTD", "mrtd"), ("RTMR1", "rtmr1"), ("RTMR2", "rtmr2")] {
            assert_eq!(of(name, None), direct[value], "{side} {name}");
        }
        assert_eq!(of("RTMR0", Some(shape)), direct["rtmr0"], "{side}");
        assert_eq!(of("RTMR0 from disk", Some(shape)), disk["rtmr0"], "{side}");
        let one_of: Vec<&str> =
            disk["rtmr1_one_of"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
        assert_eq!(of("RTMR1 from disk", None), one_of.join(" or "), "{side}");
        assert_eq!(of("RTMR2 from disk", None), disk["rtmr2"], "{side}");
    }

    // A file of the root moves what covers the command line, and through the unified kernel image what firmware starts.
    let moved = |name: &str| {
        let value = measured.iter().find(|value| value["value"] == name).unwrap();
        (value["before"] != value["after"]).then(|| (value["moved_by"].clone(), value["inputs"].clone()))
    };
    for name in ["MRTD", "RTMR0", "RTMR1", "RTMR0 from disk"] {
        assert_eq!(moved(name), None, "{name}");
    }
    assert_eq!(moved("RTMR2"), Some((json!(["cmdline"]), json!(["kernel command line"]))));
    let whole = json!(["unified kernel image", "partition table"]);
    assert_eq!(moved("RTMR1 from disk"), Some((json!(["cmdline", "uki.efi", "disk.raw"]), whole)));
    let parts = json!(["kernel command line", "section .cmdline of the unified kernel image"]);
    assert_eq!(moved("RTMR2 from disk"), Some((json!(["cmdline", "uki.efi"]), parts)));
    assert!(told["files"].to_string().contains("\"RTMR1 from disk\""), "{told}");
}

#[test]
fn a_build_is_verified_by_another_elsewhere() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let container = std::env::var_os("BULLION_TEST_CONTAINER").map(PathBuf::from);
    for recipe in [Some(bench.recipe.clone()), container].into_iter().flatten() {
        let output = scratch.path().join(recipe.file_stem().unwrap());
        let words = ["build", recipe.to_str().unwrap(), "-o", output.to_str().unwrap(), "--verify"];
        let run = bench.run(words).expect(0, &["built twice, the same to the byte", "umask"]);
        if run.stderr.contains("but not the date") {
            e2e::skipped("the date was not varied: no process may be traced here");
        } else {
            assert!(run.stderr.contains("date,"), "{}", run.stderr);
        }
        if run.stderr.contains("no namespaces here") {
            e2e::skipped("the number of the user and the host name were not varied: no user namespaces");
        }
        assert!(output.join("manifest.json").exists());
        assert_eq!(names(scratch.path()).iter().filter(|name| name.starts_with('.')).count(), 0, "something was left");
    }
}

#[test]
fn a_build_that_another_does_not_repeat_makes_no_image() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (store, output) = (scratch.path().join("store"), scratch.path().join("image"));
    let recipe = bench.recipe.to_str().unwrap();
    bench.run(["vendor", recipe, "--output", store.to_str().unwrap()]).expect(0, &[]);
    let words = ["build", recipe, "-o", output.to_str().unwrap(), "--store", store.to_str().unwrap(), "--replace"];
    bench.run(words).expect(0, &[]);
    // The kept initrd becomes another that unpacks to the same: with a frame that decoders skip (RFC 8878, 3.1.2).
    let notes: Vec<PathBuf> =
        fs::read_dir(store.join("verdicts")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let note = notes.iter().find(|path| path.to_str().unwrap().contains("/initrd-")).unwrap();
    let text = fs::read_to_string(note).unwrap();
    let (sha256, size) = text.trim().split_once(' ').unwrap();
    let blob = |sha256: &str| store.join("blobs/sha256").join(&sha256[..2]).join(sha256);
    let mut bytes = fs::read(blob(sha256)).unwrap();
    assert_eq!(bytes.len().to_string(), size);
    bytes.extend([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
    fs::write(scratch.path().join("initrd"), &bytes).unwrap();
    let other = shell(scratch.path(), "sha256sum initrd")[..64].to_owned();
    fs::create_dir_all(blob(&other).parent().unwrap()).unwrap();
    fs::write(blob(&other), &bytes).unwrap();
    fs::write(note, format!("{other} {}\n", bytes.len())).unwrap();

    fs::remove_dir_all(&output).unwrap();
    let run =
        bench.run([&words[..], &["--verify"]].concat()).expect(6, &["a second build is another", "no image was made"]);
    assert!(run.stdout.contains("initrd (moves SNP launch digest, RTMR2)"), "{run:?}");
    assert!(run.stdout.contains("the same files, laid out differently"), "{run:?}");
    assert!(!output.exists());
}

#[test]
fn another_standing_is_a_difference_that_is_named() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let copy = bench.copy_image(scratch.path());
    let path = copy.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let (published, unpublished) = ("\"standing\":\"published\"", "\"standing\":\"unpublished\"");
    let other = if text.contains(published) {
        text.replace(published, unpublished)
    } else {
        text.replace(unpublished, published)
    };
    fs::write(&path, other).unwrap();
    let words = ["diff".as_ref(), bench.image().as_os_str(), copy.as_os_str()];
    let run = bench.run(words).expect(6, &[]);
    assert!(run.stdout.contains("standing of the lock: ") && run.stdout.contains("unpublished"), "{run:#?}");
}
