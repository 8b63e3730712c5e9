//! The frame that SEV and TDX metadata share: signature, length, version 1, number of sections, sections of one size.

use alloc::vec::Vec;

use super::FirmwareError;
use crate::read::{Reader, tail_at};

const HEADER_SIZE: usize = 16;

/// One kind of metadata.
pub(super) struct Format {
    pub(super) what: &'static str,
    pub(super) signature: [u8; 4],
    pub(super) section_size: usize,
}

/// Reads the metadata that `offset_entry`, the data of its entry in the OVMF table, points to from the end of the image.
/// `section` reads exactly `format.section_size` bytes.
pub(super) fn sections<'a, S>(
    image: &'a [u8],
    offset_entry: &[u8],
    format: &Format,
    section: impl Fn(&mut Reader<'a>) -> Option<S>,
) -> Result<Vec<S>, FirmwareError> {
    let damaged = |reason| FirmwareError::Metadata { what: format.what, reason };
    let offset = <[u8; 4]>::try_from(offset_entry).map_err(|_| FirmwareError::EntryLength {
        what: format.what,
        length: offset_entry.len(),
        expected: 4,
    })?;
    let offset = usize::try_from(u32::from_le_bytes(offset)).unwrap_or(usize::MAX);
    let mut reader = Reader::new(tail_at(image, offset).ok_or(damaged("it is outside the image"))?);
    let header = (|| Some((reader.array::<4>()?, reader.u32()?, reader.u32()?, reader.u32()?)))();
    let (signature, length, version, count) = header.ok_or(damaged("its header is cut off"))?;
    if signature != format.signature {
        return Err(damaged("it does not start with its signature"));
    }
    if version != 1 {
        return Err(damaged("its version is not 1"));
    }
    let expected = usize::try_from(count)
        .ok()
        .and_then(|count| count.checked_mul(format.section_size))
        .and_then(|sections| sections.checked_add(HEADER_SIZE));
    if expected.is_none() || usize::try_from(length).ok() != expected {
        return Err(damaged("its length does not fit its number of sections"));
    }
    (0..count).map(|_| section(&mut reader).ok_or(damaged("its sections are cut off"))).collect()
}
