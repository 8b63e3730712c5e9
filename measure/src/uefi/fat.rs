//! A file of a FAT32 file system, found as firmware finds the program that it starts from a disk (Microsoft "FAT32 File System
//! Specification" 1.03; UEFI 2.11, 13.3). Short names only: those of `\EFI\BOOT\BOOTX64.EFI` are.

use alloc::string::String;
use alloc::vec::Vec;

use crate::read::{Reader, slice_at};

/// A file that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatError {
    /// It is another file system, or FAT12 or FAT16.
    #[error("the EFI system partition is not FAT32")]
    NotFat32,
    /// What is said in one place does not fit to another.
    #[error("the FAT32 file system is damaged: {0}")]
    Damaged(&'static str),
    /// It is not there.
    #[error("the EFI system partition has no file \\{0}")]
    NoFile(String),
}

const DIRECTORY: u8 = 0x10;
/// Volume labels, and entries of long names.
const LABEL: u8 = 8;
const ENTRY: usize = 32;
/// Numbers from here on end a chain.
const END_OF_CHAIN: u32 = 0x0fff_fff8;
/// The upper four bits of an entry mean nothing.
const NUMBER: u32 = 0x0fff_ffff;

struct Volume<'a> {
    cluster_size: usize,
    root: u32,
    table: &'a [u8],
    data: &'a [u8],
}

struct Entry {
    attributes: u8,
    cluster: u32,
    size: usize,
}

/// The content of the file at `path`, names from the root directory on, in the file system that fills `volume`.
pub fn file(volume: &[u8], path: &[&str]) -> Result<Vec<u8>, FatError> {
    let missing = || FatError::NoFile(path.join("\\"));
    let (name, directories) = path.split_last().ok_or_else(missing)?;
    let volume = Volume::open(volume)?;
    let mut directory = volume.root;
    for name in directories {
        let entry = volume.find(directory, name)?.filter(|entry| entry.attributes & DIRECTORY != 0);
        directory = entry.ok_or_else(missing)?.cluster;
    }
    let entry = volume.find(directory, name)?.filter(|entry| entry.attributes & DIRECTORY == 0);
    let entry = entry.ok_or_else(missing)?;
    let mut content = if entry.size == 0 { Vec::new() } else { volume.chain(entry.cluster)? };
    if content.len() < entry.size {
        return Err(FatError::Damaged("a file is shorter than its directory says"));
    }
    content.truncate(entry.size);
    Ok(content)
}

impl<'a> Volume<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, FatError> {
        let fields = Fields::read(bytes).filter(Fields::are_fat32).ok_or(FatError::NotFat32)?;
        let parts = || {
            let table_at = fields.reserved.checked_mul(fields.sector)?;
            let table_size = fields.table_sectors.checked_mul(fields.sector)?;
            let data_at = table_at.checked_add(table_size.checked_mul(fields.tables)?)?;
            let end = fields.sectors.checked_mul(fields.sector)?;
            Some(Self {
                cluster_size: fields.sector.checked_mul(fields.sectors_per_cluster)?,
                root: fields.root,
                table: slice_at(bytes, table_at, table_size)?,
                data: bytes.get(data_at..end)?,
            })
        };
        parts().ok_or(FatError::Damaged("it is larger than its partition"))
    }

    /// What the chain of clusters that starts at `first` holds. No chain is longer than the volume.
    fn chain(&self, first: u32) -> Result<Vec<u8>, FatError> {
        const OUTSIDE: FatError = FatError::Damaged("a chain of clusters leads out of it");
        let (mut content, mut cluster) = (Vec::new(), first);
        while cluster < END_OF_CHAIN {
            let number = usize::try_from(cluster).ok().ok_or(OUTSIDE)?;
            let at = number.checked_sub(2).and_then(|number| number.checked_mul(self.cluster_size)).ok_or(OUTSIDE)?;
            content.extend(slice_at(self.data, at, self.cluster_size).ok_or(OUTSIDE)?);
            if content.len() > self.data.len() {
                return Err(FatError::Damaged("a chain of clusters never ends"));
            }
            let entry = number.checked_mul(4).and_then(|at| Reader::new(self.table.get(at..)?).u32());
            cluster = entry.ok_or(OUTSIDE)? & NUMBER;
        }
        Ok(content)
    }

    /// The entry called `name` in the directory at `cluster`; 0 stands for the root directory.
    fn find(&self, cluster: u32, name: &str) -> Result<Option<Entry>, FatError> {
        let Some(wanted) = short_name(name) else { return Ok(None) };
        let content = self.chain(if cluster == 0 { self.root } else { cluster })?;
        let used = content.chunks_exact(ENTRY).take_while(|entry| entry.first() != Some(&0));
        Ok(used
            .filter_map(Entry::read)
            .find(|(found, entry)| *found == wanted && entry.attributes & LABEL == 0)
            .map(|(_, entry)| entry))
    }
}

impl Entry {
    fn read(bytes: &[u8]) -> Option<([u8; 11], Self)> {
        let mut reader = Reader::new(bytes);
        let (name, attributes) = (reader.array()?, reader.u8()?);
        reader.bytes(8)?;
        let high = reader.u16()?;
        reader.bytes(4)?;
        let (low, size) = (reader.u16()?, reader.u32()?);
        let cluster = (u32::from(high) << 16 | u32::from(low)) & NUMBER;
        Some((name, Self { attributes, cluster, size: usize::try_from(size).ok()? }))
    }
}

/// A name as an entry holds it: 8 and 3 characters in upper case, padded with blanks.
fn short_name(name: &str) -> Option<[u8; 11]> {
    let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
    let fits = stem.len() <= 8 && ending.len() <= 3 && name.is_ascii();
    let mut short = [b' '; 11];
    let (first, last) = short.split_at_mut(8);
    first.iter_mut().zip(stem.bytes()).chain(last.iter_mut().zip(ending.bytes())).for_each(|(slot, byte)| {
        *slot = byte.to_ascii_uppercase();
    });
    fits.then_some(short)
}

/// The BIOS parameter block.
struct Fields {
    sector: usize,
    sectors_per_cluster: usize,
    reserved: usize,
    tables: usize,
    sectors: usize,
    table_sectors: usize,
    root: u32,
    /// Fields that only FAT12 and FAT16 use.
    is_older: bool,
}

impl Fields {
    fn read(bytes: &[u8]) -> Option<Self> {
        if slice_at(bytes, 510, 2)? != [0x55, 0xaa] {
            return None;
        }
        let mut reader = Reader::new(bytes.get(11..)?);
        let (sector, sectors_per_cluster, reserved) = (reader.u16()?, reader.u8()?, reader.u16()?);
        let (tables, root_entries, small_sectors) = (reader.u8()?, reader.u16()?, reader.u16()?);
        reader.u8()?;
        let small_table = reader.u16()?;
        reader.bytes(8)?;
        let (sectors, table_sectors) = (reader.u32()?, reader.u32()?);
        reader.bytes(4)?;
        Some(Self {
            sector: sector.into(),
            sectors_per_cluster: sectors_per_cluster.into(),
            reserved: reserved.into(),
            tables: tables.into(),
            sectors: usize::try_from(sectors).ok()?,
            table_sectors: usize::try_from(table_sectors).ok()?,
            root: reader.u32()?,
            is_older: root_entries != 0 || small_sectors != 0 || small_table != 0,
        })
    }

    fn are_fat32(&self) -> bool {
        let is_sector = self.sector.is_power_of_two() && (512..=4096).contains(&self.sector);
        is_sector && self.sectors_per_cluster.is_power_of_two() && self.table_sectors != 0 && !self.is_older
    }
}
