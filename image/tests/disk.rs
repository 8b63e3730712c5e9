//! `disk.raw` against `sfdisk`, `fsck.fat`, mtools and `veritysetup`.

#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bytes of counters")]

mod support;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::disk::{Disk, DiskError, Parts, Sink};
use image::verity::{BLOCK, Tree};
use serde_json::Value;
use spec::manifest::Verity;
use spec::recipe::DiskRecipe;
use spec::size::Size;
use support::{run, tool};

const MIB: u64 = 1 << 20;
const SALT: [u8; 32] = [0x5a; 32];

/// A file, with holes where there are zeros.
struct Sparse(File);

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Sparse {
    fn write_zeros(&mut self, count: u64) -> io::Result<()> {
        self.0.seek(SeekFrom::Current(i64::try_from(count).unwrap())).map(drop)
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 31 + index / 997) as u8 | 1).collect()
}

/// A root file system of `blocks` blocks that nothing can mount, with its tree, in `directory`.
fn rootfs(directory: &Path, blocks: usize) -> (PathBuf, Verity) {
    let (path, data) = (directory.join("rootfs"), bytes(blocks * BLOCK));
    let tree = Tree::of_bytes(&data, &SALT).unwrap();
    let mut file = data.clone();
    tree.write_to(&mut file, &[7; 16]).unwrap();
    std::fs::write(&path, file).unwrap();
    let verity = Verity {
        algorithm: "sha256".to_owned(),
        block_size: 4096,
        data_blocks: tree.data_blocks,
        hash_offset: data.len() as u64,
        salt: spec::digest::encode_hex(&SALT),
        root_hash: tree.root_hash,
    };
    (path, verity)
}

/// Writes a disk with a root file system of `blocks` blocks into `directory`.
fn disk(directory: &Path, uki: &[u8], blocks: usize, sizes: &DiskRecipe) -> Result<(PathBuf, Verity), DiskError> {
    let (rootfs, verity) = rootfs(directory, blocks);
    let rootfs_size = std::fs::metadata(&rootfs).unwrap().len();
    let rootfs = File::open(rootfs).unwrap();
    let disk = Disk::plan(Parts { uki, rootfs: &rootfs, rootfs_size, verity: &verity }, sizes)?;
    let path = directory.join("disk.raw");
    disk.write_to(&mut Sparse(File::create(&path).unwrap())).unwrap();
    Ok((path, verity))
}

/// The partitions as `sfdisk` reads them.
fn partitions(sfdisk: &Path, disk: &Path) -> Value {
    let verified = run(Command::new(sfdisk).arg("--verify").arg(disk));
    let said = [verified.stdout, verified.stderr].concat();
    assert!(String::from_utf8_lossy(&said).contains("No errors detected."), "{}", String::from_utf8_lossy(&said));
    let output = run(Command::new(sfdisk).arg("--json").arg(disk));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    json["partitiontable"].clone()
}

/// The content of a partition, in a file of its own.
fn extract(disk: &Path, partition: &Value, to: &Path) {
    let sector = |key: &str| partition[key].as_u64().unwrap() * 512;
    let mut file = File::open(disk).unwrap();
    file.seek(SeekFrom::Start(sector("start"))).unwrap();
    io::copy(&mut file.take(sector("size")), &mut File::create(to).unwrap()).unwrap();
}

#[test]
fn sfdisk_finds_the_partitions_that_the_root_hash_names() {
    let Some(sfdisk) = tool("sfdisk") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (disk, verity) = disk(directory.path(), &bytes(5000), 300, &DiskRecipe::default()).unwrap();
    let table = partitions(&sfdisk, &disk);
    assert_eq!(table["label"], "gpt");
    let hash = verity.root_hash.to_string().to_uppercase();
    let uuid = |half: &str| [&half[..8], &half[8..12], &half[12..16], &half[16..20], &half[20..]].join("-");
    let expected = [
        ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", None, 34, "esp"),
        ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", Some(uuid(&hash[..32])), 2, "root-x86-64"),
        ("2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5", Some(uuid(&hash[32..])), 1, "root-x86-64-verity"),
    ];
    let found = table["partitions"].as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    let mut start = MIB / 512;
    for (found, (kind, unique, mib, label)) in found.iter().zip(expected) {
        assert_eq!((found["type"].as_str(), found["name"].as_str()), (Some(kind), Some(label)));
        assert_eq!((found["start"].as_u64(), found["size"].as_u64()), (Some(start), Some(mib * MIB / 512)), "{label}");
        if let Some(unique) = unique {
            assert_eq!((found["uuid"].as_str(), found["attrs"].as_str()), (Some(&*unique), Some("GUID:60")), "{label}");
        }
        start += mib * MIB / 512;
    }
}

