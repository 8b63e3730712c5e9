//! Entries of db as live firmware measured them when it verified an image, and foreign bytes in the place of databases and
//! signatures. Boots with signatures of our own are in `e2e` `emulated`.

mod shelf;
mod signer;

use measure::Digest256;
use measure::authenticode::PeError;
use measure::authenticode::certificates::signed_messages;
use measure::authenticode::signed::{Signature, SignatureError, certificate_digest};
use measure::eventlog::{EventLog, EventType};
use measure::uefi::signature_list::{CERT_SHA256, CERT_X509, signatures};
use measure::uefi::{Authority, AuthorityError, SecureBootVariables};
use proptest::prelude::*;
use signer::{Kind, certificate, message};

/// The value in UEFI_VARIABLE_DATA, if the variable has this name.
fn value<'a>(data: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let number = |at: usize| usize::try_from(u64::from_le_bytes(data.get(at..at + 8)?.try_into().ok()?)).ok();
    let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let (characters, size) = (number(16)?, number(24)?);
    let rest = data.get(32..)?.strip_prefix(&units[..]).filter(|_| characters * 2 == units.len())?;
    rest.get(..size)
}

/// A TDX guest that was started by shim, which Microsoft signs: the entry of db that its log says was used is one of the db that the same
/// log has, and the digest is the one that is computed of it. No other log of the vectors has such an event.
#[test]
fn the_entry_that_verified_an_image_is_measured_as_a_live_guest_did() {
    let Some(bytes) = shelf::bytes("tdx/ccel/trustee/CCEL_data_grub") else { return };
    let (log, _) = EventLog::parse_lenient(&bytes).unwrap();
    let of_type = |event_type| log.events.iter().filter(move |event| event.event_type == event_type);
    let db = of_type(EventType::EV_EFI_VARIABLE_DRIVER_CONFIG).find_map(|event| value(event.data, "db")).unwrap();
    let db = signatures(db).unwrap();
    let used: Vec<_> = of_type(EventType::EV_EFI_VARIABLE_AUTHORITY)
        .filter_map(|event| Some((value(event.data, "db")?, event.sha384())))
        .collect();
    let [(entry, digest)] = used[..] else { panic!("{used:?}") };
    assert!(db.iter().any(|known| known.entry == entry));
    assert_eq!(Some(Authority::of_entry(entry).0), digest);
}

/// What Debian signed holds, and holds no more of an image with one other byte.
#[test]
fn the_signature_of_a_distribution_holds() {
    let Some(folder) = shelf::kernels() else { return };
    let mut signatures = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let image = std::fs::read(entry.unwrap().path()).unwrap();
        for message in signed_messages(&image).unwrap() {
            let digest = measure::authenticode::sha256(&image).unwrap();
            Signature::check(message, &digest).unwrap();
            let other = Signature::check(message, &Digest256::of(&image));
            assert_eq!(other.err(), Some(SignatureError::Invalid("it is of another image")));
            // The last bytes of the message are those of the signature: padding, if any, is zero.
            let mut message = message.to_vec();
            let last = message.iter().rposition(|byte| *byte != 0).unwrap();
            message[last] ^= 1;
            let other = Signature::check(&message, &digest);
            assert_eq!(other.err(), Some(SignatureError::Invalid("its certificate did not make it")));
            signatures += 1;
        }
    }
    assert!(signatures > 0, "no kernel has a signature");
}

/// db and dbx of Debian's firmware, whose sizes virt-fw-vars tells.
#[test]
fn databases_of_a_distribution_are_read() {
    let path = "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz";
    let Some(image) = shelf::bytes(path) else { return };
    let store = measure::uefi::VariableStore::parse(&image).unwrap();
    let variables = SecureBootVariables::of_store(&store);
    let (db, dbx) = (signatures(&variables.db).unwrap(), signatures(&variables.dbx).unwrap());
    assert!(db.iter().all(|entry| entry.data().starts_with(&[0x30, 0x82])), "certificates");
    // A list has a header of 28 bytes, an entry one of 16.
    assert_eq!(variables.db.len(), db.iter().map(|entry| 28 + entry.entry.len()).sum::<usize>());
    assert!(dbx.len() > 100, "{}", dbx.len());
    // One that could not be read would forbid whatever is signed.
    let mut certificates = dbx.iter().filter(|entry| entry.kind == CERT_X509);
    assert!(certificates.all(|entry| certificate_digest(entry.data()).is_some()));
}

