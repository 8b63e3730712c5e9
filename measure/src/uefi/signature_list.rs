//! The signature databases db and dbx: EFI_SIGNATURE_LIST (UEFI 2.11, 32.4.1).

use alloc::vec::Vec;

use crate::guid::Guid;
use crate::read::Reader;

/// EFI_CERT_SHA256_GUID: the digest of an image.
pub const CERT_SHA256: Guid = Guid::new(0xc1c41626, 0x504c, 0x4092, [0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28]);
/// EFI_CERT_X509_GUID: a certificate.
pub const CERT_X509: Guid = Guid::new(0xa5c059a1, 0x94e4, 0x4aa7, [0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72]);
/// EFI_CERT_X509_SHA256_GUID: the digest of what a certificate signs, and when it was revoked.
pub const CERT_X509_SHA256: Guid =
    Guid::new(0x3bd2a492, 0x96c0, 0x4079, [0xb4, 0x20, 0xfc, 0xf9, 0x8e, 0xf1, 0x03, 0xed]);

/// A database whose lists do not fit into it, or into each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature list at offset {offset:#x} is damaged")]
pub struct DamagedList {
    /// Where in the database.
    pub offset: usize,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// What kind of thing it is.
    pub kind: Guid,
    /// EFI_SIGNATURE_DATA: the owner's GUID and the thing, as firmware measures it.
    pub entry: &'a [u8],
}

impl<'a> Signature<'a> {
    /// The certificate, or the digest.
    pub fn data(&self) -> &'a [u8] {
        self.entry.get(size_of::<Guid>()..).unwrap_or_default()
    }
}

/// All entries in their order.
pub fn signatures(database: &[u8]) -> Result<Vec<Signature<'_>>, DamagedList> {
    let mut signatures = Vec::new();
    let mut reader = Reader::new(database);
    while !reader.rest().is_empty() {
        let offset = database.len().saturating_sub(reader.rest().len());
        list(&mut reader, &mut signatures).ok_or(DamagedList { offset })?;
    }
    Ok(signatures)
}

fn list<'a>(reader: &mut Reader<'a>, signatures: &mut Vec<Signature<'a>>) -> Option<()> {
    const HEADER: usize = 28;
    let (kind, list, header, size) = (reader.guid()?, reader.u32()?, reader.u32()?, reader.u32()?);
    let [list, header, size] = [list, header, size].map(usize::try_from);
    let (list, header, size) = (list.ok()?, header.ok()?, size.ok()?);
    let mut entries = Reader::new(reader.bytes(list.checked_sub(HEADER)?)?);
    entries.bytes(header)?;
    if size < size_of::<Guid>() {
        return None;
    }
    while !entries.rest().is_empty() {
        signatures.push(Signature { kind, entry: entries.bytes(size)? });
    }
    Some(())
}
