//! The variable store at the start of a firmware image (edk2 `MdeModulePkg/Include/Guid/VariableFormat.h`): reading it
//! strictly, and writing it again without some of its variables.
//!
//! The store is what the TDX event EV_EFI_PLATFORM_FIRMWARE_BLOB2 hashes, and decides which kernels Secure Boot starts.

use alloc::vec::Vec;

use super::variable::{GLOBAL, Name};
use crate::guid::Guid;
use crate::read::{Reader, slice_at};

/// EFI_SYSTEM_NV_DATA_FV_GUID.
const NV_DATA: Guid = Guid::new(0xfff12b8d, 0x7696, 0x4c8b, [0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50]);
/// gEfiAuthenticatedVariableGuid.
const STORE: Guid = Guid::new(0xaaf32c78, 0x947b, 0x439a, [0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92]);
const STORE_HEADER_SIZE: usize = 28;
const FORMATTED: u8 = 0x5a;
const HEALTHY: u8 = 0xfe;
const START: u16 = 0x55aa;
const ADDED: u8 = 0x3f;
const ADDED_IN_DELETED_TRANSITION: u8 = 0x3e;
/// What erased flash holds.
const ERASED: u8 = 0xff;

/// An image whose variable store cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VarstoreError {
    /// The image does not start with a volume of variables.
    #[error("the image does not start with a variable store: found volume {found}, expected {expected}")]
    NoVolume {
        /// The volume's GUID.
        found: Guid,
        /// The GUID of a volume of variables.
        expected: Guid,
    },
    /// The store is of a kind that edk2 does not write today.
    #[error("the variable store is of kind {found}: expected {expected}")]
    Kind {
        /// The store's GUID.
        found: Guid,
        /// The GUID of authenticated variables.
        expected: Guid,
    },
    /// Something is cut off, out of range or not as it must be.
    #[error("the variable store is damaged at offset {offset:#x}: {reason}")]
    Damaged {
        /// Where in the image.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

/// One variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVariable<'a> {
    /// Its vendor.
    pub vendor: Guid,
    /// Its name.
    pub name: Name,
    /// EFI_VARIABLE_* attributes.
    pub attributes: u32,
    /// Its value; for an authenticated variable without the authentication header.
    pub data: &'a [u8],
    /// Header, name and value as stored.
    stored: &'a [u8],
}

/// A variable store and the variables that are set in it, in stored order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableStore<'a> {
    image: &'a [u8],
    /// Where the first variable starts and the store ends.
    start: usize,
    end: usize,
    variables: Vec<StoredVariable<'a>>,
}

impl<'a> VariableStore<'a> {
    /// Reads the store of an image that starts with one: a combined image, or a file of variables.
    pub fn parse(image: &'a [u8]) -> Result<Self, VarstoreError> {
        let store = volume_header(image)?;
        let (start, end) = store_bounds(image, store)?;
        let mut variables = Vec::new();
        let mut offset = start;
        while let Some((variable, next)) = variable_at(image, offset, end)? {
            variables.extend(variable);
            offset = next;
        }
        let rest = image.get(offset..end).unwrap_or_default();
        if let Some(position) = rest.iter().position(|byte| *byte != ERASED) {
            let offset = offset.saturating_add(position);
            return Err(VarstoreError::Damaged { offset, reason: "there is something after the last variable" });
        }
        Ok(Self { image, start, end, variables })
    }

    /// The variables that are set.
    pub fn variables(&self) -> &[StoredVariable<'a>] {
        &self.variables
    }

    /// A variable by vendor and name.
    pub fn get(&self, vendor: &Guid, name: &str) -> Option<&StoredVariable<'a>> {
        self.variables.iter().find(|variable| variable.vendor == *vendor && variable.name == *name)
    }

    /// Whether a platform key is enrolled: firmware with Secure Boot then starts signed images only.
    pub fn has_keys(&self) -> bool {
        self.get(&GLOBAL, "PK").is_some_and(|key| !key.data.is_empty())
    }

    /// Whether someone switched Secure Boot off in firmware's menu: SecureBootEnable (edk2
    /// `SecurityPkg/Include/Guid/AuthenticatedVariableFormat.h`) is there, and its first byte not 1.
    pub fn is_switched_off(&self) -> bool {
        const VENDOR: Guid = Guid::new(0xf0a30bc7, 0xaf08, 0x4556, [0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44]);
        self.get(&VENDOR, "SecureBootEnable").is_some_and(|variable| variable.data.first() != Some(&1))
    }

    /// The image with a store that holds only the variables that `keep` says, in stored order, and erased flash behind
    /// them. Everything outside the store stays as it is.
    pub fn retain(&self, keep: impl Fn(&StoredVariable<'a>) -> bool) -> Vec<u8> {
        let (before, _) = self.image.split_at_checked(self.start).unwrap_or_default();
        let mut out = before.to_vec();
        for variable in self.variables.iter().filter(|variable| keep(variable)) {
            out.extend(variable.stored);
            while !out.len().saturating_sub(self.start).is_multiple_of(4) {
                out.push(ERASED);
            }
        }
        out.resize(self.end, ERASED);
        out.extend(self.image.get(self.end..).unwrap_or_default());
        out
    }

    /// The image without PK, KEK, db and dbx: it starts unsigned kernels.
    pub fn without_keys(&self) -> Vec<u8> {
        use super::variable::SECURITY;
        self.retain(|variable| {
            let is = |vendor, name: &str| variable.vendor == vendor && variable.name == *name;
            !(is(GLOBAL, "PK") || is(GLOBAL, "KEK") || is(SECURITY, "db") || is(SECURITY, "dbx"))
        })
    }
}

