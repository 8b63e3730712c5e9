//! PE32+ images as far as adding sections needs them (Microsoft PE format, "COFF File Header" to "Section Table"): a reader
//! that never panics, and a writer that appends sections as `pe_add_sections` of ukify does.
//!
//! What firmware measures of such an image is in `measure::authenticode`.

use super::UkiError;
use crate::little_endian::{put, u16_at, u32_at};

const COFF: usize = 4;
const OPTIONAL: usize = 24;
const MAGIC_PE32_PLUS: u16 = 0x20b;
/// Offsets in the optional header.
const INITIALIZED_DATA: usize = 8;
const SECTION_ALIGNMENT: usize = 32;
const FILE_ALIGNMENT: usize = 36;
const SIZE_OF_IMAGE: usize = 56;
const SIZE_OF_HEADERS: usize = 60;
const CHECKSUM: usize = 64;
const DLL_CHARACTERISTICS: usize = 70;
const DIRECTORY_COUNT: usize = 108;
const CERTIFICATE_TABLE: usize = 144;
const NX_COMPATIBLE: u16 = 0x100;
const SECTION_HEADER: usize = 40;

/// What a section holds, as its flags say it.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Kind {
    /// IMAGE_SCN_CNT_CODE and IMAGE_SCN_MEM_READ.
    Code = 0x4000_0020,
    /// IMAGE_SCN_CNT_INITIALIZED_DATA and IMAGE_SCN_MEM_READ.
    Data = 0x4000_0040,
}

/// A PE32+ image, with headers that are whole.
#[derive(Clone, Debug)]
pub(super) struct Pe<'a> {
    image: &'a [u8],
    /// Where the optional header is.
    optional: usize,
    /// Where the section table is.
    table: usize,
    sections: Vec<Section>,
}

#[derive(Clone, Copy, Debug)]
struct Section {
    name: [u8; 8],
    virtual_size: u32,
    virtual_address: u32,
    raw_size: u32,
    raw_place: u32,
}

impl Section {
    fn is(&self, name: &str) -> bool {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        self.name.get(..end) == Some(name.as_bytes())
    }

    fn read(header: &[u8]) -> Option<Self> {
        Some(Self {
            name: *header.first_chunk()?,
            virtual_size: u32_at(header, 8)?,
            virtual_address: u32_at(header, 12)?,
            raw_size: u32_at(header, 16)?,
            raw_place: u32_at(header, 20)?,
        })
    }
}

impl<'a> Pe<'a> {
    /// Reads the headers; the error says what is wrong with the image.
    pub(super) fn parse(image: &'a [u8]) -> Result<Self, &'static str> {
        if !image.starts_with(b"MZ") {
            return Err("it is not a PE image");
        }
        let start = u32_at(image, 0x3c).and_then(|start| usize::try_from(start).ok()).unwrap_or(usize::MAX);
        if image.get(start..).is_none_or(|rest| !rest.starts_with(b"PE\0\0")) {
            return Err("it is not a PE image");
        }
        let optional = start + OPTIONAL;
        if u16_at(image, optional) != Some(MAGIC_PE32_PLUS) {
            return Err("it is not a 64-bit PE image");
        }
        let headers = (|| {
            let count = usize::from(u16_at(image, start + COFF + 2)?);
            let table = optional + usize::from(u16_at(image, start + COFF + 16)?);
            let headers = image.get(table..table + count * SECTION_HEADER)?;
            let sections = headers.chunks_exact(SECTION_HEADER).map(Section::read).collect::<Option<_>>()?;
            image.get(optional..optional + CERTIFICATE_TABLE)?;
            Some((table, sections))
        })();
        let (table, sections) = headers.ok_or("its headers are cut off")?;
        Ok(Self { image, optional, table, sections })
    }

    /// The content of the first section called `name`, as far as it is in the file and meant to be loaded.
    pub(super) fn section(&self, name: &str) -> Option<&'a [u8]> {
        let section = self.sections.iter().find(|section| section.is(name))?;
        let start = usize::try_from(section.raw_place).ok()?;
        let length = usize::try_from(section.virtual_size.min(section.raw_size)).ok()?;
        self.image.get(start..start.checked_add(length)?)
    }

    /// Whether it says that it runs with pages that are either writable or executable.
    pub(super) fn is_nx_compatible(&self) -> bool {
        u16_at(self.image, self.optional + DLL_CHARACTERISTICS).is_some_and(|flags| flags & NX_COMPATIBLE != 0)
    }

    fn number(&self, offset: usize) -> u32 {
        u32_at(self.image, self.optional + offset).unwrap_or_default()
    }
}

/// An image that sections are being added to.
pub(super) struct Writer {
    image: Vec<u8>,
    /// Where the PE signature is.
    start: usize,
    optional: usize,
    table: usize,
    sections: Vec<Section>,
    file_alignment: usize,
    section_alignment: u32,
    headers: usize,
    initialized_data: u32,
}

