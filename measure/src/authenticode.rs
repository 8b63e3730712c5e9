//! The Authenticode digest of a PE image, as edk2 takes it when it measures what it starts
//! (`SecurityPkg/Library/DxeTpm2MeasureBootLib`, `SecurityPkg/Tcg/Tcg2Dxe/MeasureBootPeCoff.c`).
//!
//! Where edk2 and Microsoft's specification differ, edk2 is followed: no padding to eight bytes. For files whose size is a
//! multiple of eight, as every signed one is, both give the same.

pub mod certificates;
pub mod signed;
pub mod streamed;

use alloc::vec::Vec;
use core::ops::Range;

use crate::digest::{Digest256, Digest384};
use crate::read::{Reader, slice_at};

/// An image that firmware could not measure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// Not a PE image, or one whose headers are cut off.
    #[error("this is not a PE image: {0}")]
    NotPe(&'static str),
    /// A part is outside the file.
    #[error("the PE image is damaged: {0}")]
    Damaged(&'static str),
}

/// The Authenticode SHA-384: what the event EV_EFI_BOOT_SERVICES_APPLICATION extends.
pub fn sha384(image: &[u8]) -> Result<Digest384, PeError> {
    hashed_parts(image).map(|parts| Digest384::of_parts(&parts))
}

/// The Authenticode SHA-256: what signatures of images sign.
pub fn sha256(image: &[u8]) -> Result<Digest256, PeError> {
    hashed_parts(image).map(|parts| Digest256::of_parts(&parts))
}

/// What of the headers decides which bytes are hashed.
struct Headers {
    /// Where the checksum is.
    checksum: usize,
    /// Where the entry of the certificate table in the data directory is, if the directory has one.
    certificate_entry: Option<usize>,
    /// The size of the certificate table.
    certificate_size: usize,
    /// SizeOfHeaders.
    size: usize,
    /// The sections' raw data: place and size.
    sections: Vec<(usize, usize)>,
    /// Where the section table is, and how many sections it has.
    table: (usize, u16),
}

/// A section by its name in the file, padded with zeroes, with the content that it has in memory and in the file.
pub(crate) struct NamedSection<'a> {
    pub(crate) name: [u8; 8],
    pub(crate) content: &'a [u8],
}

/// All sections, in the order of the section table.
pub(crate) fn named_sections(image: &[u8]) -> Result<Vec<NamedSection<'_>>, PeError> {
    const CUT_OFF: PeError = PeError::NotPe("its headers are cut off");
    let (table, count) = headers(image)?.table;
    let mut reader = Reader::new(image.get(table..).ok_or(CUT_OFF)?);
    let mut sections = Vec::new();
    for _ in 0..count {
        let fields = (|| {
            let (name, memory_size, _address) = (reader.array()?, reader.u32()?, reader.u32()?);
            let (size, place) = (reader.u32()?, usize::try_from(reader.u32()?).ok()?);
            reader.array::<16>()?;
            Some((name, place, usize::try_from(memory_size.min(size)).ok()?))
        })();
        let (name, place, size) = fields.ok_or(CUT_OFF)?;
        let content = slice_at(image, place, size).ok_or(PeError::Damaged("a section is outside the file"))?;
        sections.push(NamedSection { name, content });
    }
    Ok(sections)
}

/// The parts of the file that are hashed, in order: headers without the checksum and the certificate table's entry,
/// sections in file order, and what follows them up to the certificates.
pub fn hashed_parts(image: &[u8]) -> Result<Vec<&[u8]>, PeError> {
    let ranges = hashed_ranges(image, image.len())?;
    Ok(ranges.into_iter().map(|range| image.get(range).unwrap_or_default()).collect())
}