/// A PE image without sections and with this certificate table.
fn image(table: &[u8]) -> Vec<u8> {
    const HEADERS: u32 = 0x200;
    let mut image = vec![0; HEADERS as usize];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x54, &0xf0_u16.to_le_bytes());
    put(0x58, &0x20b_u16.to_le_bytes());
    put(0x58 + 60, &HEADERS.to_le_bytes());
    put(0x58 + 108, &16_u32.to_le_bytes());
    put(0x58 + 144, &HEADERS.to_le_bytes());
    put(0x58 + 148, &u32::try_from(table.len()).unwrap().to_le_bytes());
    image.extend(table);
    image
}

/// An entry of a certificate table, with its padding.
fn entry(kind: u16, message: &[u8]) -> Vec<u8> {
    let mut entry = u32::try_from(message.len() + 8).unwrap().to_le_bytes().to_vec();
    entry.extend([0x200, kind].map(u16::to_le_bytes).concat());
    entry.extend(message);
    entry.resize(entry.len().next_multiple_of(8), 0);
    entry
}

/// A list with one entry.
fn list(kind: [u8; 16], data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len() + 16).unwrap();
    [&kind[..], &[size + 28, 0, size].map(u32::to_le_bytes).concat(), &[7; 16], data].concat()
}

fn digest_list(digest: &Digest256) -> Vec<u8> {
    list(CERT_SHA256.0, &digest.0)
}

fn started(table: &[u8], db: &[&[u8]], dbx: &[u8]) -> Result<Authority, AuthorityError> {
    let variables =
        SecureBootVariables { secure_boot: Some(true), db: db.concat(), dbx: dbx.to_vec(), ..Default::default() };
    Authority::of_image(&image(table), &variables)
}

/// The digest of all images here: what is signed has no part in it.
fn digest() -> Digest256 {
    measure::authenticode::sha256(&image(&[])).unwrap()
}

fn of(data: &[u8]) -> Authority {
    Authority::of_entry(&[&[7; 16][..], data].concat())
}

#[test]
fn only_a_ca_issues_certificates() {
    let thief = certificate("thief", "issuer", Kind::Leaf);
    let table = |carried: &[&[u8]]| entry(2, &message(&digest(), "issuer", carried));
    for (subject, by, kind, may) in [
        ("issuer", "root", Kind::Ca, true),
        ("issuer", "root", Kind::CaThatMayNot, false),
        ("issuer", "root", Kind::Leaf, false),
        ("issuer", "root", Kind::Silent, false),
        ("issuer", "issuer", Kind::Silent, false),
        ("issuer", "root", Kind::Old, false),
        ("issuer", "issuer", Kind::Old, true),
    ] {
        let issuer = certificate(subject, by, kind);
        let known = list(CERT_X509.0, &issuer);
        let expected = if may { Ok(of(&issuer)) } else { Err(AuthorityError::NotAllowed) };
        assert_eq!(started(&table(&[&thief]), &[&known], &[]), expected);
        // It forbids all the same.
        let itself = list(CERT_X509.0, &thief);
        assert_eq!(started(&table(&[&thief]), &[&itself], &[]), Ok(of(&thief)));
        let revoked = Err(AuthorityError::Revoked("a certificate that leads to its signature"));
        assert_eq!(started(&table(&[&thief]), &[&itself], &known), revoked);
        // So does the root behind it, and that allows only what a CA issued.
        let root = certificate("root", "root", Kind::Ca);
        let root = (list(CERT_X509.0, &root), of(&root));
        if by == "root" {
            let expected = if may { Ok(root.1) } else { Err(AuthorityError::NotAllowed) };
            assert_eq!(started(&table(&[&thief, &issuer]), &[&root.0], &[]), expected);
            assert_eq!(started(&table(&[&thief, &issuer]), &[&itself], &root.0), revoked);
        }
    }
}

#[test]
fn the_digest_comes_before_the_next_signature() {
    let (one, two) = (certificate("one", "one", Kind::Leaf), certificate("two", "two", Kind::Leaf));
    let signed = |name, certificate: &Vec<u8>| entry(2, &message(&digest(), name, &[certificate]));
    let both = [signed("one", &one), signed("two", &two)].concat();
    let (by_one, by_two) = (list(CERT_X509.0, &one), list(CERT_X509.0, &two));
    let by_digest = digest_list(&digest());
    assert_eq!(started(&both, &[&by_two, &by_one], &[]), Ok(of(&one)));
    assert_eq!(started(&both, &[&by_two], &[]), Ok(of(&two)));
    assert_eq!(started(&both, &[&by_two, &by_digest], &[]), Ok(of(&digest().0)));
    assert_eq!(started(&both, &[&by_digest, &by_one], &[]), Ok(of(&one)));
    assert_eq!(started(&both, &[&by_digest], &[]), Ok(of(&digest().0)));
}