impl Writer {
    /// Starts from a stub that needs no repair: aligned, unsigned, without a symbol table.
    pub(super) fn new(stub: &[u8]) -> Result<Self, UkiError> {
        let pe = Pe::parse(stub).map_err(UkiError::Stub)?;
        let refuse = |reason| Err(UkiError::Stub(reason));
        let start = pe.optional - OPTIONAL;
        if u32_at(stub, start + COFF + 8) != Some(0) {
            return refuse("it has a symbol table");
        }
        if pe.number(DIRECTORY_COUNT) > 4 && u32_at(stub, pe.optional + CERTIFICATE_TABLE) != Some(0) {
            return refuse("it is signed");
        }
        let (file_alignment, section_alignment) = (pe.number(FILE_ALIGNMENT), pe.number(SECTION_ALIGNMENT));
        let power = |alignment: u32| alignment.is_power_of_two() && (512..=1 << 16).contains(&alignment);
        if !power(file_alignment) || !power(section_alignment) {
            return refuse("it has an alignment that is not supported");
        }
        let unaligned = |section: &Section| {
            !section.raw_place.is_multiple_of(file_alignment) || !section.raw_size.is_multiple_of(file_alignment)
        };
        if pe.sections.is_empty()
            || pe.sections.iter().any(unaligned)
            || pe.number(SIZE_OF_HEADERS) % file_alignment != 0
        {
            return refuse("its sections are not aligned in the file");
        }
        Ok(Self {
            start,
            optional: pe.optional,
            table: pe.table,
            file_alignment: usize::try_from(file_alignment).unwrap_or(usize::MAX),
            section_alignment,
            headers: usize::try_from(pe.number(SIZE_OF_HEADERS)).unwrap_or(usize::MAX),
            initialized_data: pe.number(INITIALIZED_DATA),
            sections: pe.sections,
            image: stub.to_vec(),
        })
    }

    /// Makes room for content of so many bytes, to come.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.image.reserve(bytes + 16 * self.file_alignment);
    }

    /// Appends a section.
    pub(super) fn add(&mut self, name: &'static str, content: &[u8], kind: Kind) -> Result<(), UkiError> {
        let header = self.table + self.sections.len() * SECTION_HEADER;
        if header + SECTION_HEADER > self.headers.min(self.first_content()) {
            return Err(UkiError::NoRoom(name));
        }
        let number = |value: usize| u32::try_from(value).map_err(|_| UkiError::TooLarge);
        let virtual_size = number(content.len())?;
        let section = Section {
            name: std::array::from_fn(|index| name.as_bytes().get(index).copied().unwrap_or_default()),
            virtual_size,
            virtual_address: self.end_in_memory()?,
            raw_size: number(content.len().next_multiple_of(self.file_alignment))?,
            raw_place: number(self.image.len().next_multiple_of(self.file_alignment))?,
        };
        self.image.resize(self.image.len().next_multiple_of(self.file_alignment), 0);
        self.image.extend_from_slice(content);
        self.image.resize(self.image.len().next_multiple_of(self.file_alignment), 0);
        put(&mut self.image, header, &section.name);
        for (offset, value) in [
            (8, section.virtual_size),
            (12, section.virtual_address),
            (16, section.raw_size),
            (20, section.raw_place),
            (36, kind as u32),
        ] {
            put(&mut self.image, header + offset, &value.to_le_bytes());
        }
        self.sections.push(section);
        self.initialized_data = self.initialized_data.checked_add(virtual_size).ok_or(UkiError::TooLarge)?;
        Ok(())
    }

    /// Gives the stub's section `name` another content, which must fit; adds the section where the stub has none.
    pub(super) fn replace_or_add(&mut self, name: &'static str, content: &[u8]) -> Result<(), UkiError> {
        let Some(index) = self.sections.iter().position(|section| section.is(name)) else {
            return self.add(name, content, Kind::Data);
        };
        let header = self.table + index * SECTION_HEADER;
        let place = |offset| u32_at(&self.image, header + offset).and_then(|value| usize::try_from(value).ok());
        let (room, start) = (place(16).unwrap_or_default(), place(20).unwrap_or_default());
        if content.len() > room {
            return Err(UkiError::Sbat { found: content.len(), room });
        }
        let old = start.checked_add(room).and_then(|end| self.image.get_mut(start..end));
        old.ok_or(UkiError::Stub("a section is outside the file"))?.fill(0);
        put(&mut self.image, start, content);
        let size = u32::try_from(content.len()).map_err(|_| UkiError::TooLarge)?;
        put(&mut self.image, header + 8, &size.to_le_bytes());
        Ok(())
    }

    /// Says that it does not run with pages that are either writable or executable.
    pub(super) fn clear_nx_compatible(&mut self) {
        let at = self.optional + DLL_CHARACTERISTICS;
        let flags = u16_at(&self.image, at).unwrap_or_default();
        put(&mut self.image, at, &(flags & !NX_COMPATIBLE).to_le_bytes());
    }

    /// Brings the headers up to date and gives out the image.
    pub(super) fn finish(mut self) -> Result<Vec<u8>, UkiError> {
        let end = self.end_in_memory()?;
        // `add` has kept the table within the headers, so the count fits.
        let count = u16::try_from(self.sections.len()).unwrap_or(u16::MAX);
        put(&mut self.image, self.start + COFF + 2, &count.to_le_bytes());
        for (offset, value) in [(INITIALIZED_DATA, self.initialized_data), (SIZE_OF_IMAGE, end), (CHECKSUM, 0)] {
            put(&mut self.image, self.optional + offset, &value.to_le_bytes());
        }
        Ok(self.image)
    }

    /// The first address behind the last section.
    fn end_in_memory(&self) -> Result<u32, UkiError> {
        let last = self.sections.last().and_then(|last| last.virtual_address.checked_add(last.virtual_size));
        last.and_then(|end| end.checked_next_multiple_of(self.section_alignment)).ok_or(UkiError::TooLarge)
    }

    /// Where the first content is: headers must not grow into it.
    fn first_content(&self) -> usize {
        let places = self.sections.iter().filter(|section| section.raw_size > 0).map(|section| section.raw_place);
        places.min().and_then(|place| usize::try_from(place).ok()).unwrap_or(usize::MAX)
    }
}
