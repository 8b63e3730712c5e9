//! The partition table as firmware measures it, of the disk that it starts something from (TCG PC Client Platform Firmware
//! Profile 1.06, UEFI_GPT_DATA; edk2 `SecurityPkg/Library/DxeTpm2MeasureBootLib`), and the partition that it starts it from.

use alloc::vec::Vec;
use core::ops::Range;

use crate::digest::Digest384;
use crate::guid::Guid;
use crate::read::{Reader, slice_at};

/// A disk whose table cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GptError {
    /// There is no table where it must be.
    #[error("the disk has no GPT: there is no \"EFI PART\" in its second sector of 512 bytes")]
    NoTable,
    /// The table is cut off, or its entries are of an impossible size.
    #[error("the disk's GPT is damaged: {0}")]
    Damaged(&'static str),
    /// What firmware starts cannot be told.
    #[error("the disk has {0} EFI system partitions, expected one")]
    SystemPartitions(usize),
}

const SECTOR: u64 = 512;
const HEADER_SIZE: usize = 92;
/// UEFI 2.11, 5.3.3: 128 times a power of two. Nothing uses more than a sector.
const ENTRY_SIZES: core::ops::RangeInclusive<usize> = 128..=512;
const MAX_ENTRIES: usize = 1024;
const SYSTEM_PARTITION: Guid = Guid::new(0xc12a7328, 0xf81f, 0x11d2, [0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b]);

/// The digest of the event EV_EFI_GPT_EVENT, from the start of a disk with sectors of 512 bytes: the first MiB suffices.
pub fn digest(disk: &[u8]) -> Result<Digest384, GptError> {
    event_data(disk).map(|data| Digest384::of(&data))
}

/// Where the EFI system partition is, in bytes, from the same start of a disk. A disk with several is refused.
pub fn system_partition(disk: &[u8]) -> Result<Range<u64>, GptError> {
    let (_, used) = table(disk)?;
    let mut system: Vec<&[u8]> = used;
    system.retain(|entry| entry.starts_with(&SYSTEM_PARTITION.0));
    let [entry] = system[..] else { return Err(GptError::SystemPartitions(system.len())) };
    let range = (|| {
        let mut reader = Reader::new(entry.get(32..)?);
        let (first, last) = (reader.u64()?, reader.u64()?);
        Some(first.checked_mul(SECTOR)?..last.checked_add(1)?.checked_mul(SECTOR)?)
    })();
    range.filter(|range| !range.is_empty()).ok_or(GptError::Damaged("a partition ends before it starts"))
}

/// The event's data: the header, the number of entries that are used, and those.
fn event_data(disk: &[u8]) -> Result<Vec<u8>, GptError> {
    let (header, used) = table(disk)?;
    let mut data = header.to_vec();
    data.extend((used.len() as u64).to_le_bytes());
    data.extend(used.concat());
    Ok(data)
}

/// The header, and the entries that are used.
fn table(disk: &[u8]) -> Result<(&[u8], Vec<&[u8]>), GptError> {
    const CUT_OFF: GptError = GptError::Damaged("it is cut off");
    let header = usize::try_from(SECTOR).ok().and_then(|at| slice_at(disk, at, HEADER_SIZE));
    let header = header.filter(|header| header.starts_with(b"EFI PART")).ok_or(GptError::NoTable)?;
    let fields = (|| {
        let mut reader = Reader::new(header.get(72..)?);
        let first = usize::try_from(reader.u64()?.checked_mul(SECTOR)?).ok()?;
        Some((first, usize::try_from(reader.u32()?).ok()?, usize::try_from(reader.u32()?).ok()?))
    })();
    let (first, count, size) = fields.ok_or(CUT_OFF)?;
    if !ENTRY_SIZES.contains(&size) || count > MAX_ENTRIES {
        return Err(GptError::Damaged("its entries are too large, too small or too many"));
    }
    let table = slice_at(disk, first, count.saturating_mul(size)).ok_or(CUT_OFF)?;
    // The type of an entry that is not used is zero.
    let is_used = |entry: &&[u8]| entry.iter().take(16).any(|byte| *byte != 0);
    Ok((header, table.chunks_exact(size).filter(is_used).collect()))
}
