//! Against an image that `veritysetup` formatted.

use std::io::Write as _;
use std::path::PathBuf;
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
    (path, crate::command_line::parse(&command_line).unwrap())
}

fn check(path: &Path, root: &RootParameters) -> Result<(), VerityError> {
    check_top(path, std::fs::metadata(path).unwrap().len(), root)
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
        assert!(
            matches!(check_top(&path, exact - 1, &root), Err(VerityError::Short { expected, .. }) if expected == exact),
            "{blocks} blocks"
        );
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
    let (sectors, parameters) = table(Path::new("/dev/vda"), &root);
    assert_eq!(sectors, 296);
    assert_eq!(
        parameters,
        format!(
            "1 /dev/vda /dev/vda 4096 4096 37 38 sha256 {} cdcd 2 panic_on_corruption panic_on_error",
            "ab".repeat(32)
        )
    );
}

#[test]
fn the_largest_image_does_not_overflow() {
    let root = RootParameters { root_hash: Sha256Digest([0; 32]), salt: vec![0], data_blocks: 1 << 40 };
    assert!(matches!(check_top(Path::new("/dev/null"), 0, &root), Err(VerityError::Short { .. })));
    assert_eq!(table(Path::new("/dev/vda"), &root).0, 1 << 43);
}
