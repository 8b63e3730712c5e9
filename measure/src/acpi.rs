//! Which ACPI tables a kernel with admission takes: the digest that it computes of them, predicted from what QEMU gives to
//! firmware.
//!
//! The rule is the kernel's (`image-recipes/components/kernel/patches`, `drivers/acpi/admission.c` there): SHA-256 over the
//! digests of all tables but RSDP, RSDT, XSDT and FACS, in ascending order; of each table with its checksum as zero, and of the
//! FADT without the addresses that firmware fills in, and in a TDX guest of the MADT without the mailbox that firmware appends.
//! Firmware carries out the commands of `etc/table-loader` on
//! `etc/acpi/tables` (QEMU `hw/acpi/bios-linker-loader.c`): it puts addresses and checksums where they say. A command that writes
//! to another place than those makes another table than the one predicted, and is refused.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::digest::Digest256;
use crate::read::{Reader, slice_at};

const RSDP: &str = "etc/acpi/rsdp";
const TABLES: &str = "etc/acpi/tables";
/// The header of every table (ACPI 6.5, 5.2.6), and where its length and checksum are.
const HEADER: usize = 36;
const LENGTH: usize = 4;
const CHECKSUM: usize = 9;
/// FADT (ACPI 6.5, 5.2.9): FIRMWARE_CTRL and DSDT, then X_FIRMWARE_CTRL and X_DSDT.
const DSDT: usize = 40;
const X_DSDT: usize = 140;
const FADT_ADDRESSES: [(usize, usize); 2] = [(36, 44), (132, 148)];

/// Tables whose digest cannot be predicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// The commands cannot be read.
    #[error("etc/table-loader is damaged: it is not made of entries of 128 bytes with names of 56")]
    Loader,
    /// The tables hang together otherwise than by RSDP, RSDT or XSDT, and FADT.
    #[error("etc/acpi/tables is damaged: {0}")]
    Tables(&'static str),
    /// Firmware would write into a table.
    #[error(
        "etc/table-loader has firmware write to byte {offset} of {file}, into the table {table}: its digest would depend on it"
    )]
    Written {
        /// The file.
        file: String,
        /// Where in it.
        offset: u32,
        /// The table's signature.
        table: String,
    },
}

/// A write of an address or a checksum.
struct Write<'a> {
    file: &'a str,
    offset: u32,
    is_checksum: bool,
}

/// The digest of the tables that firmware makes of these files.
pub fn admission_digest(loader: &[u8], rsdp: &[u8], tables: &[u8]) -> Result<Digest256, AdmissionError> {
    let found = places(rsdp, tables)?;
    for write in writes(loader)? {
        check(&write, &found)?;
    }
    let mut digests = Vec::new();
    for place in found.all {
        digests.push(table_digest(place.table));
    }
    digests.sort_unstable();
    let parts: Vec<&[u8]> = digests.iter().map(|digest| digest.0.as_slice()).collect();
    Ok(Digest256::of_parts(&parts))
}

/// The digest of one table.
pub fn table_digest(table: &[u8]) -> Digest256 {
    let mut copy = table.to_vec();
    let mut clear = |from: usize, to: usize| {
        copy.iter_mut().take(to).skip(from).for_each(|byte| *byte = 0);
    };
    clear(CHECKSUM, CHECKSUM + 1);
    if table.starts_with(b"FACP") {
        FADT_ADDRESSES.into_iter().for_each(|(from, to)| clear(from, to));
    }
    Digest256::of(&copy)
}

/// A table in `etc/acpi/tables`.
#[derive(Clone, Copy)]
struct Place<'a> {
    offset: usize,
    table: &'a [u8],
}

impl<'a> Place<'a> {
    /// The table at `offset`, all of which is there.
    fn at(tables: &'a [u8], offset: usize) -> Result<Self, AdmissionError> {
        let rest = tables.get(offset..).unwrap_or_default();
        let length = slice_at(rest, LENGTH, 4).and_then(address);
        let table = length.and_then(|length| rest.get(..length)).filter(|table| table.len() >= HEADER);
        table.map(|table| Self { offset, table }).ok_or(AdmissionError::Tables("a table lies outside"))
    }

