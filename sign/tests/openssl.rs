//! `openssl` reads our keys, accepts our signatures, and makes keys and signatures that we accept.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use sign::{Algorithm, KeyError, PrivateKey, PublicKey, public_path};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::EcdsaP384, Algorithm::Ed25519];

/// Runs openssl in `directory`; `None` where there is none.
fn openssl(directory: &Path, words: &str) -> Option<(bool, Vec<u8>)> {
    match Command::new("openssl").args(words.split_whitespace()).current_dir(directory).output() {
        Ok(output) => Some((output.status.success(), output.stdout)),
        Err(error) => {
            eprintln!("skipped: openssl: {error}");
            None
        }
    }
}

fn verify_words(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EcdsaP384 => "dgst -sha384 -verify key.pub -signature signature message",
        Algorithm::Ed25519 => "pkeyutl -verify -pubin -inkey key.pub -rawin -in message -sigfile signature",
    }
}

#[test]
fn openssl_accepts_our_signatures_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for algorithm in ALGORITHMS {
        let _ = (fs::remove_file(root.join("key")), fs::remove_file(root.join("key.pub")));
        let key = PrivateKey::generate(algorithm).unwrap();
        key.write(&root.join("key")).unwrap();
        fs::write(root.join("message"), "a message").unwrap();
        fs::write(root.join("signature"), key.sign(b"a message")).unwrap();
        let Some((accepted, _)) = openssl(root, verify_words(algorithm)) else { return };
        assert!(accepted, "{algorithm}");
        fs::write(root.join("message"), "another message").unwrap();
        assert!(!openssl(root, verify_words(algorithm)).unwrap().0, "{algorithm}");
        // The identifier is that of the public key file: SHA-256 of what openssl writes in DER.
        let (_, der) = openssl(root, "pkey -pubin -in key.pub -outform DER").unwrap();
        assert_eq!(spec::Sha256Digest::of(&der), key.public().id().unwrap(), "{algorithm}");
        // The private file is the same key.
        let (_, public) = openssl(root, "pkey -in key -pubout").unwrap();
        assert_eq!(public, fs::read(root.join("key.pub")).unwrap(), "{algorithm}");
    }
}

#[test]
fn we_accept_the_signatures_of_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::write(root.join("message"), "a message").unwrap();
    let ways = [
        (
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out key",
            "dgst -sha384 -sign key -out signature message",
        ),
        ("genpkey -algorithm ED25519 -out key", "pkeyutl -sign -inkey key -rawin -in message -out signature"),
    ];
    for (make, sign) in ways {
        let Some((made, _)) = openssl(root, make) else { return };
        assert!(made && openssl(root, sign).unwrap().0);
        openssl(root, "pkey -in key -pubout -out key.pub").unwrap();
        let key = PublicKey::read(&root.join("key.pub")).unwrap();
        let mut signature = fs::read(root.join("signature")).unwrap();
        assert!(key.verifies(b"a message", &signature));
        assert!(!key.verifies(b"a messagf", &signature));
        let last = signature.len() - 1;
        signature[last] ^= 1;
        assert!(!key.verifies(b"a message", &signature));
        assert_eq!(PrivateKey::read(&root.join("key")).unwrap().public(), key);
    }
}

#[test]
fn keys_of_other_kinds_are_refused_with_what_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let makes = [
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key", "of another algorithm or curve"),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key", "of another algorithm or curve"),
        ("ecparam -name secp384r1 -genkey -noout -out key", "EC PRIVATE KEY"),
        ("genpkey -algorithm ED25519 -aes256 -pass pass:x -out key", "ENCRYPTED PRIVATE KEY"),
    ];
    for (make, expected) in makes {
        let Some((made, _)) = openssl(root, make) else { return };
        assert!(made, "{make}");
        fs::set_permissions(root.join("key"), fs::Permissions::from_mode(0o600)).unwrap();
        let error = PrivateKey::read(&root.join("key")).unwrap_err();
        assert!(matches!(&error, KeyError::NotAKey { reason, .. } if reason.contains(expected)), "{make}: {error}");
    }
}

#[test]
fn the_private_file_is_its_owners_alone_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let key = PrivateKey::generate(Algorithm::EcdsaP384).unwrap();
    key.write(&path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&public_path(&path))), (0o600, 0o644));
    assert_eq!(format!("{key:?}"), format!("PrivateKey(ECDSA P-384 {})", key.public().id().unwrap()));
    let before = fs::read(&path).unwrap();
    assert!(matches!(key.write(&path), Err(KeyError::Exists(_))));
    fs::remove_file(&path).unwrap();
    assert!(matches!(key.write(&path), Err(KeyError::Exists(found)) if found == public_path(&path)));
    assert!(!path.exists());
    fs::write(&path, before).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(PrivateKey::read(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
}

#[test]
fn the_numbers_of_a_signature_are_those_of_its_der_form() {
    let key = PrivateKey::generate(Algorithm::EcdsaP384).unwrap();
    let (numbers, der) = (key.sign_p384(b"block").unwrap(), key.sign(b"block"));
    let trimmed = |number: &[u8; 48]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    assert!(der.ends_with(&trimmed(&numbers.s)));
    assert!(der.windows(trimmed(&numbers.r).len()).any(|window| window == trimmed(&numbers.r)));
    let point = key.public().p384_point().unwrap();
    assert_ne!(point.x, point.y);
    let other = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    assert!(other.sign_p384(b"block").is_none() && other.public().p384_point().is_none());
}
