//! The OVMF table (edk2 `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`): entries of data, u16 length, GUID, read backwards
//! from a footer that ends 32 bytes before the end of the image.

use alloc::vec::Vec;

use super::FirmwareError;
use crate::guid::Guid;
use crate::read::{Reader, tail_at};

/// The GUID of the footer, whose length is that of the whole table.
const FOOTER: Guid = Guid::new(0x96b582de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
/// How many bytes follow the table: the reset vector.
const AFTER_TABLE: usize = 32;
/// u16 length and GUID.
const ENTRY_END: usize = 18;

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableEntry<'a> {
    /// What it is.
    pub guid: Guid,
    /// What it says.
    pub data: &'a [u8],
}

/// Reads all entries, last first.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<TableEntry<'_>>, FirmwareError> {
    let no_table = FirmwareError::NoTable { expected: FOOTER };
    let image = bytes.len().checked_sub(AFTER_TABLE).and_then(|end| bytes.get(..end)).ok_or(no_table.clone())?;
    let (footer, before) = split_end(image).filter(|(end, _)| end.guid == FOOTER).ok_or(no_table)?;
    let too_long = |end: &EntryEnd, available: usize| FirmwareError::TableLength {
        entry: end.guid,
        length: usize::from(end.length),
        available,
    };
    let mut table = data_length(footer)
        .and_then(|length| tail_at(before, length))
        .ok_or_else(|| too_long(&footer, before.len().saturating_add(ENTRY_END)))?;
    let mut entries: Vec<TableEntry<'_>> = Vec::new();
    while !table.is_empty() {
        let (end, before) = split_end(table).ok_or(FirmwareError::TableLength {
            entry: FOOTER,
            length: usize::from(footer.length),
            available: table.len(),
        })?;
        let data =
            data_length(end).and_then(|length| tail_at(before, length)).ok_or_else(|| too_long(&end, table.len()))?;
        if entries.iter().any(|entry| entry.guid == end.guid) {
            return Err(FirmwareError::Twice(end.guid));
        }
        entries.push(TableEntry { guid: end.guid, data });
        table = before.get(..before.len().saturating_sub(data.len())).unwrap_or_default();
    }
    Ok(entries)
}

#[derive(Clone, Copy)]
struct EntryEnd {
    length: u16,
    guid: Guid,
}

/// The length of the entry's data: its own length is that of the whole entry.
fn data_length(end: EntryEnd) -> Option<usize> {
    usize::from(end.length).checked_sub(ENTRY_END)
}

/// The length and GUID that end `bytes`, and what is before them.
fn split_end(bytes: &[u8]) -> Option<(EntryEnd, &[u8])> {
    let (before, end) = bytes.split_at_checked(bytes.len().checked_sub(ENTRY_END)?)?;
    let mut reader = Reader::new(end);
    Some((EntryEnd { length: reader.u16()?, guid: reader.guid()? }, before))
}