/// `sfdisk` reads the backup where the first copy is damaged.
#[test]
fn the_backup_table_is_as_good_as_the_first() {
    let Some(sfdisk) = tool("sfdisk") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (disk, _) = disk(directory.path(), b"uki", 1, &DiskRecipe::default()).unwrap();
    let whole = partitions(&sfdisk, &disk);
    let mut file = File::options().write(true).open(&disk).unwrap();
    file.seek(SeekFrom::Start(512 + 56)).unwrap();
    file.write_all(&[0xff; 16]).unwrap();
    let output = run(Command::new(&sfdisk).arg("--json").arg(&disk));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("backup"), "{:?}", output.stderr);
    assert_eq!(json["partitiontable"]["partitions"], whole["partitions"]);
    assert_eq!(json["partitiontable"]["id"], whole["id"]);
}

/// On both sides of what decides the layout: clusters of 512 and of 4096 bytes, files of whole clusters and not, none at all.
#[test]
fn fsck_and_mtools_read_the_efi_system_partition() {
    let (Some(sfdisk), Some(fsck), Some(mcopy)) = (tool("sfdisk"), tool("fsck.fat"), tool("mcopy")) else { return };
    let sizes = [
        (0, None),
        (1, None),
        (512 * 123, None),
        (33 * MIB as usize + 511, None),
        (512 * 65_000, Some(34)),
        (4097, Some(260)),
        (3 * MIB as usize, Some(261)),
        (4096 * 2000, Some(300)),
    ];
    for (length, esp) in sizes {
        let directory = tempfile::tempdir().unwrap();
        let uki = bytes(length);
        let sizes = DiskRecipe { esp_size: esp.map(Size::from_mib), size: None };
        let (disk, _) = disk(directory.path(), &uki, 3, &sizes).unwrap();
        let table = partitions(&sfdisk, &disk);
        let (esp, copy) = (directory.path().join("esp"), directory.path().join("copy"));
        extract(&disk, &table["partitions"][0], &esp);
        run(Command::new(&fsck).args(["-n", "-v"]).arg(&esp));
        let at = format!("{}@@{MIB}", disk.display());
        run(Command::new(&mcopy).args(["-n", "-i", &at, "::/EFI/BOOT/BOOTX64.EFI"]).arg(&copy));
        assert!(std::fs::read(&copy).unwrap() == uki, "{length} bytes, {sizes:?}");
    }
}

/// What mtools put into the file system, in pieces where it must: the engine that measures disks finds it.
#[test]
fn what_mtools_writes_is_what_is_measured() {
    use measure::uefi::fat::{self, FatError};
    let Some(mcopy) = tool("mcopy") else { return };
    let directory = tempfile::tempdir().unwrap();
    let (disk, _) = disk(directory.path(), &bytes(10_000), 1, &DiskRecipe::default()).unwrap();
    let source = directory.path().join("source");
    let at = format!("{}@@{MIB}", disk.display());
    let put = |content: &[u8], name: &str| {
        std::fs::write(&source, content).unwrap();
        run(Command::new(&mcopy).args(["-D", "o", "-o", "-i", &at]).arg(&source).arg(format!("::/EFI/{name}")));
    };
    put(&bytes(3000), "small.bin");
    put(&bytes(200_000), "BOOT/a long name.efi");
    // Larger than the room before what follows it.
    put(&bytes(77_777), "BOOT/BOOTX64.EFI");
    put(b"", "EMPTY");
    let bytes_of_disk = std::fs::read(&disk).unwrap();
    let partition = measure::uefi::gpt::system_partition(&bytes_of_disk).unwrap();
    assert_eq!(partition, MIB..35 * MIB);
    let volume = &bytes_of_disk[MIB as usize..35 * MIB as usize];
    for (path, content) in [
        (&["EFI", "BOOT", "BOOTX64.EFI"][..], bytes(77_777)),
        (&["EFI", "SMALL.BIN"], bytes(3000)),
        (&["efi", "empty"], Vec::new()),
    ] {
        assert!(fat::file(volume, path) == Ok(content), "{path:?}");
    }
    for path in [&["EFI", "BOOT", "OTHER.EFI"][..], &["EFI", "SMALL.BIN", "X"], &["EFI", "BOOT"], &[]] {
        assert!(matches!(fat::file(volume, path), Err(FatError::NoFile(_))), "{path:?}");
    }
}

