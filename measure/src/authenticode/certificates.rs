//! The certificate table of a PE image: the signatures that were put on it (Microsoft PE Format, "The Attribute Certificate
//! Table"; edk2 `SecurityPkg/Library/DxeImageVerificationLib`).

use alloc::vec::Vec;

use super::{PeError, headers};
use crate::read::{Reader, slice_at};

/// WIN_CERT_TYPE_PKCS_SIGNED_DATA.
const PKCS_SIGNED_DATA: u16 = 2;
/// More than any image has: each costs a reading of its certificates.
const MAX_MESSAGES: usize = 8;

/// The PKCS #7 messages on an image, in their order; none for an image that is not signed. Entries of other kinds are refused: edk2 looks
/// at one of them, which no tool writes. As in edk2, the last entry ends, with its padding, where the table ends.
pub fn signed_messages(image: &[u8]) -> Result<Vec<&[u8]>, PeError> {
    const DAMAGED: PeError = PeError::Damaged("its certificate table");
    let headers = headers(image)?;
    let Some(entry) = headers.certificate_entry.filter(|_| headers.certificate_size != 0) else {
        return Ok(Vec::new());
    };
    let place = image.get(entry..).and_then(|bytes| Reader::new(bytes).u32()).ok_or(DAMAGED)?;
    let place = usize::try_from(place).map_err(|_| DAMAGED)?;
    let mut table = slice_at(image, place, headers.certificate_size).ok_or(DAMAGED)?;
    let mut messages = Vec::new();
    while !table.is_empty() {
        let mut reader = Reader::new(table);
        let header = (|| Some((reader.u32()?, reader.u16()?, reader.u16()?)))();
        let (length, _revision, kind) = header.ok_or(DAMAGED)?;
        let length = usize::try_from(length).map_err(|_| DAMAGED)?;
        let message = length
            .checked_sub(8)
            .filter(|length| *length != 0)
            .and_then(|length| reader.bytes(length))
            .ok_or(DAMAGED)?;
        if kind != PKCS_SIGNED_DATA {
            return Err(PeError::Damaged("its certificate table: an entry of an unknown kind"));
        }
        if messages.len() == MAX_MESSAGES {
            return Err(PeError::Damaged("its certificate table: more than 8 signatures"));
        }
        messages.push(message);
        table = length.checked_next_multiple_of(8).and_then(|length| table.get(length..)).ok_or(DAMAGED)?;
    }
    Ok(messages)
}
