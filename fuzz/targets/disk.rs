//! What firmware reads of a disk that it starts: the partition table, and a file of a FAT32 file system, as they come and behind
//! a boot sector that is right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use measure::uefi::{fat, gpt};

const PATH: [&str; 3] = ["EFI", "BOOT", "BOOTX64.EFI"];
/// Sectors of the file system: one reserved, one of the only table, the rest clusters of one sector.
const SECTORS: usize = 16;

/// The clusters and the table that `bytes` fill, as a file system.
fn volume(bytes: &[u8]) -> Vec<u8> {
    let mut volume = vec![0; SECTORS * 512];
    let mut put = |at: usize, bytes: &[u8]| volume[at..at + bytes.len()].copy_from_slice(bytes);
    put(11, &[0, 2, 1, 1, 0, 1]);
    put(32, &[16, 0, 0, 0, 1, 0, 0, 0]);
    put(44, &[2, 0, 0, 0]);
    put(510, &[0x55, 0xaa]);
    let room = (SECTORS - 1) * 512;
    put(512, &bytes[..bytes.len().min(room)]);
    volume
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(partition) = gpt::system_partition(bytes) {
        assert!(gpt::digest(bytes).is_ok() && partition.start < partition.end);
    }
    for volume in [bytes.to_vec(), volume(bytes)] {
        if let Ok(content) = fat::file(&volume, &PATH) {
            assert!(content.len() <= volume.len());
        }
        let _ = fat::file(&volume, &PATH[..1]);
    }
});