#[test]
fn veritysetup_verifies_the_partitions() {
    let (Some(sfdisk), Some(veritysetup)) = (tool("sfdisk"), tool("veritysetup")) else { return };
    for blocks in [1, 129, 16_385] {
        let directory = tempfile::tempdir().unwrap();
        let (disk, verity) = disk(directory.path(), b"uki", blocks, &DiskRecipe::default()).unwrap();
        let table = partitions(&sfdisk, &disk);
        let [data, tree] = ["data", "tree"].map(|name| directory.path().join(name));
        extract(&disk, &table["partitions"][1], &data);
        extract(&disk, &table["partitions"][2], &tree);
        run(Command::new(&veritysetup).arg("verify").args([&data, &tree]).arg(verity.root_hash.to_string()));
    }
}

#[test]
fn the_same_parts_give_the_same_disk_and_others_another_identity() {
    let [first, second, third] = [1, 1, 2].map(|blocks| {
        let directory = tempfile::tempdir().unwrap();
        let (disk, _) = disk(directory.path(), b"uki", blocks, &DiskRecipe::default()).unwrap();
        let mut head = vec![0; 2 * MIB as usize];
        File::open(&disk).unwrap().read_exact(&mut head).unwrap();
        (head, spec::Sha256Digest::of(&std::fs::read(disk).unwrap()))
    });
    assert_eq!(first.1, second.1);
    let volume_id = |head: &[u8]| head[MIB as usize + 67..][..4].to_vec();
    assert_ne!(volume_id(&first.0), volume_id(&third.0));
    assert_ne!(first.0[512 + 56..][..16], third.0[512 + 56..][..16], "the disk's GUID");
}

#[test]
fn a_disk_has_the_size_that_the_recipe_names_and_takes_no_room_for_zeros() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let sizes = DiskRecipe { esp_size: Some(Size::from_mib(100)), size: Some(Size::from_mib(1024)) };
    let (disk, _) = disk(directory.path(), b"uki", 1, &sizes).unwrap();
    let metadata = std::fs::metadata(&disk).unwrap();
    assert_eq!(metadata.len(), 1024 * MIB);
    assert!(metadata.blocks() * 512 < 4 * MIB, "{} sectors are stored", metadata.blocks());
    if let Some(sfdisk) = tool("sfdisk") {
        assert_eq!(partitions(&sfdisk, &disk)["lastlba"], 1024 * MIB / 512 - 34);
    }
}

#[test]
fn sizes_that_are_too_small_are_refused_with_those_that_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let esp = DiskRecipe { esp_size: Some(Size::from_mib(34)), size: None };
    let error = disk(directory.path(), &bytes(40 * MIB as usize), 1, &esp).unwrap_err();
    assert_eq!(error.to_string(), "disk.esp_size is 34MiB, the unified kernel image needs at least 41MiB");
    let size = DiskRecipe { esp_size: None, size: Some(Size::from_mib(100)) };
    let error = disk(directory.path(), b"uki", 300 * 256, &size).unwrap_err();
    assert_eq!(error.to_string(), "disk.size is 100MiB, its partitions need at least 339MiB");
}
