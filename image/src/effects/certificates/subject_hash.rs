//! The name under which OpenSSL looks for a certificate: the first four bytes of the SHA-1 of its subject in OpenSSL's
//! canonical form (X509_NAME_hash(3), crypto/x509/x_name.c). The DER here is read just far enough for that.

use sha1::{Digest as _, Sha1};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTF8_STRING: u8 = 0x0c;

/// The one certificate of a PEM file (RFC 7468); `None` where there is none, or more than one.
pub(super) fn certificate_of_pem(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, rest) = rest.split_once("-----END CERTIFICATE-----")?;
    if rest.contains("-----BEGIN") {
        return None;
    }
    let mut out = Vec::new();
    let (mut bits, mut value) = (0, 0u32);
    for c in body.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b'=') {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        value = (value << 6) | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from((value >> bits) & 0xff).unwrap_or_default());
        }
        value &= 0xffff;
    }
    Some(out)
}

/// The hash of a DER certificate's subject as eight hex digits (RFC 5280 4.1 for where the subject is).
pub(super) fn of(certificate: &[u8]) -> Option<String> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, _, after) = element(rest)?;
    if tag == VERSION {
        rest = after;
    }
    // serialNumber, signature, issuer, validity.
    for _ in 0..4 {
        rest = element(rest)?.2;
    }
    let (_, mut names, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let mut canonical = Vec::new();
    while !names.is_empty() {
        let (tag, set, after) = element(names)?;
        canonical.extend((tag == SET).then(|| canonical_set(set))??);
        names = after;
    }
    let [a, b, c, d, ..] = *Sha1::digest(&canonical).as_slice() else {
        return None;
    };
    Some(format!("{:08x}", u32::from_le_bytes([a, b, c, d])))
}

/// A set of attributes; DER sorts the elements of a set.
fn canonical_set(mut set: &[u8]) -> Option<Vec<u8>> {
    let mut attributes = Vec::new();
    while !set.is_empty() {
        let (_, attribute, after) = element(set).filter(|(tag, ..)| *tag == SEQUENCE)?;
        let (_, kind, value) = element(attribute).filter(|(tag, ..)| *tag == OBJECT_IDENTIFIER)?;
        let (tag, content, _) = element(value)?;
        let (tag, content) = match text(tag, content) {
            Some(text) => (UTF8_STRING, canonical_text(&text).into_bytes()),
            None => (tag, content.to_vec()),
        };
        let attribute = [encoded(OBJECT_IDENTIFIER, kind), encoded(tag, &content)].concat();
        attributes.push(encoded(SEQUENCE, &attribute));
        set = after;
    }
    attributes.sort();
    Some(encoded(SET, &attributes.concat()))
}

/// The string types that OpenSSL compares as text (ASN1_MASK_CANON).
fn text(tag: u8, content: &[u8]) -> Option<String> {
    let wide = |width: usize| {
        content
            .chunks(width)
            .map(|unit| char::from_u32(unit.iter().fold(0, |value, byte| (value << 8) | u32::from(*byte))))
            .collect()
    };
    match tag {
        UTF8_STRING => String::from_utf8(content.to_vec()).ok(),
        // PrintableString, T61String (read as Latin-1), IA5String, VisibleString.
        0x13 | 0x14 | 0x16 | 0x1a => Some(content.iter().copied().map(char::from).collect()),
        // BMPString, UniversalString.
        0x1e => wide(2),
        0x1c => wide(4),
        _ => None,
    }
}

/// Lower case in ASCII, no white space at the ends, one space for white space between (asn1_string_canon).
fn canonical_text(text: &str) -> String {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c');
    let words: Vec<&str> = text.split(is_space).filter(|word| !word.is_empty()).collect();
    words.join(" ").to_ascii_lowercase()
}

/// Tag, content and what follows of the DER element at the start (X.690 8.1; tags of one byte, lengths up to 4 GiB).
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |value, digit| (value << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => {
            let digits = content.len().to_be_bytes();
            let digits: Vec<u8> = digits.into_iter().skip_while(|digit| *digit == 0).collect();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            out.extend(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_compared_without_case_and_white_space() {
        assert_eq!(canonical_text("  A \t b  C "), "a b c");
        assert_eq!(text(0x1e, &[0, b'A', 0, 0xe9]).as_deref(), Some("Aé"));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = of(&bytes);
            let _ = of(&encoded(SEQUENCE, &encoded(SEQUENCE, &bytes)));
            let _ = certificate_of_pem(&bytes);
        }
    }
}
