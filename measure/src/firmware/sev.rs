//! What the OVMF table says to a VMM that launches a SEV-ES or SEV-SNP guest
//! (edk2 `OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm`; read as QEMU's `target/i386/sev.c` does).

use alloc::vec::Vec;
use core::fmt;

use super::metadata::{self, Format};
use super::{FOUR_GIB, Firmware, FirmwareError, PAGE_SIZE};
use crate::guid::Guid;
use crate::read::Reader;

const METADATA: Guid = Guid::new(0xdc886566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);
const RESET_BLOCK: Guid = Guid::new(0x00f771de, 0x1a7e, 0x4fcb, [0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e]);
const HASH_TABLE: Guid = Guid::new(0x7255371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);
const WHAT: &str = "SEV metadata";
const FORMAT: Format = Format { what: WHAT, signature: *b"ASEV", section_size: 12 };

/// The type of a section of the SEV metadata. Types without a name here are given to the guest as zeroed pages, as QEMU
/// does, and can be listed with [`SevLayout::unknown_sections`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SevSectionType(pub u32);

impl SevSectionType {
    /// Memory that firmware uses before it can accept any itself.
    pub const SNP_SEC_MEM: Self = Self(1);
    /// The secrets page.
    pub const SNP_SECRETS: Self = Self(2);
    /// The CPUID page.
    pub const CPUID: Self = Self(3);
    /// The calling area of an SVSM.
    pub const SVSM_CAA: Self = Self(4);
    /// The page that holds the hashes of kernel, initrd and command line.
    pub const KERNEL_HASHES: Self = Self(0x10);

    /// Its name in edk2, where it has one.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::SNP_SEC_MEM => "SNP_SEC_MEM",
            Self::SNP_SECRETS => "SNP_SECRETS",
            Self::CPUID => "CPUID",
            Self::SVSM_CAA => "SVSM_CAA",
            Self::KERNEL_HASHES => "KERNEL_HASHES",
            _ => return None,
        })
    }
}

impl fmt::Display for SevSectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "section type {:#x}", self.0),
        }
    }
}

impl fmt::Debug for SevSectionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One section of the SEV metadata: pages that the VMM gives the guest at launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SevSection {
    /// The guest physical address of its first page.
    pub gpa: u32,
    /// Its size in bytes, a whole number of pages, possibly none.
    pub size: u32,
    /// What it is for.
    pub section_type: SevSectionType,
}

impl SevSection {
    fn end(&self) -> u64 {
        u64::from(self.gpa).saturating_add(u64::from(self.size))
    }
}

/// Where firmware expects the hashes of kernel, initrd and command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashTableArea {
    /// Its guest physical address.
    pub base: u32,
    /// Its size in bytes.
    pub size: u32,
}

impl HashTableArea {
    pub(super) fn read(firmware: &Firmware<'_>) -> Result<Option<Self>, FirmwareError> {
        const SIZE: usize = 8;
        let Some(data) = firmware.entry(&HASH_TABLE) else { return Ok(None) };
        let mut reader = Reader::new(data);
        let area = (|| Some(Self { base: reader.u32()?, size: reader.u32()? }))();
        match area.filter(|_| data.len() == SIZE) {
            Some(area) if area.base != 0 && area.size != 0 => Ok(Some(area)),
            // QEMU calls such an area invalid; it is how firmware without the feature leaves it.
            Some(_) => Ok(None),
            None => Err(FirmwareError::EntryLength { what: "hash table area", length: data.len(), expected: SIZE }),
        }
    }
}

/// Reads the SEV-ES reset block: CS:IP of application processors as one address. Zero means that there is none.
pub(super) fn ap_reset_eip(firmware: &Firmware<'_>) -> Result<Option<u32>, FirmwareError> {
    let Some(data) = firmware.entry(&RESET_BLOCK) else { return Ok(None) };
    let found = <[u8; 4]>::try_from(data).map_err(|_| FirmwareError::EntryLength {
        what: "SEV-ES reset block",
        length: data.len(),
        expected: 4,
    })?;
    Ok(Some(u32::from_le_bytes(found)).filter(|eip| *eip != 0))
}

/// What a SEV-SNP launch needs to know of a firmware apart from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SevLayout {
    /// The sections, in the order in which they are launched and measured.
    pub sections: Vec<SevSection>,
    /// Where the hashes of kernel, initrd and command line go, if anywhere.
    pub hash_table: Option<HashTableArea>,
    /// Where application processors start; without it only one vCPU can be launched.
    pub ap_reset_eip: Option<u32>,
}

impl SevLayout {
    /// Reads and checks the SEV metadata of `firmware`.
    pub(super) fn read(firmware: &Firmware<'_>) -> Result<Self, FirmwareError> {
        let offset = firmware.entry(&METADATA).ok_or(FirmwareError::Missing { what: WHAT, guid: METADATA })?;
        let sections = metadata::sections(firmware.bytes(), offset, &FORMAT, |reader| {
            let (gpa, size, section_type) = (reader.u32()?, reader.u32()?, reader.u32()?);
            Some(SevSection { gpa, size, section_type: SevSectionType(section_type) })
        })?;
        check(&sections, firmware.base_gpa())?;
        Ok(Self { sections, hash_table: firmware.hash_table_area()?, ap_reset_eip: firmware.ap_reset_eip()? })
    }

    /// Whether there is a page for the hashes of kernel, initrd and command line. This does not say that firmware compares
    /// them with what it loads: OvmfPkgX64 builds since 2025 have the page and ignore it.
    pub fn has_kernel_hashes_page(&self) -> bool {
        self.hash_table.is_some()
            && self.sections.iter().any(|s| s.section_type == SevSectionType::KERNEL_HASHES && s.size != 0)
    }

    /// Sections of types that are not known; they are measured as QEMU launches them, as zeroed pages.
    pub fn unknown_sections(&self) -> impl Iterator<Item = &SevSection> {
        self.sections.iter().filter(|section| section.section_type.name().is_none())
    }
}

/// Refuses what no launch could carry out: pages cannot be split, given twice, or laid over the firmware.
fn check(sections: &[SevSection], firmware_gpa: u64) -> Result<(), FirmwareError> {
    for (index, section) in sections.iter().enumerate() {
        let refuse = |reason| {
            Err(FirmwareError::Section {
                what: WHAT,
                index,
                section_type: section.section_type.0,
                gpa: u64::from(section.gpa),
                size: u64::from(section.size),
                reason,
            })
        };
        if !u64::from(section.gpa).is_multiple_of(PAGE_SIZE) || !u64::from(section.size).is_multiple_of(PAGE_SIZE) {
            return refuse("it is not made of whole pages");
        }
        if section.size == 0 {
            continue;
        }
        if section.end() > FOUR_GIB.min(firmware_gpa) {
            return refuse("it reaches into the firmware");
        }
        let overlaps = |other: &&SevSection| {
            other.size != 0 && other.end() > u64::from(section.gpa) && u64::from(other.gpa) < section.end()
        };
        if sections.iter().take(index).any(|other| overlaps(&other)) {
            return refuse("it overlaps an earlier section");
        }
    }
    Ok(())
}