    fn is(&self, signature: &[u8; 4]) -> bool {
        self.table.starts_with(signature)
    }

    /// How far inside the table a byte of `etc/acpi/tables` is.
    fn inside(&self, at: usize) -> Option<usize> {
        at.checked_sub(self.offset).filter(|inside| *inside < self.table.len())
    }
}

/// The tables of `etc/acpi/tables`.
struct Places<'a> {
    /// Those that are digested.
    all: Vec<Place<'a>>,
    /// RSDT and XSDT.
    roots: Vec<Place<'a>>,
}

fn places<'a>(rsdp: &[u8], tables: &'a [u8]) -> Result<Places<'a>, AdmissionError> {
    // ACPI 6.5, 5.2.5.3. Before linking, an address is an offset into the file that it points into.
    let mut reader = Reader::new(rsdp);
    let damaged = || AdmissionError::Tables("there is no RSDP");
    let signature = reader.array::<8>().ok_or_else(damaged)?;
    let revision = reader.bytes(8).and_then(|rest| rest.get(7).copied()).ok_or_else(damaged)?;
    if signature != *b"RSD PTR " {
        return Err(damaged());
    }
    let rsdt = reader.u32().ok_or_else(damaged)?;
    let xsdt = if revision > 1 { reader.u32().and_then(|_| reader.u64()) } else { None };
    let (root, entry) = match xsdt {
        Some(xsdt) if xsdt != 0 => (usize::try_from(xsdt).ok(), 8),
        _ => (usize::try_from(rsdt).ok(), 4),
    };
    let root = Place::at(tables, root.ok_or(AdmissionError::Tables("its root lies outside"))?)?;
    let mut roots = Vec::from([root]);
    if entry == 8 && rsdt != 0 {
        roots.push(Place::at(tables, usize::try_from(rsdt).map_err(|_| damaged())?)?);
    }
    let mut all = Vec::new();
    for bytes in root.table.get(HEADER..).unwrap_or_default().chunks_exact(entry) {
        let offset = address(bytes).ok_or(AdmissionError::Tables("a table lies outside"))?;
        let place = Place::at(tables, offset)?;
        add(place, &mut all)?;
        if place.is(b"FACP") {
            add(dsdt(tables, &place)?, &mut all)?;
        }
    }
    if all.is_empty() { Err(AdmissionError::Tables("there is no table")) } else { Ok(Places { all, roots }) }
}

fn add<'a>(place: Place<'a>, all: &mut Vec<Place<'a>>) -> Result<(), AdmissionError> {
    if all.iter().any(|known| known.offset == place.offset) {
        return Err(AdmissionError::Tables("a table is there twice"));
    }
    all.push(place);
    Ok(())
}

/// The DSDT that a FADT names.
fn dsdt<'a>(tables: &'a [u8], fadt: &Place<'_>) -> Result<Place<'a>, AdmissionError> {
    let long = slice_at(fadt.table, X_DSDT, 8).and_then(address);
    let short = slice_at(fadt.table, DSDT, 4).and_then(address);
    let offset = long.filter(|address| *address != 0).or(short);
    let place = offset.map(|offset| Place::at(tables, offset)).transpose()?;
    place.filter(|place| place.is(b"DSDT")).ok_or(AdmissionError::Tables("the FADT names no DSDT"))
}

fn address(bytes: &[u8]) -> Option<usize> {
    let mut whole = [0; 8];
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    usize::try_from(u64::from_le_bytes(whole)).ok()
}

