//! Certificates and signatures of images, made byte by byte (RFC 5280; RFC 2315; Microsoft, "Windows Authenticode Portable Executable
//! Signature Format"): what no honest tool makes has to be refused too.

use measure::Digest256;
use rsa::{BigUint, Pkcs1v15Sign, RsaPrivateKey, traits::PublicKeyParts as _};

const SHA256: [u8; 15] = [0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0];
const INDIRECT_DATA: [u8; 12] = [6, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
/// Of the names that start with 1.2.840.113549.1.
const fn pkcs(of: u8, number: u8) -> [u8; 11] {
    [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, of, number]
}

/// What a certificate says of itself.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// BasicConstraints: a CA.
    Ca,
    /// The same, but KeyUsage does not have keyCertSign.
    CaThatMayNot,
    /// BasicConstraints: not a CA.
    Leaf,
    /// Version 3 without extensions.
    Silent,
    /// Version 1.
    Old,
}

/// A tag, the length, and the parts.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match length {
        [0, short @ ..0x80] => vec![short],
        [0, byte] => vec![0x81, byte],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag][..], &length, &content].concat()
}

fn algorithm(name: &[u8]) -> Vec<u8> {
    der(0x30, &[name, &[5, 0]])
}

fn name(name: &str) -> Vec<u8> {
    der(0x30, &[&der(0x31, &[&der(0x30, &[&[6, 3, 0x55, 4, 3], &der(12, &[name.as_bytes()])])])])
}

/// One key does for all: certificates are told apart by their names.
fn key() -> RsaPrivateKey {
    let prime = |hex: &[u8]| BigUint::parse_bytes(hex, 16).unwrap();
    let p = prime(
        b"C9943A7896887B4AB1D86F31A6EDC9702992B494F3E86D3A8608D8F719DAE18D\
          EB6B8D93C32EC02E1087AEDAA5399D834D9E71832D2218C433724574511A98CB",
    );
    let q = prime(
        b"C00EBD288079D85BAF73E492FE87B4B30BC78810439039A80F0864F9E697E6F7\
          5A3100D48AC1CE6CE09B73FBCE601F78A0F728C6FA4FDABBC88AABE22A46FE2B",
    );
    RsaPrivateKey::from_p_q(p, q, BigUint::from(65537_u32)).unwrap()
}

fn sign(data: &[u8]) -> Vec<u8> {
    let prefix = [&[0x30, 0x31][..], &SHA256, &[4, 0x20]].concat().into();
    key().sign(Pkcs1v15Sign { hash_len: Some(32), prefix }, &Digest256::of(data).0).unwrap()
}

/// A certificate for one name, signed by another.
pub(crate) fn certificate(subject: &str, issuer: &str, kind: Kind) -> Vec<u8> {
    let modulus = der(2, &[&[0], &key().n().to_bytes_be()]);
    let public = der(0x30, &[&modulus, &[2, 3, 1, 0, 1]]);
    let public = der(0x30, &[&algorithm(&pkcs(1, 1)), &der(3, &[&[0], &public])]);
    let date = der(0x17, &[b"250101000000Z"]);
    let constraints = |value: &[u8]| der(0x30, &[&[6, 3, 0x55, 0x1d, 0x13], &der(4, &[value])]);
    let usage = der(0x30, &[&[6, 3, 0x55, 0x1d, 0x0f], &der(4, &[&[3, 2, 7, 0x80]])]);
    let extensions = match kind {
        Kind::Ca => constraints(&[0x30, 3, 1, 1, 0xff]),
        Kind::CaThatMayNot => [constraints(&[0x30, 3, 1, 1, 0xff]), usage].concat(),
        Kind::Leaf => constraints(&[0x30, 0]),
        Kind::Silent | Kind::Old => Vec::new(),
    };
    let extensions = if extensions.is_empty() { extensions } else { der(0xa3, &[&der(0x30, &[&extensions])]) };
    let version: &[u8] = if matches!(kind, Kind::Old) { &[] } else { &[0xa0, 3, 2, 1, 2] };
    let (issuer, subject) = (name(issuer), name(subject));
    let validity = der(0x30, &[&date, &date]);
    let signature = algorithm(&pkcs(1, 11));
    let parts = [version, &[2, 1, 1], &signature, &issuer, &validity, &subject, &public, &extensions];
    let signed = der(0x30, &parts);
    der(0x30, &[&signed, &signature, &der(3, &[&[0], &sign(&signed)])])
}

/// The signature of an image with this digest by the certificate that this issuer signed, with these certificates.
pub(crate) fn message(image: &Digest256, issuer: &str, certificates: &[&[u8]]) -> Vec<u8> {
    let kind = der(0x30, &[&[6, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 15]]);
    let content = [kind, der(0x30, &[&SHA256, &der(4, &[&image.0])])].concat();
    let attribute = |kind: [u8; 11], value: &[u8]| der(0x30, &[&kind, &der(0x31, &[value])]);
    let digest = der(4, &[&Digest256::of(&content).0]);
    let attributes = [attribute(pkcs(9, 3), &INDIRECT_DATA), attribute(pkcs(9, 4), &digest)].concat();
    let signature = der(4, &[&sign(&der(0x31, &[&attributes]))]);
    let signer = der(0x30, &[&name(issuer), &[2, 1, 1]]);
    let attributes = der(0xa0, &[&attributes]);
    let signer = der(0x30, &[&[2, 1, 1], &signer, &SHA256, &attributes, &algorithm(&pkcs(1, 1)), &signature]);
    let content = der(0x30, &[&INDIRECT_DATA, &der(0xa0, &[&der(0x30, &[&content])])]);
    let parts = [&[2, 1, 1][..], &der(0x31, &[&SHA256]), &content, &der(0xa0, certificates), &der(0x31, &[&signer])];
    der(0x30, &[&pkcs(7, 2), &der(0xa0, &[&der(0x30, &parts)])])
}
