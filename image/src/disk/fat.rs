//! The EFI system partition: FAT32 with one file, `\EFI\BOOT\BOOTX64.EFI`, written from front to back.
//!
//! Layout and limits are those of Microsoft's "FAT32 File System Specification" 1.03, which UEFI 2.11, 13.3, takes over. Sectors
//! have 512 bytes. Every time is the epoch of FAT, 1980-01-01; names are in upper case, so that none needs a long name.

use std::io;

use super::{SECTOR, Sink};
use crate::little_endian::put;

/// Sectors before the first table: boot sector and FSInfo, and copies of both from sector 6 on.
const RESERVED: u32 = 32;
const TABLES: u32 = 2;
/// Below this many clusters it would be FAT16.
const MIN_CLUSTERS: u32 = 65525;
/// The numbers above are marks.
const MAX_CLUSTERS: u32 = 0x0fff_fff5;
/// Clusters 0 and 1 do not exist; 2, 3 and 4 are the directories `\`, `\EFI` and `\EFI\BOOT`.
const FIRST_OF_FILE: u32 = 5;
const DIRECTORIES: u32 = 3;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
/// Entries of a table in one sector.
const ENTRIES: u32 = 128;
const MIB: u64 = 1 << 20;
/// 1980-01-01.
const DATE: [u8; 2] = [0x21, 0];
const DIRECTORY: u8 = 0x10;
const VOLUME_LABEL: u8 = 8;
const LABEL: &[u8; 11] = b"ESP        ";

/// The layout of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    sectors: u32,
    sectors_per_cluster: u32,
    table_sectors: u32,
    clusters: u32,
    file_size: u32,
    file_clusters: u32,
}

/// What tells two file systems of one layout apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// The serial number of the volume.
    pub(super) volume_id: u32,
    /// The sector of the disk that it starts at.
    pub(super) first_sector: u32,
}

impl FileSystem {
    /// The layout of a partition of `size` bytes, whole MiB, with a file of `file_size` bytes; `None` where it does not fit,
    /// or where FAT32 has no such size.
    pub(super) fn plan(size: u64, file_size: u64) -> Option<Self> {
        let sectors = u32::try_from(size / SECTOR).ok()?;
        let file_size = u32::try_from(file_size).ok()?;
        // "FAT32 File System Specification", the table DskTableFAT32, without the smallest disks' row.
        let sectors_per_cluster = match size / MIB {
            0..=260 => 1,
            261..=8192 => 8,
            8193..=16384 => 16,
            16385..=32768 => 32,
            _ => 64,
        };
        let data_and_tables = sectors.checked_sub(RESERVED)?;
        // The smallest table with an entry for each cluster of what it leaves, and for the two that do not exist.
        let per_table_sector = ENTRIES * sectors_per_cluster + TABLES;
        let table_sectors = data_and_tables.checked_add(2 * sectors_per_cluster)?.div_ceil(per_table_sector);
        let clusters = data_and_tables.checked_sub(TABLES * table_sectors)? / sectors_per_cluster;
        let file_clusters = u64::from(file_size).div_ceil(u64::from(sectors_per_cluster) * SECTOR);
        let file_clusters = u32::try_from(file_clusters).ok()?;
        let fits = (MIN_CLUSTERS..=MAX_CLUSTERS).contains(&clusters) && file_clusters <= clusters - DIRECTORIES;
        fits.then_some(Self { sectors, sectors_per_cluster, table_sectors, clusters, file_size, file_clusters })
    }

    /// The smallest size in bytes, whole MiB, that holds a file of `file_size` bytes.
    pub(super) fn smallest(file_size: u64) -> u64 {
        let mut size = super::MIN_ESP.max(file_size.next_multiple_of(MIB));
        // The tables of the largest file that FAT32 has take less than 1/64 of it.
        let enough = size.saturating_mul(2);
        while size < enough && Self::plan(size, file_size).is_none() {
            size += MIB;
        }
        size
    }

    /// Writes the whole partition. `file` has the size that was planned for.
    pub(super) fn write_to(&self, names: Names, file: &[u8], out: &mut impl Sink) -> io::Result<()> {
        let (boot, info) = (self.boot_sector(names), self.information());
        let last_of_three = boot_signature(vec![0; 512]);
        let blank = vec![0; 3 * 512];
        // The copy is where the boot sector says it is: in sector 6.
        out.write_all(&[&boot[..], &info, &last_of_three, &blank, &boot, &info, &last_of_three].concat())?;
        out.write_zeros(u64::from(RESERVED - 9) * SECTOR)?;
        for _ in 0..TABLES {
            self.write_table(out)?;
        }
        let cluster = u64::from(self.sectors_per_cluster) * SECTOR;
        for directory in self.directories() {
            out.write_all(&directory)?;
            out.write_zeros(cluster.saturating_sub(directory.len() as u64))?;
        }
        out.write_all(file)?;
        let used = u64::from(RESERVED + TABLES * self.table_sectors) * SECTOR
            + u64::from(DIRECTORIES) * cluster
            + file.len() as u64;
        out.write_zeros((u64::from(self.sectors) * SECTOR).saturating_sub(used))
    }

