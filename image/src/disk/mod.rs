//! `disk.raw`: a disk that UEFI firmware starts, with a GUID partition table and three partitions.
//!
//! The EFI system partition holds the unified kernel image as `\EFI\BOOT\BOOTX64.EFI`; the other two are the root file system and
//! its dm-verity tree, with the types and the UUIDs of the UAPI Discoverable Partitions Specification. Whatever else has an
//! identity (disk, EFI system partition, FAT volume) gets it from the root hash, so the same parts give the same bits. A disk is
//! written from front to back and never held in memory; what is zero is a hole.

mod fat;
mod gpt;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use measure::Guid;
use spec::manifest::Verity;
use spec::partitions;
use spec::recipe::DiskRecipe;
use spec::size::Size;
use spec::{Diagnostic, Outcome, Sha256Digest};

use fat::FileSystem;
use gpt::{Entry, Table};

/// Bytes of a sector, and of UEFI's logical blocks.
const SECTOR: u64 = 512;
/// Partitions start and end at whole MiB: no disk has larger physical blocks.
const MIB: u64 = 1 << 20;
/// The smallest FAT32 file system of whole MiB.
const MIN_ESP: u64 = 34 * MIB;

// UAPI Discoverable Partitions Specification, "Defined Partition Type UUIDs".
const ESP: Guid = Guid::new(0xc12a7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);
const ROOT_X86_64: Guid = Guid::new(0x4f68bce3, 0xe8cd, 0x4db1, [0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09]);
const ROOT_X86_64_VERITY: Guid =
    Guid::new(0x2c7357ed, 0xebd2, 0x46d9, [0xae, 0xc1, 0x23, 0xd4, 0x37, 0xec, 0x2b, 0xf5]);
/// The same, "Partition Attribute Flags": to be mounted read-only.
const READ_ONLY: u64 = 1 << 60;

/// Where a disk is written to, from front to back.
pub trait Sink: Write {
    /// Writes `count` zeros. A file may leave a hole for them, as long as something follows.
    fn write_zeros(&mut self, count: u64) -> io::Result<()>;
}

/// What a disk is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The unified kernel image.
    pub uki: &'a [u8],
    /// The file with root file system, verity superblock and tree.
    pub rootfs: &'a File,
    /// Its size in bytes, whole blocks of 4096.
    pub rootfs_size: u64,
    /// How it is divided, and its root hash.
    pub verity: &'a Verity,
}

/// Sizes that the parts do not fit into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The EFI system partition.
    #[error("disk.esp_size is {size}, the unified kernel image needs at least {needed}")]
    Esp {
        /// The size that the recipe names.
        size: Size,
        /// The smallest.
        needed: Size,
    },
    /// The disk.
    #[error("disk.size is {size}, its partitions need at least {needed}")]
    Disk {
        /// The size that the recipe names.
        size: Size,
        /// The smallest.
        needed: Size,
    },
    /// The image is too large for the file system.
    #[error("the unified kernel image has {0} bytes: no FAT32 file system holds it")]
    Image(u64),
}

impl Diagnostic for DiskError {
    fn outcome(&self) -> Outcome {
        Outcome::Usage
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Esp { .. } | Self::Disk { .. } => {
                Some("name a larger size in the recipe's [disk], or none: then it is the smallest".to_owned())
            }
            Self::Image(_) => None,
        }
    }
}

/// A disk that is laid out.
#[derive(Debug)]
pub struct Disk<'a> {
    parts: Parts<'a>,
    esp: FileSystem,
    names: fat::Names,
    table: Table,
}

