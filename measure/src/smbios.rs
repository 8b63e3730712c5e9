//! SMBIOS tables as firmware measures them since edk2-stable202505: all structures, with what differs between two machines
//! of one kind blanked (edk2 `MdeModulePkg/Universal/SmbiosMeasurementDxe`).
//!
//! What stays includes the processor ID, so the digest depends on the host's CPU unless QEMU is given
//! `-smbios type=4,processor-id=...`; memory size and QEMU's version string stay too.

use alloc::vec::Vec;

use crate::digest::Digest384;

/// A table that cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmbiosError {
    /// A structure is cut off.
    #[error("the SMBIOS table is damaged: the structure at offset {0:#x} is cut off")]
    CutOff(usize),
    /// There is no structure that ends the table.
    #[error("the SMBIOS table has no end-of-table structure")]
    NoEnd,
    /// A structure refers to a string that it does not have.
    #[error("the SMBIOS table is damaged: the structure at offset {offset:#x} has no string {string}")]
    NoString {
        /// Where the structure starts.
        offset: usize,
        /// The string, from 1.
        string: u8,
    },
}

const HEADER_SIZE: usize = 4;
const END_OF_TABLE: u8 = 127;
const FIRST_OEM_TYPE: u8 = 128;

/// What firmware says of itself in the structure that it adds to QEMU's (type 0, "BIOS Information"): as it was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BiosInformation<'a> {
    /// PcdFirmwareVendor.
    pub vendor: &'a str,
    /// PcdFirmwareVersionString.
    pub version: &'a str,
    /// PcdFirmwareReleaseDateString.
    pub release_date: &'a str,
}

/// The handle of the structure that ends a table made by firmware (edk2 `MdeModulePkg/Universal/SmbiosDxe`).
const END_HANDLE: [u8; 2] = [0xff, 0xfe];

/// The table as firmware completes it: QEMU's structures, its own of type 0 unless QEMU has one, and the end (edk2
/// `OvmfPkg/SmbiosPlatformDxe`). An empty text stands as "unknown" or a fixed date in firmware, and is not predicted.
pub fn completed(qemu: &[u8], bios: &BiosInformation<'_>) -> Result<Vec<u8>, SmbiosError> {
    const BIOS_INFORMATION: u8 = 0;
    let mut out = Vec::new();
    let mut has_bios_information = false;
    loop {
        let offset = out.len();
        let rest = qemu.get(offset..).filter(|rest| !rest.is_empty()).ok_or(SmbiosError::NoEnd)?;
        let (_, size) = structure(rest).ok_or(SmbiosError::CutOff(offset))?;
        match rest.first() {
            Some(&END_OF_TABLE) => break,
            Some(&BIOS_INFORMATION) => has_bios_information = true,
            _ => {}
        }
        out.extend(rest.get(..size).ok_or(SmbiosError::CutOff(offset))?);
    }
    if !has_bios_information {
        // Handle 0; strings 1 to 3; segment 0xe800; no characteristics; a virtual machine with UEFI; releases not given.
        out.extend([
            BIOS_INFORMATION,
            26,
            0,
            0,
            1,
            2,
            0,
            0xe8,
            3,
            0,
            8,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0x1c,
            0,
            0,
            0xff,
            0xff,
            0,
            0,
        ]);
        for text in [bios.vendor, bios.version, bios.release_date] {
            out.extend(text.bytes().chain([0]));
        }
        out.push(0);
    }
    out.extend([END_OF_TABLE, 4]);
    out.extend(END_HANDLE);
    out.extend([0, 0]);
    Ok(out)
}

/// A field that is blanked: numbers to zero; strings to blanks, and their number to zero.
#[derive(Clone, Copy)]
enum Field {
    Number { offset: usize, size: usize },
    Text { offset: usize },
}

const fn number(offset: usize, size: usize) -> Field {
    Field::Number { offset, size }
}

const fn text(offset: usize) -> Field {
    Field::Text { offset }
}

