//! The packed part of an OVMF image: where it is, and the volumes in it, which PCR 0 of a TPM covers (UEFI Platform
//! Initialization 1.8, volume 3, sections; edk2 `OvmfPkg/OvmfPkgX64.fdf`, FVMAIN_COMPACT).
//!
//! Unpacking is left to the caller: this crate has no LZMA decoder.

use alloc::vec::Vec;

use crate::digest::Digest384;
use crate::guid::Guid;
use crate::read::{Reader, slice_at};

/// LZMA_CUSTOM_DECOMPRESS_GUID: the content is an LZMA stream with its 13-byte header ("LZMA alone").
const LZMA: Guid = Guid::new(0xee4e5898, 0x3914, 0x4259, [0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf]);
const GUID_DEFINED: u8 = 2;
const FIRMWARE_VOLUME_IMAGE: u8 = 0x17;

/// The LZMA stream that holds the firmware's volumes; `None` where there is none.
pub fn packed(image: &[u8]) -> Option<&[u8]> {
    image.windows(16).enumerate().filter(|(_, window)| **window == LZMA.0).find_map(|(position, _)| {
        // The header before the GUID is 4 bytes, or 8 for sections of 16 MiB and more, which no image has.
        let section = image.get(position.checked_sub(4)?..)?;
        let (section_type, content, _) = section_parts(section)?;
        let data_offset = usize::from(Reader::new(content.get(16..)?).u16()?);
        (section_type == GUID_DEFINED).then(|| content.get(data_offset.checked_sub(4)?..)).flatten()
    })
}

/// SHA-384 of each volume in what [`packed`] unpacks to, in order; `None` where it is not made of sections.
pub fn digests(unpacked: &[u8]) -> Option<Vec<Digest384>> {
    let mut rest = unpacked;
    let mut digests = Vec::new();
    while !rest.is_empty() {
        let (section_type, content, size) = section_parts(rest)?;
        if section_type == FIRMWARE_VOLUME_IMAGE {
            digests.push(Digest384::of(content));
        }
        // Sections start at multiples of four.
        rest = rest.get(size.checked_next_multiple_of(4)?..).unwrap_or_default();
    }
    Some(digests)
}

/// EFI_COMMON_SECTION_HEADER: type, content, and the size with the header.
fn section_parts(section: &[u8]) -> Option<(u8, &[u8], usize)> {
    let mut reader = Reader::new(section);
    let [a, b, c, section_type] = reader.array()?;
    let (header, size) = match u32::from_le_bytes([a, b, c, 0]) {
        0xff_ffff => (8, reader.u32()?),
        size => (4, size),
    };
    let size = usize::try_from(size).ok()?;
    Some((section_type, slice_at(section, header, size.checked_sub(header)?)?, size))
}