impl<'a> Disk<'a> {
    /// Lays out the disk.
    pub fn plan(parts: Parts<'a>, sizes: &DiskRecipe) -> Result<Self, DiskError> {
        let needed = FileSystem::smallest(parts.uki.len() as u64);
        let esp_size = sizes.esp_size.map_or(needed, |size| size.bytes);
        let esp = FileSystem::plan(esp_size, parts.uki.len() as u64).ok_or(match sizes.esp_size {
            Some(size) => DiskError::Esp { size, needed: Size { bytes: needed } },
            None => DiskError::Image(parts.uki.len() as u64),
        })?;
        let data = parts.verity.hash_offset;
        let partitions =
            [esp_size, data, parts.rootfs_size.saturating_sub(data)].map(|size| size.next_multiple_of(MIB));
        // One MiB at each end has the two copies of the table.
        let needed = partitions.iter().sum::<u64>() + 2 * MIB;
        let size = sizes.size.map_or(needed, |size| size.bytes);
        if size < needed {
            return Err(DiskError::Disk { size: Size { bytes: size }, needed: Size { bytes: needed } });
        }
        let root_hash = &parts.verity.root_hash;
        let table =
            Table { disk: derived("disk", root_hash), sectors: size / SECTOR, entries: entries(partitions, root_hash) };
        let [id0, id1, id2, id3, ..] = derived("volume", root_hash).0;
        let first_sector = u32::try_from(MIB / SECTOR).unwrap_or_default();
        let names = fat::Names { volume_id: u32::from_le_bytes([id0, id1, id2, id3]), first_sector };
        Ok(Self { parts, esp, names, table })
    }

    /// Writes the disk.
    pub fn write_to(&self, out: &mut impl Sink) -> io::Result<()> {
        let head = self.table.head();
        out.write_all(&head)?;
        out.write_zeros(MIB.saturating_sub(head.len() as u64))?;
        self.esp.write_to(self.names, self.parts.uki, out)?;
        let data = self.parts.verity.hash_offset;
        for (from, to) in [(0, data), (data, self.parts.rootfs_size)] {
            copy(self.parts.rootfs, from..to, out)?;
            let size = to.saturating_sub(from);
            out.write_zeros(size.next_multiple_of(MIB) - size)?;
        }
        let end = self.table.entries.last().map_or(0, |entry| entry.first + entry.sectors);
        out.write_zeros((self.table.sectors - gpt::TAIL).saturating_sub(end) * SECTOR)?;
        out.write_all(&self.table.tail())
    }
}

fn entries(sizes: [u64; 3], root_hash: &Sha256Digest) -> Vec<Entry> {
    let [root, verity] = partitions::of_root_hash(root_hash).map(|uuid| Guid::from_text_order(uuid.0));
    let kinds = [
        (ESP, derived("esp", root_hash), 0, "esp"),
        (ROOT_X86_64, root, READ_ONLY, "root-x86-64"),
        (ROOT_X86_64_VERITY, verity, READ_ONLY, "root-x86-64-verity"),
    ];
    let mut first = MIB / SECTOR;
    let place = |(size, (kind, unique, attributes, label))| {
        let entry = Entry { kind, unique, first, sectors: size / SECTOR, attributes, label };
        first += entry.sectors;
        entry
    };
    sizes.into_iter().zip(kinds).map(place).collect()
}

/// An identifier for `purpose`: a UUID of version 8 (RFC 9562, 5.8), from the root hash.
fn derived(purpose: &str, root_hash: &Sha256Digest) -> Guid {
    let text = [b"bullion disk.raw 1 ", purpose.as_bytes(), b" ", root_hash.as_bytes()].concat();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(Sha256Digest::of(&text).0).for_each(|(slot, byte)| *slot = byte);
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
    *version = 0x80 | *version & 0xf;
    *variant = 0x80 | *variant & 0x3f;
    Guid::from_text_order(bytes)
}

fn copy(file: &File, range: std::ops::Range<u64>, out: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut offset = range.start;
    while offset < range.end {
        let count = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(buffer.len());
        let chunk = buffer.get_mut(..count).unwrap_or_default();
        file.read_exact_at(chunk, offset)?;
        out.write_all(chunk)?;
        offset += count as u64;
    }
    Ok(())
}
