//! Signature databases, the PKCS #7 messages of signed images, and an image around both (UEFI 2.11, 32.4.1; Microsoft, "Windows
//! Authenticode Portable Executable Signature Format").
#![no_main]

use libfuzzer_sys::fuzz_target;
use measure::Digest256;
use measure::authenticode::signed::Signature;
use measure::uefi::signature_list::{CERT_SHA256, CERT_X509, signatures};
use measure::uefi::{Authority, SecureBootVariables};

const HEADERS: u32 = 0x200;

/// A PE image without sections and with this certificate table.
fn image(table: &[u8]) -> Vec<u8> {
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
    put(0x58 + 148, &u32::try_from(table.len()).unwrap_or(0).to_le_bytes());
    image.extend(table);
    image
}

/// One entry, in a list of its own.
fn list(kind: [u8; 16], data: &[u8]) -> Vec<u8> {
    let size = u32::try_from(data.len() + 16).unwrap_or(0);
    [&kind[..], &(size + 28).to_le_bytes(), &[0; 4], &size.to_le_bytes(), &[7; 16], data].concat()
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entries) = signatures(bytes) {
        assert!(entries.iter().map(|entry| entry.entry.len()).sum::<usize>() <= bytes.len());
    }
    let _ = Signature::check(bytes, &Digest256::ZERO);
    let mut message = [&u32::try_from(bytes.len() + 8).unwrap_or(0).to_le_bytes()[..], &[0, 2, 2, 0], bytes].concat();
    message.resize(message.len().next_multiple_of(8), 0);
    for (image, db) in [(image(&message), list(CERT_X509.0, bytes)), (image(bytes), bytes.to_vec())] {
        let variables = SecureBootVariables { db, dbx: bytes.to_vec(), ..Default::default() };
        let _ = Authority::of_image(&image, &variables);
        // By its digest it is started, whatever is signed.
        let Ok(digest) = measure::authenticode::sha256(&image) else { continue };
        let allowed = SecureBootVariables { db: list(CERT_SHA256.0, &digest.0), ..Default::default() };
        if Authority::of_image(&image, &allowed).is_ok() {
            let forbidden = SecureBootVariables { dbx: allowed.db.clone(), ..allowed };
            assert!(Authority::of_image(&image, &forbidden).is_err());
        }
    }
});
