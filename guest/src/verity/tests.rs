//! Against an image that `veritysetup` formatted.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

const SALT: &str = "b5c1f0a34e7d2986cf1b0e8d5a47639210fd8ce4b76a5392187e4dc0a9f6b3e1";

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn veritysetup() -> Option<PathBuf> {
    let cache = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let tools = std::env::var_os("BULLION_TOOLS").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(cache)?;
        Some(cache.join("bullion/tools/bin"))
    });
    let program = tools?.join("veritysetup");
    if program.exists() {
        return Some(program);
    }
    eprintln!("skipped: no {}", program.display());
    None
}

/// An image with `blocks` blocks of data, and what the command line would say of it.
fn image(veritysetup: &Path, directory: &Path, blocks: u64) -> (PathBuf, RootParameters) {
    let path = directory.join(format!("image-{blocks}"));
    let mut file = File::create(&path).unwrap();
    for block in 0..blocks {
        file.write_all(&[u8::try_from(block % 251).unwrap(); 4096]).unwrap();
    }
    let offset = (blocks * 4096).to_string();
    let output = Command::new(veritysetup)
        .args(["format", "--hash-offset", &offset, "--data-blocks", &blocks.to_string(), "--salt", SALT])
        .args([&path, &path])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let root = text.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim();
    let command_line = format!("bullion.root={root} bullion.salt={SALT} bullion.blocks={blocks}");
    (path, crate::command_line::parse(&command_line).unwrap().root)
}

/// A file where a device would be: an absolute path stays what it is below `/dev`.
fn file(path: &Path) -> Disk {
    Disk { name: path.display().to_string(), bytes: std::fs::metadata(path).unwrap().len() }
}

fn check(path: &Path, root: &RootParameters) -> Result<(), VerityError> {
    check_top(&RootDevice::Disk(file(path)), root)
}

/// Data and tree of an image in files of their own.
fn parts(path: &Path, root: &RootParameters) -> [PathBuf; 2] {
    let bytes = std::fs::read(path).unwrap();
    let (data, tree) = bytes.split_at(usize::try_from(root.data_blocks * 4096).unwrap());
    let [data_file, tree_file] = ["data", "tree"].map(|name| path.with_extension(name));
    std::fs::write(&data_file, data).unwrap();
    std::fs::write(&tree_file, tree).unwrap();
    [data_file, tree_file]
}