    fn boot_sector(&self, names: Names) -> Vec<u8> {
        let mut sector = vec![0; 512];
        put(&mut sector, 0, &[0xeb, 0x58, 0x90]);
        put(&mut sector, 3, b"BULLION ");
        put(&mut sector, 11, &512_u16.to_le_bytes());
        put(&mut sector, 13, &[u8::try_from(self.sectors_per_cluster).unwrap_or_default()]);
        put(&mut sector, 14, &[32, 0, 2]);
        put(&mut sector, 21, &[0xf8]);
        // Sectors of a track and heads, for what still asks.
        put(&mut sector, 24, &[63, 0, 255, 0]);
        put(&mut sector, 28, &names.first_sector.to_le_bytes());
        put(&mut sector, 32, &self.sectors.to_le_bytes());
        put(&mut sector, 36, &self.table_sectors.to_le_bytes());
        // The cluster of the root directory, the sector of FSInfo, the sector of the copy.
        put(&mut sector, 44, &[2, 0, 0, 0, 1, 0, 6, 0]);
        put(&mut sector, 64, &[0x80, 0, 0x29]);
        put(&mut sector, 67, &names.volume_id.to_le_bytes());
        put(&mut sector, 71, LABEL);
        put(&mut sector, 82, b"FAT32   ");
        boot_signature(sector)
    }

    /// FSInfo: how many clusters are free, and the first of them.
    fn information(&self) -> Vec<u8> {
        let used = DIRECTORIES + self.file_clusters;
        let mut sector = vec![0; 512];
        put(&mut sector, 0, b"RRaA");
        put(&mut sector, 484, b"rrAa");
        put(&mut sector, 488, &(self.clusters - used).to_le_bytes());
        put(&mut sector, 492, &(2 + used).to_le_bytes());
        boot_signature(sector)
    }

    fn write_table(&self, out: &mut impl Sink) -> io::Result<()> {
        let used = FIRST_OF_FILE + self.file_clusters;
        let used_sectors = used.div_ceil(ENTRIES);
        for sector in 0..used_sectors {
            let entries = sector * ENTRIES..(sector + 1) * ENTRIES;
            out.write_all(&entries.flat_map(|cluster| self.entry(cluster).to_le_bytes()).collect::<Vec<_>>())?;
        }
        out.write_zeros(u64::from(self.table_sectors - used_sectors) * SECTOR)
    }

    /// What follows a cluster.
    fn entry(&self, cluster: u32) -> u32 {
        let after_file = FIRST_OF_FILE + self.file_clusters;
        match cluster {
            0 => 0x0fff_fff8,
            1..FIRST_OF_FILE => END_OF_CHAIN,
            _ if cluster + 1 < after_file => cluster + 1,
            _ if cluster < after_file => END_OF_CHAIN,
            _ => 0,
        }
    }

    /// The three directories, each in one cluster. Seen from below, the root directory has the number 0.
    fn directories(&self) -> [Vec<u8>; 3] {
        let directory = |name, cluster| entry(name, DIRECTORY, cluster, 0);
        let links = |own, parent| [directory(b".          ", own), directory(b"..         ", parent)].concat();
        let file = if self.file_size == 0 { 0 } else { FIRST_OF_FILE };
        [
            [entry(LABEL, VOLUME_LABEL, 0, 0), directory(b"EFI        ", 3)].concat(),
            [links(3, 0), directory(b"BOOT       ", 4)].concat(),
            [links(4, 3), entry(b"BOOTX64 EFI", 0, file, self.file_size)].concat(),
        ]
    }
}

fn boot_signature(mut sector: Vec<u8>) -> Vec<u8> {
    put(&mut sector, 510, &[0x55, 0xaa]);
    sector
}

/// A directory entry of 32 bytes.
fn entry(name: &[u8; 11], attributes: u8, cluster: u32, size: u32) -> Vec<u8> {
    let mut entry = vec![0; 32];
    let [low0, low1, high0, high1] = cluster.to_le_bytes();
    put(&mut entry, 0, name);
    put(&mut entry, 11, &[attributes]);
    // Creation, last access, last change.
    for offset in [16, 18, 24] {
        put(&mut entry, offset, &DATE);
    }
    put(&mut entry, 20, &[high0, high1]);
    put(&mut entry, 26, &[low0, low1]);
    put(&mut entry, 28, &size.to_le_bytes());
    entry
}
