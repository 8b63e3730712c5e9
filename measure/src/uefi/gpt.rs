//! The partition table as firmware measures it, of the disk that it starts something from (TCG PC Client Platform Firmware
//! Profile 1.06, UEFI_GPT_DATA; edk2 `SecurityPkg/Library/DxeTpm2MeasureBootLib`).

use alloc::vec::Vec;

use crate::digest::Digest384;
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
}

const SECTOR: u64 = 512;
const HEADER_SIZE: usize = 92;
/// UEFI 2.11, 5.3.3: 128 times a power of two. Nothing uses more than a sector.
const ENTRY_SIZES: core::ops::RangeInclusive<usize> = 128..=512;
const MAX_ENTRIES: usize = 1024;

/// The digest of the event EV_EFI_GPT_EVENT, from the start of a disk with sectors of 512 bytes: the first MiB suffices.
pub fn digest(disk: &[u8]) -> Result<Digest384, GptError> {
    event_data(disk).map(|data| Digest384::of(&data))
}

/// The event's data: the header, the number of entries that are used, and those.
fn event_data(disk: &[u8]) -> Result<Vec<u8>, GptError> {
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
    let used: Vec<&[u8]> = table.chunks_exact(size).filter(is_used).collect();
    let mut data = header.to_vec();
    data.extend((used.len() as u64).to_le_bytes());
    data.extend(used.concat());
    Ok(data)
}
