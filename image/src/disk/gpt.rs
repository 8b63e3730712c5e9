//! The partition table: protective MBR, GPT and its backup (UEFI 2.11, 5.2.3 and 5.3), for sectors of 512 bytes.

use flate2::Crc;
use measure::Guid;

use super::SECTOR;
use crate::little_endian::put;

/// Sectors of the 128 entries.
const ENTRY_SECTORS: u64 = 32;
/// The sectors before the first that a partition may have: MBR, header, entries.
const HEAD: u64 = 2 + ENTRY_SECTORS;
/// The sectors after the last: entries, header.
pub(super) const TAIL: u64 = 1 + ENTRY_SECTORS;

const HEADER_SIZE: usize = 92;
const ENTRY_SIZE: usize = 128;

/// An entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What it is for.
    pub(super) kind: Guid,
    /// Its own name.
    pub(super) unique: Guid,
    /// Its first sector.
    pub(super) first: u64,
    /// How many sectors it has, at least one.
    pub(super) sectors: u64,
    /// Attribute bits.
    pub(super) attributes: u64,
    /// Its label, of at most 36 characters.
    pub(super) label: &'static str,
}

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The disk's own name.
    pub(super) disk: Guid,
    /// The sectors of the disk.
    pub(super) sectors: u64,
    /// What is on it.
    pub(super) entries: Vec<Entry>,
}

impl Table {
    /// What the disk starts with: 34 sectors.
    pub(super) fn head(&self) -> Vec<u8> {
        let entries = self.entries();
        [self.protective_mbr(), self.header(1, self.sectors - 1, 2, &entries), entries].concat()
    }

    /// What it ends with: 33 sectors.
    pub(super) fn tail(&self) -> Vec<u8> {
        let entries = self.entries();
        let header = self.header(self.sectors - 1, 1, self.sectors - TAIL, &entries);
        [entries, header].concat()
    }

    fn protective_mbr(&self) -> Vec<u8> {
        let mut sector = vec![0; 512];
        let size = u32::try_from(self.sectors - 1).unwrap_or(u32::MAX);
        put(&mut sector, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
        put(&mut sector, 458, &size.to_le_bytes());
        put(&mut sector, 510, &[0x55, 0xaa]);
        sector
    }

    /// A header in a sector of its own: `own` and `other` are the places of this and the other header.
    fn header(&self, own: u64, other: u64, entries_at: u64, entries: &[u8]) -> Vec<u8> {
        let mut header = Vec::with_capacity(512);
        header.extend(b"EFI PART");
        header.extend(0x0001_0000_u32.to_le_bytes());
        header.extend(92_u32.to_le_bytes());
        // The sum of the header, taken while it is zero; and a field that is always zero.
        header.extend([0; 8]);
        header.extend([own, other, HEAD, self.sectors - TAIL - 1].map(u64::to_le_bytes).concat());
        header.extend(self.disk.0);
        header.extend(entries_at.to_le_bytes());
        header.extend([128_u32, 128, crc32(entries)].map(u32::to_le_bytes).concat());
        debug_assert_eq!(header.len(), HEADER_SIZE);
        let sum = crc32(&header);
        put(&mut header, 16, &sum.to_le_bytes());
        header.resize(512, 0);
        header
    }

    fn entries(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in &self.entries {
            let last = entry.first + entry.sectors - 1;
            let start = out.len();
            out.extend([entry.kind.0, entry.unique.0].concat());
            out.extend([entry.first, last, entry.attributes].map(u64::to_le_bytes).concat());
            out.extend(entry.label.encode_utf16().take(36).flat_map(u16::to_le_bytes));
            out.resize(start + ENTRY_SIZE, 0);
        }
        // The room for 128 entries; no more are ever made.
        out.resize(usize::try_from(ENTRY_SECTORS * SECTOR).unwrap_or_default(), 0);
        out
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