fn flip(path: &Path, offset: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[usize::try_from(offset).unwrap()] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn images_of_every_depth_pass() {
    let Some(veritysetup) = veritysetup() else { return };
    let directory = tempfile::tempdir().unwrap();
    // Levels change at 128 and at 128 * 128 blocks.
    for blocks in [1, 2, 128, 129, 1000, 16384, 16385] {
        let (path, root) = image(&veritysetup, directory.path(), blocks);
        assert_eq!(check(&path, &root), Ok(()), "{blocks} blocks");
        let exact = std::fs::metadata(&path).unwrap().len();
        let short = RootDevice::Disk(Disk { bytes: exact - 1, ..file(&path) });
        assert!(
            matches!(check_top(&short, &root), Err(VerityError::Short { expected, .. }) if expected == exact),
            "{blocks} blocks"
        );
    }
}

#[test]
fn partitions_of_every_depth_pass_and_each_is_looked_at() {
    let Some(veritysetup) = veritysetup() else { return };
    let directory = tempfile::tempdir().unwrap();
    for blocks in [1, 2, 128, 129, 16385] {
        let (path, root) = image(&veritysetup, directory.path(), blocks);
        let [data, tree] = parts(&path, &root);
        let device = || RootDevice::Partitions { data: file(&data), tree: file(&tree) };
        assert_eq!(check_top(&device(), &root), Ok(()), "{blocks} blocks");
        let swapped = RootDevice::Partitions { data: file(&tree), tree: file(&data) };
        assert!(check_top(&swapped, &root).is_err(), "{blocks} blocks");
        for (short, part) in [(0, "the data"), (1, "the superblock and tree")] {
            let mut disks = [file(&data), file(&tree)];
            disks[short].bytes -= 1;
            let [data, tree] = disks;
            let found = check_top(&RootDevice::Partitions { data, tree }, &root);
            assert!(matches!(found, Err(VerityError::Short { part: found, .. }) if found == part), "{found:?}");
        }
        // The top of the tree, which of a single block is the block itself.
        flip(if blocks == 1 { &data } else { &tree }, if blocks == 1 { 9 } else { 4096 + 9 });
        assert!(matches!(check_top(&device(), &root), Err(VerityError::RootHash { .. })), "{blocks} blocks");
        flip(&tree, 8);
        assert!(matches!(check_top(&device(), &root), Err(VerityError::Superblock { offset: 0, .. })));
    }
}

#[test]
fn each_difference_is_named() {
    let Some(veritysetup) = veritysetup() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (path, root) = image(&veritysetup, directory.path(), 300);
    let superblock = 300 * 4096;

    let other = RootParameters { root_hash: Sha256Digest([0; 32]), ..root.clone() };
    let error = check(&path, &other).unwrap_err();
    assert!(matches!(&error, VerityError::RootHash { found, .. } if *found == root.root_hash), "{error}");
    let salted = RootParameters { salt: vec![1], ..root.clone() };
    assert!(matches!(check(&path, &salted), Err(VerityError::Superblock { field: "the salt", .. })));
    let fewer = RootParameters { data_blocks: 299, ..root.clone() };
    assert!(matches!(check(&path, &fewer), Err(VerityError::Superblock { field: "the signature", .. })));

    for (offset, field) in [
        (0, "the signature"),
        (8, "version"),
        (12, "hash type"),
        (32, "the algorithm"),
        (65, "data block size"),
        (70, "hash block size"),
        (72, "data blocks"),
        (80, "the salt"),
        (88, "the salt"),
    ] {
        flip(&path, superblock + offset);
        assert!(
            matches!(check(&path, &root), Err(VerityError::Superblock { field: found, .. }) if found == field),
            "byte {offset}: {:?}",
            check(&path, &root)
        );
        flip(&path, superblock + offset);
    }
    flip(&path, superblock + 4096 + 5);
    assert!(matches!(check(&path, &root), Err(VerityError::RootHash { .. })));
    flip(&path, superblock + 4096 + 5);
    assert_eq!(check(&path, &root), Ok(()));
}

#[test]
fn a_table_is_what_the_kernel_documents() {
    let root = RootParameters { root_hash: Sha256Digest([0xab; 32]), salt: vec![0xcd; 2], data_blocks: 37 };
    let disk = |name: &str| Disk { name: name.to_owned(), bytes: 0 };
    let (sectors, parameters) = table(&RootDevice::Disk(disk("vda")), &root);
    assert_eq!(sectors, 296);
    assert_eq!(
        parameters,
        format!(
            "1 /dev/vda /dev/vda 4096 4096 37 38 sha256 {} cdcd 2 panic_on_corruption panic_on_error",
            "ab".repeat(32)
        )
    );
    let partitions = RootDevice::Partitions { data: disk("vda2"), tree: disk("vda3") };
    let (sectors, parameters) = table(&partitions, &root);
    assert_eq!(sectors, 296);
    assert!(parameters.starts_with("1 /dev/vda2 /dev/vda3 4096 4096 37 1 sha256 abab"), "{parameters}");
}

#[test]
fn the_largest_image_does_not_overflow() {
    let root = RootParameters { root_hash: Sha256Digest([0; 32]), salt: vec![0], data_blocks: 1 << 40 };
    let device = RootDevice::Disk(Disk { name: "null".to_owned(), bytes: 0 });
    assert!(matches!(check_top(&device, &root), Err(VerityError::Short { .. })));
    assert_eq!(table(&device, &root).0, 1 << 43);
}