#[test]
fn kinds_in_dbx_that_are_not_known_forbid() {
    // EFI_CERT_X509_SHA384_GUID, whose entries are 64 bytes and the owner.
    let kind = measure::Guid::new(0x7076_876e, 0x80c2, 0x4ee6, [0xaa, 0xd2, 0x28, 0xb3, 0x49, 0xa6, 0x86, 0x5b]);
    let unknown = list(kind.0, &[0; 64]);
    let db = digest_list(&digest());
    assert_eq!(started(&[], &[&db], &unknown), Err(AuthorityError::UnknownKind(kind)));
    // In db it allows nothing.
    assert_eq!(started(&[], &[&unknown, &db], &[]), Ok(of(&digest().0)));
}

#[test]
fn certificate_tables_are_read_to_their_end_or_not_at_all() {
    let db = digest_list(&digest());
    let by = certificate("one", "one", Kind::Leaf);
    let message = message(&digest(), "one", &[&by]);
    let read = |table: &[u8]| started(table, &[&db], &[]);
    let damaged = |what| Err(AuthorityError::Pe(PeError::Damaged(what)));
    let one = entry(2, &message);
    assert_eq!(read(&one), Ok(of(&digest().0)));
    // EFI_CERT_TYPE_EFI_GUID.
    let unknown = damaged("its certificate table: an entry of an unknown kind");
    assert_eq!(read(&entry(0x0ef1, &message)), unknown);
    assert_eq!(read(&[one.clone(), entry(1, &message)].concat()), unknown);
    let rest = damaged("its certificate table");
    assert_eq!(read(&[&one[..], &[0; 8]].concat()), rest);
    assert_eq!(read(&[&one[..], &[0; 3]].concat()), rest);
    assert_eq!(read(&entry(2, &[])), rest);
    // Of odd length, and without the padding behind it.
    let odd = entry(2, &[&message[..], &vec![0; 9 - message.len() % 8]].concat());
    assert_eq!(read(&odd), Ok(of(&digest().0)));
    assert_eq!(read(&odd[..odd.len() - 7]), rest);
    assert_eq!(read(&one.repeat(8)), Ok(of(&digest().0)));
    assert_eq!(read(&one.repeat(9)), damaged("its certificate table: more than 8 signatures"));
    let large = entry(2, &[&message[..], &vec![0; 1 << 16]].concat());
    let error = SignatureError::Damaged("it is larger than 64 KiB");
    assert_eq!(read(&large), Err(AuthorityError::Signature(error)));
}

#[test]
fn an_image_without_a_signature_starts_by_its_digest_alone() {
    let image = image(&[]);
    let digest = measure::authenticode::sha256(&image).unwrap();
    let variables = |db, dbx| SecureBootVariables { secure_boot: Some(true), db, dbx, ..Default::default() };
    let (this, other) = (digest_list(&digest), digest_list(&Digest256::of(b"another")));
    let of = |db: &[&[u8]], dbx: &[u8]| Authority::of_image(&image, &variables(db.concat(), dbx.to_vec()));
    let entry = Authority::of_entry(&[&[7; 16][..], &digest.0].concat());
    assert_eq!(of(&[&other, &this], &[]), Ok(entry));
    assert_eq!(of(&[&this], &other), Ok(entry));
    assert_eq!(of(&[&this], &this), Err(AuthorityError::Revoked("its digest")));
    assert_eq!(of(&[&other], &[]), Err(AuthorityError::NotSigned));
    assert_eq!(of(&[], &[]), Err(AuthorityError::NotSigned));
    assert!(matches!(of(&[&this[..75]], &[]), Err(AuthorityError::Database { name: "db", .. })));
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes: Vec<u8>, db: Vec<u8>) {
        let _ = signatures(&bytes);
        let _ = Signature::check(&bytes, &Digest256::ZERO);
        let variables = SecureBootVariables { db: db.clone(), dbx: bytes.clone(), ..Default::default() };
        let _ = Authority::of_image(&bytes, &variables);
        let _ = Authority::of_image(&image(&entry(2, &bytes)), &SecureBootVariables { db, ..Default::default() });
        let _ = Authority::of_image(&image(&bytes), &SecureBootVariables::default());
    }
}
