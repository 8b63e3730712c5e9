//! A disk as firmware measures it when it starts it: its partition table, and the unified kernel image on it.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use measure::Digest384;
use measure::tdx::unified::{Start, UnifiedError, UnifiedImage};
use measure::uefi::{fat, gpt};
use spec::Outcome;

use super::unusable;
use crate::failure::Failure;

/// Has the partition table, whatever the disk's size.
const HEAD: u64 = 1 << 20;
/// No EFI system partition is near this.
const MAX_SYSTEM_PARTITION: u64 = 1 << 31;
/// What firmware starts of a disk that nobody gave an entry for (UEFI 2.11, 3.5.1.1).
const PROGRAM: [&str; 3] = ["EFI", "BOOT", "BOOTX64.EFI"];

/// What firmware starts from a disk.
pub(crate) struct DiskFile {
    /// The digest of the partition table.
    pub(crate) table: Digest384,
    /// The unified kernel image.
    pub(crate) image: UnifiedImage,
    /// Its file.
    pub(crate) program: Vec<u8>,
}

impl DiskFile {
    /// Reads a raw disk with sectors of 512 bytes: its start, and its EFI system partition.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |error: std::io::Error| Failure::file("reading", path, &error);
        let mut file = store::open_regular(path).map_err(unreadable)?;
        let head = part(&mut file, 0, HEAD).map_err(unreadable)?;
        let table = gpt::digest(&head).map_err(|error| unusable(path, &error))?;
        let partition = gpt::system_partition(&head).map_err(|error| unusable(path, &error))?;
        let size = partition.end.saturating_sub(partition.start);
        if size > MAX_SYSTEM_PARTITION {
            let message = format!("{}: its EFI system partition has {size} bytes", path.display());
            return Err(Failure::new(Outcome::Usage, message).with_hint("at most 2 GiB are read"));
        }
        let volume = part(&mut file, partition.start, size).map_err(unreadable)?;
        let program = fat::file(&volume, &PROGRAM).map_err(|error| unusable(path, &error))?;
        Ok(Self { table, image: unified(path, &program)?, program })
    }

    /// How firmware starts it.
    pub(crate) fn start(&self, first_exit_fails: bool) -> Start {
        Start::Disk { table: self.table, first_exit_fails }
    }
}

fn part(file: &mut File, start: u64, size: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A unified kernel image, from the file at `path`, whose events are known.
pub(crate) fn unified(path: &Path, bytes: &[u8]) -> Result<UnifiedImage, Failure> {
    UnifiedImage::read(bytes).map_err(|error| match error {
        UnifiedError::Pe(_) | UnifiedError::Missing(_) => unusable(path, &error),
        _ => Failure::new(Outcome::Refused, format!("{}: {error}", path.display())),
    })
}
