//! OVMF images: the table of GUIDs at their end, and what it says to a VMM that launches a confidential guest.
//!
//! Read strictly: what contradicts itself is an error that names the contradiction, never a guess and never a panic.
//! What the image does with what is measured is not in these tables; `firmware/pins.toml` says it, by SHA-256.

mod metadata;
mod sev;
mod table;
mod tdx;
#[cfg(test)]
mod tests;
pub mod volumes;

use alloc::vec::Vec;

use crate::guid::Guid;

pub use sev::{HashTableArea, SevLayout, SevSection, SevSectionType};
pub use table::TableEntry;
pub use tdx::{TdxAttributes, TdxLayout, TdxSection, TdxSectionType};

/// The size of a guest page as both TEEs measure it.
pub const PAGE_SIZE: u64 = 4096;
/// The same, as a length.
pub const PAGE_BYTES: usize = 4096;
/// One guest page.
pub type Page = [u8; PAGE_BYTES];
/// Firmware ends where the 32-bit address space ends.
pub(crate) const FOUR_GIB: u64 = 1 << 32;

/// An image that cannot be read as OVMF, or that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// The image is empty or larger than the 32-bit address space.
    #[error("firmware has {found} bytes: expected 1 to 2^32")]
    Size {
        /// The size of the image.
        found: usize,
    },
    /// There is no OVMF table at the end.
    #[error("firmware has no OVMF table: no {expected} before its last 32 bytes")]
    NoTable {
        /// The GUID that ends the table.
        expected: Guid,
    },
    /// The table or one of its entries has an impossible length.
    #[error("firmware's OVMF table is damaged: the length of {entry} is {length}, and {available} bytes are there")]
    TableLength {
        /// The entry, or the footer.
        entry: Guid,
        /// The length it claims.
        length: usize,
        /// How many bytes there are.
        available: usize,
    },
    /// The table has an entry twice; QEMU would take the last, other tools the first.
    #[error("firmware's OVMF table has {0} twice")]
    Twice(Guid),
    /// The table has no entry of this kind.
    #[error("firmware's OVMF table has no {what} ({guid})")]
    Missing {
        /// What the entry says, in words.
        what: &'static str,
        /// The GUID of the entry.
        guid: Guid,
    },
    /// An entry is too short for what it should hold.
    #[error("firmware's {what} is damaged: {length} bytes, expected {expected}")]
    EntryLength {
        /// What the entry says, in words.
        what: &'static str,
        /// Its length.
        length: usize,
        /// The length of what it should hold.
        expected: usize,
    },
    /// A metadata header is outside the image, or is none.
    #[error("firmware's {what} is damaged: {reason}")]
    Metadata {
        /// Which metadata.
        what: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// One section of the metadata is impossible.
    #[error("firmware's {what}: section {index} (type {section_type:#x}, address {gpa:#x}, {size:#x} bytes): {reason}")]
    Section {
        /// Which metadata.
        what: &'static str,
        /// Its place in the metadata, from 0.
        index: usize,
        /// Its type.
        section_type: u32,
        /// Its guest physical address.
        gpa: u64,
        /// Its size in guest memory.
        size: u64,
        /// What is wrong.
        reason: &'static str,
    },
}

/// An OVMF image with its table read; metadata is read when asked for, so that damage to one part does not hide another.
#[derive(Clone, Debug)]
pub struct Firmware<'a> {
    bytes: &'a [u8],
    entries: Vec<TableEntry<'a>>,
}

impl<'a> Firmware<'a> {
    /// Reads the OVMF table of an image (code and variables in one file, as QEMU's `-bios` takes it).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FirmwareError> {
        if bytes.is_empty() || bytes.len() as u64 > FOUR_GIB {
            return Err(FirmwareError::Size { found: bytes.len() });
        }
        Ok(Self { bytes, entries: table::parse(bytes)? })
    }

    /// The image.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The guest physical address of its first byte: it ends at 4 GiB.
    pub fn base_gpa(&self) -> u64 {
        FOUR_GIB.saturating_sub(self.bytes.len() as u64)
    }

    /// The entries of its table, last first, as a reader meets them.
    pub fn entries(&self) -> &[TableEntry<'a>] {
        &self.entries
    }

    /// The data of the entry `guid`.
    pub fn entry(&self, guid: &Guid) -> Option<&'a [u8]> {
        self.entries.iter().find(|entry| entry.guid == *guid).map(|entry| entry.data)
    }

    /// What a SEV-SNP launch needs to know of it.
    pub fn sev_layout(&self) -> Result<SevLayout, FirmwareError> {
        SevLayout::read(self)
    }

    /// What a TDX launch needs to know of it.
    pub fn tdx_layout(&self) -> Result<TdxLayout, FirmwareError> {
        TdxLayout::read(self)
    }

    /// The area for the hashes of kernel, initrd and command line; `None` where there is none.
    pub fn hash_table_area(&self) -> Result<Option<HashTableArea>, FirmwareError> {
        HashTableArea::read(self)
    }

    /// The address at which application processors start under SEV-ES and SEV-SNP; `None` where none is named.
    pub fn ap_reset_eip(&self) -> Result<Option<u32>, FirmwareError> {
        sev::ap_reset_eip(self)
    }
}
