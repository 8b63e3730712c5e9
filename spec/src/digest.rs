//! SHA-256 and SHA-384 values as types: 64 or 96 lower-case hex digits in every file format.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// Text that is not the expected number of lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected_digits} lower-case hex digits, found \"{found}\"")]
pub struct DigestError {
    /// How many digits the type has.
    pub expected_digits: usize,
    /// The text as given.
    pub found: String,
}

/// Decodes lower- or upper-case hex; `None` on odd length or a foreign character.
pub fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.as_bytes().chunks_exact(2).map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?)).collect()
}

/// Lower-case hex of `bytes`.
pub fn encode_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

macro_rules! digest_type {
    ($name:ident, $bytes:literal, $hasher:ty, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The digest of `data`.
            pub fn of(data: &[u8]) -> Self {
                Self(<$hasher>::digest(data).into())
            }

            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// The first 12 hex digits, for tables and progress lines. Never compare these.
            pub fn short(&self) -> String {
                encode_hex(&self.0).chars().take(12).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&encode_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                let error = || DigestError { expected_digits: $bytes * 2, found: text.to_owned() };
                if text.bytes().any(|c| c.is_ascii_uppercase()) {
                    return Err(error());
                }
                decode_hex(text).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": format!("^[0-9a-f]{{{}}}$", $bytes * 2) })
            }
        }
    };
}

digest_type!(Sha256Digest, 32, sha2::Sha256, "A SHA-256 value.");
digest_type!(Sha384Digest, 48, sha2::Sha384, "A SHA-384 value.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // FIPS 180-4 examples for the empty message.
        assert_eq!(
            Sha256Digest::of(b"").to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(Sha384Digest::of(b"").to_string().starts_with("38b060a751ac9638"));
    }

    #[test]
    fn only_exact_lower_case_hex_is_a_digest() {
        let good = "00".repeat(32);
        assert!(good.parse::<Sha256Digest>().is_ok());
        for bad in [&good[1..], "", &"0G".repeat(32), &"AA".repeat(32), &format!("{good} ")] {
            assert!(bad.parse::<Sha256Digest>().is_err(), "{bad}");
        }
    }
}
