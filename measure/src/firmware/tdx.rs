//! TDX metadata (Intel 344991, "TDVF descriptor"; read and checked as QEMU's `hw/i386/tdvf.c` does).

use alloc::vec::Vec;
use core::fmt;

use super::metadata::{self, Format};
use super::{Firmware, FirmwareError, PAGE_SIZE};
use crate::guid::Guid;
use crate::read::slice_at;

const METADATA: Guid = Guid::new(0xe47a6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);
const WHAT: &str = "TDX metadata";
const FORMAT: Format = Format { what: WHAT, signature: *b"TDVF", section_size: 32 };

/// The type of a section of the TDX metadata.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TdxSectionType(pub u32);

impl TdxSectionType {
    /// Boot firmware volume: code.
    pub const BFV: Self = Self(0);
    /// Configuration firmware volume: the variable store.
    pub const CFV: Self = Self(1);
    /// The hand-off block that the VMM writes.
    pub const TD_HOB: Self = Self(2);
    /// Memory that firmware uses before it can accept any itself.
    pub const TEMP_MEM: Self = Self(3);

    /// Its name in the specification, where QEMU knows it.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::BFV => "BFV",
            Self::CFV => "CFV",
            Self::TD_HOB => "TD_HOB",
            Self::TEMP_MEM => "TempMem",
            _ => return None,
        })
    }

    fn has_data(self) -> bool {
        matches!(self, Self::BFV | Self::CFV)
    }
}

impl fmt::Display for TdxSectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "section type {:#x}", self.0),
        }
    }
}

impl fmt::Debug for TdxSectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Attributes of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TdxAttributes(pub u32);

impl TdxAttributes {
    /// The content of the section is measured, not only its place.
    pub const MR_EXTEND: Self = Self(1);

    /// Whether the content is measured.
    pub fn measures_content(self) -> bool {
        self.0 & Self::MR_EXTEND.0 != 0
    }
}

/// One section of the TDX metadata: pages that the VMM adds to the guest at launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdxSection {
    /// Where its content is in the image.
    pub data_offset: u32,
    /// How many bytes of content there are: all of the section, or none.
    pub raw_size: u32,
    /// The guest physical address of its first page.
    pub gpa: u64,
    /// Its size in guest memory, a whole number of pages.
    pub mem_size: u64,
    /// What it is for.
    pub section_type: TdxSectionType,
    /// How it is measured.
    pub attributes: TdxAttributes,
}

impl TdxSection {
    /// Its content in the image it was read from; empty where it has none.
    pub fn content<'a>(&self, image: &'a [u8]) -> &'a [u8] {
        let place = usize::try_from(self.data_offset).ok().zip(usize::try_from(self.raw_size).ok());
        place.and_then(|(offset, size)| slice_at(image, offset, size)).unwrap_or_default()
    }

    fn refusal(&self, image: &[u8]) -> Option<&'static str> {
        if self.section_type.name().is_none() {
            return Some("QEMU does not launch sections of this type");
        }
        if !self.gpa.is_multiple_of(PAGE_SIZE) || !self.mem_size.is_multiple_of(PAGE_SIZE) {
            return Some("it is not made of whole pages");
        }
        if self.gpa.checked_add(self.mem_size).is_none_or(|end| end > MAX_GPA) {
            return Some("it reaches beyond the address space");
        }
        if self.attributes.0 & !TdxAttributes::MR_EXTEND.0 != 0 {
            return Some("it has attributes that QEMU ignores");
        }
        if !self.section_type.has_data() {
            return match (self.raw_size, self.attributes.measures_content()) {
                (0, false) => None,
                (0, true) => Some("its content is measured and it has none"),
                _ => Some("it has content and should have none"),
            };
        }
        if self.raw_size == 0 {
            return Some("it has no content");
        }
        if u64::from(self.raw_size) != self.mem_size {
            return Some("its content does not fill it");
        }
        if self.content(image).is_empty() {
            return Some("its content is outside the image (code and variables must be in one file)");
        }
        None
    }
}

/// The largest guest physical address width of TDX.
const MAX_GPA: u64 = 1 << 52;

/// What a TDX launch needs to know of a firmware apart from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdxLayout {
    /// The sections, in the order in which they are launched and measured.
    pub sections: Vec<TdxSection>,
}

impl TdxLayout {
    /// Reads and checks the TDX metadata of `firmware`.
    pub(super) fn read(firmware: &Firmware<'_>) -> Result<Self, FirmwareError> {
        let offset = firmware.entry(&METADATA).ok_or(FirmwareError::Missing { what: WHAT, guid: METADATA })?;
        let sections = metadata::sections(firmware.bytes(), offset, &FORMAT, |reader| {
            Some(TdxSection {
                data_offset: reader.u32()?,
                raw_size: reader.u32()?,
                gpa: reader.u64()?,
                mem_size: reader.u64()?,
                section_type: TdxSectionType(reader.u32()?),
                attributes: TdxAttributes(reader.u32()?),
            })
        })?;
        for (index, section) in sections.iter().enumerate() {
            let overlaps = |other: &TdxSection| {
                other.gpa < section.gpa.saturating_add(section.mem_size)
                    && section.gpa < other.gpa.saturating_add(other.mem_size)
            };
            let reason = section
                .refusal(firmware.bytes())
                .or_else(|| sections.iter().take(index).any(overlaps).then_some("it overlaps an earlier section"));
            if let Some(reason) = reason {
                return Err(FirmwareError::Section {
                    what: WHAT,
                    index,
                    section_type: section.section_type.0,
                    gpa: section.gpa,
                    size: section.mem_size,
                    reason,
                });
            }
        }
        Ok(Self { sections })
    }

    /// The first section of a type.
    pub fn section(&self, section_type: TdxSectionType) -> Option<&TdxSection> {
        self.sections.iter().find(|section| section.section_type == section_type)
    }
}