/// EFI_FIRMWARE_VOLUME_HEADER (UEFI PI 1.8, volume 3); gives the offset of what is in the volume.
fn volume_header(image: &[u8]) -> Result<usize, VarstoreError> {
    let damaged = |offset, reason| VarstoreError::Damaged { offset, reason };
    let mut reader = Reader::new(image);
    let header = (|| {
        reader.array::<16>()?;
        Some((reader.guid()?, reader.u64()?, reader.array::<4>()?, reader.u32()?, reader.u16()?))
    })();
    let (guid, length, signature, _, header_length) = header.ok_or(damaged(0, "the volume header is cut off"))?;
    if guid != NV_DATA {
        return Err(VarstoreError::NoVolume { found: guid, expected: NV_DATA });
    }
    if signature != *b"_FVH" {
        return Err(damaged(0x28, "the volume has no signature"));
    }
    if usize::try_from(length).ok().is_none_or(|length| length > image.len()) {
        return Err(damaged(0x20, "the volume is longer than the image"));
    }
    let header = image.get(..usize::from(header_length)).ok_or(damaged(0x30, "the volume header is cut off"))?;
    let (words, rest) = header.as_chunks::<2>();
    let sum = words.iter().fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
    if sum != 0 || !rest.is_empty() {
        return Err(damaged(0x32, "the checksum of the volume header is wrong"));
    }
    Ok(header.len())
}

/// VARIABLE_STORE_HEADER; gives where the variables start and the store ends.
fn store_bounds(image: &[u8], offset: usize) -> Result<(usize, usize), VarstoreError> {
    let damaged = |reason| VarstoreError::Damaged { offset, reason };
    let mut reader = Reader::new(image.get(offset..).unwrap_or_default());
    let header = (|| Some((reader.guid()?, reader.u32()?, reader.array::<8>()?)))();
    let (guid, size, [format, state, ..]) = header.ok_or(damaged("the store header is cut off"))?;
    if guid != STORE {
        return Err(VarstoreError::Kind { found: guid, expected: STORE });
    }
    if (format, state) != (FORMATTED, HEALTHY) {
        return Err(damaged("the store is not formatted and healthy"));
    }
    let end = usize::try_from(size).ok().and_then(|size| offset.checked_add(size)).filter(|end| *end <= image.len());
    let start = offset.saturating_add(STORE_HEADER_SIZE);
    let end = end.filter(|end| *end >= start).ok_or(damaged("the store does not fit the image"))?;
    Ok((start, end))
}

/// The variable at `offset` (`None` inside if it is deleted) and where the next one is; `None` after the last.
type Next<'a> = Option<(Option<StoredVariable<'a>>, usize)>;

/// AUTHENTICATED_VARIABLE_HEADER, name, value.
fn variable_at(image: &[u8], offset: usize, end: usize) -> Result<Next<'_>, VarstoreError> {
    const HEADER_SIZE: usize = 60;
    let damaged = |reason| VarstoreError::Damaged { offset, reason };
    let room = image.get(offset..end).unwrap_or_default();
    let mut reader = Reader::new(room);
    if reader.u16() != Some(START) {
        return Ok(None);
    }
    let header = (|| {
        let ([state, _], attributes) = (reader.array::<2>()?, reader.u32()?);
        // Monotonic count, time stamp and public key index are of no concern here; they are kept as stored.
        reader.array::<28>()?;
        Some((state, attributes, reader.u32()?, reader.u32()?, reader.guid()?))
    })();
    let (state, attributes, name_size, data_size, vendor) = header.ok_or(damaged("a variable header is cut off"))?;
    let sizes = usize::try_from(name_size).ok().zip(usize::try_from(data_size).ok());
    let lengths = sizes.and_then(|(name, data)| {
        let data_at = HEADER_SIZE.checked_add(name)?;
        let length = data_at.checked_add(data)?;
        Some((name, data_at, data, length))
    });
    let (name_size, data_at, data_size, length) = lengths.ok_or(damaged("a variable is too long"))?;
    let stored = room.get(..length).ok_or(damaged("a variable reaches beyond the store"))?;
    let name =
        slice_at(stored, HEADER_SIZE, name_size).and_then(name_of).ok_or(damaged("a name is not UTF-16 with a NUL"))?;
    let data = slice_at(stored, data_at, data_size).unwrap_or_default();
    let next = length.checked_next_multiple_of(4).and_then(|length| offset.checked_add(length)).unwrap_or(end).min(end);
    let is_set = matches!(state, ADDED | ADDED_IN_DELETED_TRANSITION);
    let variable = StoredVariable { vendor, name, attributes, data, stored };
    Ok(Some((is_set.then_some(variable), next)))
}

fn name_of(bytes: &[u8]) -> Option<Name> {
    let (units, rest) = bytes.as_chunks::<2>();
    let (last, units) = units.split_last()?;
    let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let ends_well = rest.is_empty() && *last == [0, 0] && !units.contains(&0);
    ends_well.then(|| Name::from_units(units))
}