/// Where they are in an image of `length` bytes that starts with `head`.
fn hashed_ranges(head: &[u8], length: usize) -> Result<Vec<Range<usize>>, PeError> {
    let headers = headers(head)?;
    let range = |start: usize, end: usize| {
        let fits = start <= end && end <= length;
        fits.then_some(start..end).ok_or(PeError::Damaged("its headers overlap"))
    };
    let after_checksum = headers.checksum.saturating_add(4);
    let mut parts = Vec::from([range(0, headers.checksum)?]);
    match headers.certificate_entry {
        Some(entry) => {
            parts.push(range(after_checksum, entry)?);
            parts.push(range(entry.saturating_add(8), headers.size)?);
        }
        None => parts.push(range(after_checksum, headers.size)?),
    }
    let mut hashed = headers.size;
    for (place, size) in headers.sections {
        let end = place.checked_add(size).filter(|end| *end <= length);
        parts.push(place..end.ok_or(PeError::Damaged("a section is outside the file"))?);
        hashed = hashed.saturating_add(size);
    }
    let rest = length.checked_sub(hashed).and_then(|rest| rest.checked_sub(headers.certificate_size));
    let rest = rest.ok_or(PeError::Damaged("its parts are larger than the file"))?;
    parts.push(hashed..hashed.saturating_add(rest));
    Ok(parts)
}

fn headers(image: &[u8]) -> Result<Headers, PeError> {
    const CUT_OFF: PeError = PeError::NotPe("its headers are cut off");
    const COFF_SIZE: usize = 24;
    let at = |offset: usize| image.get(offset..).map(Reader::new).ok_or(CUT_OFF);
    if !image.starts_with(b"MZ") {
        return Err(PeError::NotPe("it does not start with MZ"));
    }
    let start = at(0x3c)?.u32().and_then(|offset| usize::try_from(offset).ok()).ok_or(CUT_OFF)?;
    let mut coff = at(start)?;
    if coff.array() != Some(*b"PE\0\0") {
        return Err(PeError::NotPe("it has no PE signature"));
    }
    let counts = (|| {
        let (_machine, sections) = (coff.u16()?, coff.u16()?);
        coff.array::<12>()?;
        Some((sections, usize::from(coff.u16()?)))
    })();
    let (section_count, optional_size) = counts.ok_or(CUT_OFF)?;
    let optional = start.saturating_add(COFF_SIZE);
    let directory = match at(optional)?.u16() {
        Some(0x10b) => optional.saturating_add(92),
        Some(0x20b) => optional.saturating_add(108),
        _ => return Err(PeError::NotPe("its optional header is of an unknown kind")),
    };
    let size = at(optional.saturating_add(60))?.u32().and_then(|size| usize::try_from(size).ok()).ok_or(CUT_OFF)?;
    let (certificate_entry, certificate_size) = certificate_table(&mut at(directory)?, directory).ok_or(CUT_OFF)?;
    let table = optional.saturating_add(optional_size);
    let sections = sections(&mut at(table)?, section_count).ok_or(CUT_OFF)?;
    let checksum = optional.saturating_add(64);
    Ok(Headers { checksum, certificate_entry, certificate_size, size, sections, table: (table, section_count) })
}

/// NumberOfRvaAndSizes and the data directory; the certificate table is entry 4.
fn certificate_table(reader: &mut Reader<'_>, directory: usize) -> Option<(Option<usize>, usize)> {
    if reader.u32()? <= 4 {
        return Some((None, 0));
    }
    reader.array::<32>()?;
    let (_place, size) = (reader.u32()?, reader.u32()?);
    Some((directory.checked_add(36), usize::try_from(size).ok()?))
}

/// The section table, in the order of the sections' raw data; sections without any are left out.
fn sections(reader: &mut Reader<'_>, count: u16) -> Option<Vec<(usize, usize)>> {
    let mut sections = Vec::new();
    for _ in 0..count {
        reader.array::<16>()?;
        let (size, place) = (usize::try_from(reader.u32()?).ok()?, usize::try_from(reader.u32()?).ok()?);
        reader.array::<16>()?;
        if size != 0 {
            sections.push((place, size));
        }
    }
    sections.sort_by_key(|(place, _)| *place);
    Some(sections)
}