/// What is blanked of a structure.
enum Filter {
    /// Nothing.
    Keep,
    /// Everything behind the header.
    All,
    /// Some fields, where the structure is long enough to have them.
    Fields(&'static [Field]),
}

fn filter(structure_type: u8) -> Filter {
    match structure_type {
        // Serial number, UUID, wake-up type.
        1 => Filter::Fields(const { &[text(7), number(8, 16), number(24, 1)] }),
        // Serial number, location in chassis.
        2 => Filter::Fields(const { &[text(7), text(10)] }),
        // Serial number, asset tag.
        3 => Filter::Fields(const { &[text(7), text(8)] }),
        // Serial number, asset tag, part number; counts of cores and threads in both widths; voltage, current speed.
        4 => Filter::Fields(
            const {
                &[
                    text(32),
                    text(33),
                    text(34),
                    number(35, 1),
                    number(36, 1),
                    number(37, 1),
                    number(42, 2),
                    number(44, 2),
                    number(46, 2),
                    number(17, 1),
                    number(22, 2),
                ]
            },
        ),
        // Serial number, asset tag, part number.
        17 => Filter::Fields(const { &[text(24), text(25), text(26)] }),
        // Serial number in both forms, date of manufacture.
        22 => Filter::Fields(const { &[text(7), number(16, 2), number(18, 2)] }),
        // Reset count.
        23 => Filter::Fields(const { &[number(5, 2)] }),
        // Nominal speed.
        27 => Filter::Fields(const { &[number(12, 2)] }),
        // Serial number, asset tag, part number.
        39 => Filter::Fields(const { &[text(8), text(9), text(10)] }),
        11 | 15 | 18 | 31 | 33 | FIRST_OEM_TYPE.. => Filter::All,
        _ => Filter::Keep,
    }
}

/// The digest of the event "SMBIOS": of the table that ends with the structure of type 127, filtered.
pub fn digest(table: &[u8]) -> Result<Digest384, SmbiosError> {
    filtered(table).map(|table| Digest384::of(&table))
}

/// The table as it is hashed.
pub fn filtered(table: &[u8]) -> Result<Vec<u8>, SmbiosError> {
    let mut out = Vec::new();
    loop {
        let offset = out.len();
        let rest = table.get(offset..).filter(|rest| !rest.is_empty()).ok_or(SmbiosError::NoEnd)?;
        let (formatted, size) = structure(rest).ok_or(SmbiosError::CutOff(offset))?;
        let mut bytes = rest.get(..size).ok_or(SmbiosError::CutOff(offset))?.to_vec();
        let structure_type = bytes.first().copied().unwrap_or_default();
        match filter(structure_type) {
            Filter::Keep => {}
            Filter::All => bytes.iter_mut().skip(HEADER_SIZE).for_each(|byte| *byte = 0),
            Filter::Fields(fields) => {
                for field in fields {
                    blank(&mut bytes, formatted, *field).map_err(|string| SmbiosError::NoString { offset, string })?;
                }
            }
        }
        out.extend(bytes);
        if structure_type == END_OF_TABLE {
            return Ok(out);
        }
    }
}

/// The length of the formatted part of the structure at the start of `bytes`, and of all of it with its strings, which
/// end with two zeroes.
fn structure(bytes: &[u8]) -> Option<(usize, usize)> {
    let formatted = usize::from(*bytes.get(1)?);
    let strings = bytes.get(formatted..).filter(|_| formatted >= HEADER_SIZE)?;
    let end = strings.windows(2).position(|pair| pair == [0, 0])?;
    Some((formatted, formatted.checked_add(end)?.checked_add(2)?))
}

/// Blanks one field; the number of a string that is not there is the error.
fn blank(structure: &mut [u8], formatted: usize, field: Field) -> Result<(), u8> {
    let (offset, size) = match field {
        Field::Number { offset, size } => (offset, size),
        Field::Text { offset } => (offset, 1),
    };
    let (fields, strings) = structure.split_at_mut_checked(formatted).unwrap_or_default();
    let Some(value) = fields.get_mut(offset..).and_then(|rest| rest.get_mut(..size)) else { return Ok(()) };
    if let (Field::Text { .. }, [string]) = (field, &*value)
        && *string != 0
    {
        let nth = usize::from(*string).saturating_sub(1);
        let found = strings.split_mut(|byte| *byte == 0).nth(nth).filter(|text| !text.is_empty());
        found.ok_or(*string)?.fill(b' ');
    }
    value.fill(0);
    Ok(())
}
