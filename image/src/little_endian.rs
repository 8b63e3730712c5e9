//! Little-endian numbers at offsets of foreign bytes and of bytes being laid out. Nothing here panics: what is outside is
//! `None` when read.

pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Copies `bytes` to `offset` where there is room for them; the layout has made sure that there is.
pub(crate) fn put(into: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(room) = offset.checked_add(bytes.len()).and_then(|end| into.get_mut(offset..end)) {
        room.copy_from_slice(bytes);
    }
}