fn writes(loader: &[u8]) -> Result<Vec<Write<'_>>, AdmissionError> {
    const ADD_POINTER: u32 = 2;
    const ADD_CHECKSUM: u32 = 3;
    let (entries, rest) = loader.as_chunks::<128>();
    if !rest.is_empty() {
        return Err(AdmissionError::Loader);
    }
    let mut writes = Vec::new();
    for entry in entries {
        let mut reader = Reader::new(entry);
        let command = reader.u32().ok_or(AdmissionError::Loader)?;
        if command != ADD_POINTER && command != ADD_CHECKSUM {
            continue;
        }
        // Both begin with the file that is written to. A pointer is followed by the file that it points into.
        let file = reader.bytes(56).and_then(name).ok_or(AdmissionError::Loader)?;
        if command == ADD_POINTER {
            reader.bytes(56).and_then(name).ok_or(AdmissionError::Loader)?;
        }
        let offset = reader.u32().ok_or(AdmissionError::Loader)?;
        writes.push(Write { file, offset, is_checksum: command == ADD_CHECKSUM });
    }
    Ok(writes)
}

fn name(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    core::str::from_utf8(bytes.get(..end)?).ok()
}

/// Whether a write leaves all digests as they are.
fn check(write: &Write<'_>, places: &Places<'_>) -> Result<(), AdmissionError> {
    if write.file == RSDP {
        return Ok(());
    }
    let refused = |table: &[u8]| AdmissionError::Written {
        file: write.file.to_string(),
        offset: write.offset,
        table: String::from_utf8_lossy(table).into_owned(),
    };
    if write.file != TABLES {
        return Err(refused(b"of another file"));
    }
    let at = usize::try_from(write.offset).map_err(|_| refused(b"outside"))?;
    if places.roots.iter().any(|root| root.inside(at).is_some()) {
        return Ok(());
    }
    let Some((place, inside)) = places.all.iter().find_map(|place| Some((place, place.inside(at)?))) else {
        return Ok(());
    };
    let in_addresses = FADT_ADDRESSES.iter().any(|(from, to)| (*from..*to).contains(&inside));
    match (write.is_checksum && inside == CHECKSUM) || (!write.is_checksum && place.is(b"FACP") && in_addresses) {
        true => Ok(()),
        false => Err(refused(place.table.get(..4).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    /// A table with this signature and content.
    fn table(signature: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut table = signature.to_vec();
        table.extend(u32::try_from(HEADER + content.len()).unwrap().to_le_bytes());
        table.resize(HEADER, 0x20);
        table.extend(content);
        table
    }

    /// DSDT, FADT, `more` and RSDT, one after the other, with the RSDP that names the RSDT, as QEMU hands them out.
    fn files(more: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let dsdt = table(b"DSDT", b"code");
        let mut fadt = table(b"FACP", &[0; 244 - HEADER]);
        let mut tables = vec![0; 64];
        fadt[DSDT..DSDT + 4].copy_from_slice(&64u32.to_le_bytes());
        tables.extend(&dsdt);
        let mut offsets = vec![tables.len()];
        tables.extend(&fadt);
        for table in more {
            offsets.push(tables.len());
            tables.extend(table);
        }
        let entries: Vec<u8> =
            offsets.iter().flat_map(|offset| u32::try_from(*offset).unwrap().to_le_bytes()).collect();
        let rsdt = u32::try_from(tables.len()).unwrap();
        tables.extend(table(b"RSDT", &entries));
        let mut rsdp = b"RSD PTR \0BOCHS \0".to_vec();
        rsdp.extend(rsdt.to_le_bytes());
        (rsdp, tables)
    }

    fn write(command: u32, offset: usize) -> Vec<u8> {
        let mut entry = vec![0; 128];
        entry[..4].copy_from_slice(&command.to_le_bytes());
        entry[4..4 + TABLES.len()].copy_from_slice(TABLES.as_bytes());
        let at = if command == 2 { 4 + 112 } else { 4 + 56 };
        entry[at..at + 4].copy_from_slice(&u32::try_from(offset).unwrap().to_le_bytes());
        entry
    }

    #[test]
    fn what_firmware_fills_in_and_where_it_puts_tables_changes_nothing() {
        let ssdt = table(b"SSDT", b"more code");
        let madt = table(b"APIC", &[1; 20]);
        let (rsdp, tables) = files(&[ssdt.clone(), madt.clone()]);
        let digest = admission_digest(&[], &rsdp, &tables).unwrap();
        let (rsdp, mut linked) = files(&[madt, ssdt]);
        let fadt = 64 + HEADER + 4;
        linked[fadt + 36..fadt + 40].fill(0xaa);
        linked[fadt + X_DSDT - 8..fadt + X_DSDT].fill(0xaa);
        linked[fadt + CHECKSUM] = 0x55;
        assert_eq!(admission_digest(&[], &rsdp, &linked), Ok(digest));
        // By hand: SHA-256 of the DSDT with a zero in place of its checksum, first of two tables.
        let mut dsdt = table(b"DSDT", b"code");
        dsdt[CHECKSUM] = 0;
        assert_eq!(table_digest(&table(b"DSDT", b"code")), Digest256::of(&dsdt));
    }

    #[test]
    fn any_other_byte_of_any_table_changes_it() {
        let (rsdp, tables) = files(&[table(b"SSDT", b"x")]);
        let digest = admission_digest(&[], &rsdp, &tables).unwrap();
        let root = tables.len() - HEADER - 8;
        let fadt = 64 + HEADER + 4;
        for at in 64..root {
            let mut other = tables.clone();
            other[at] ^= 1;
            let ignored = [64, fadt, fadt + 244].iter().any(|table| at == table + CHECKSUM)
                || FADT_ADDRESSES.iter().any(|(from, to)| (fadt + from..fadt + to).contains(&at));
            let found = admission_digest(&[], &rsdp, &other);
            assert!(ignored || found != Ok(digest), "byte {at}");
            assert!(!ignored || found == Ok(digest) || found.is_err(), "byte {at}");
        }
        let (rsdp, more) = files(&[table(b"SSDT", b"x"), table(b"SSDT", b"x")]);
        assert_ne!(admission_digest(&[], &rsdp, &more), Ok(digest), "one table more");
    }

    #[test]
    fn firmware_may_write_addresses_and_checksums_and_nothing_else() {
        let (rsdp, tables) = files(&[table(b"SSDT", b"an address")]);
        let (dsdt, fadt) = (64, 64 + HEADER + 4);
        let ssdt = fadt + 244;
        let root = tables.len() - 8;
        for fine in [write(3, dsdt + CHECKSUM), write(2, fadt + X_DSDT), write(2, root), write(3, ssdt + CHECKSUM)] {
            admission_digest(&fine, &rsdp, &tables).unwrap();
        }
        for (bad, table) in [
            (write(2, ssdt + 38), "SSDT"),
            (write(3, ssdt + 38), "SSDT"),
            (write(2, fadt + 50), "FACP"),
            (write(2, dsdt + 37), "DSDT"),
        ] {
            let error = admission_digest(&bad, &rsdp, &tables).unwrap_err();
            assert!(matches!(&error, AdmissionError::Written { table: found, .. } if found == table), "{error}");
        }
        assert_eq!(admission_digest(&[0; 100], &rsdp, &tables), Err(AdmissionError::Loader));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(
            loader in prop::collection::vec(any::<u8>(), 0..300),
            cut in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            value in any::<[u8; 4]>(),
            noise in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let (rsdp, mut tables) = files(&[table(b"SSDT", b"x")]);
            let _ = admission_digest(&loader, &noise, &tables);
            let _ = admission_digest(&[], &rsdp, &noise);
            let _ = admission_digest(&[], &rsdp, &tables[..cut.index(tables.len())]);
            let from = at.index(tables.len() - 4);
            tables[from..from + 4].copy_from_slice(&value);
            let _ = admission_digest(&[], &rsdp, &tables);
        }
    }
}
