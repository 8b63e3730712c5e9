//! Entries of db as live firmware measured them when it verified an image, and foreign bytes in the place of databases and
//! signatures. Boots with signatures of our own are in `e2e` `emulated`.

mod shelf;

use measure::Digest256;
use measure::authenticode::certificates::signed_messages;
use measure::authenticode::signed::{Signature, SignatureError};
use measure::eventlog::{EventLog, EventType};
use measure::uefi::signature_list::signatures;
use measure::uefi::{Authority, AuthorityError, SecureBootVariables};
use proptest::prelude::*;

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

/// A list with one SHA-256.
fn digest_list(digest: &Digest256) -> Vec<u8> {
    let mut list = measure::uefi::signature_list::CERT_SHA256.0.to_vec();
    list.extend([76_u32, 0, 48].map(u32::to_le_bytes).concat());
    list.extend([7; 16]);
    list.extend(digest.0);
    list
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
        let message = [&u32::try_from(bytes.len() + 8).unwrap().to_le_bytes()[..], &[0, 2, 2, 0], &bytes].concat();
        let _ = Authority::of_image(&image(&message), &SecureBootVariables { db, ..Default::default() });
        let _ = Authority::of_image(&image(&bytes), &SecureBootVariables::default());
    }
}
