//! SHA-256 and SHA-384 values as types.
//!
//! `spec` has types of the same kind for files; these are apart because this crate stands below `spec` and has no `std`.

use alloc::string::String;
use core::fmt;

use sha2::Digest as _;

macro_rules! digest_type {
    ($name:ident, $bytes:literal, $hasher:ty, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// All bytes zero: the value registers and chains start from.
            pub const ZERO: Self = Self([0; $bytes]);

            /// The digest of `data`.
            pub fn of(data: &[u8]) -> Self {
                Self(<$hasher>::digest(data).into())
            }

            /// The digest of the parts, one after the other.
            pub fn of_parts(parts: &[&[u8]]) -> Self {
                let mut hasher = <$hasher>::new();
                for part in parts {
                    hasher.update(part);
                }
                Self(hasher.finalize().into())
            }

            /// Reads hex of either case; `None` on any other text.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $bytes];
                decode_hex(text, &mut bytes)?;
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

digest_type!(Digest256, 32, sha2::Sha256, "A SHA-256 value.");
digest_type!(Digest384, 48, sha2::Sha384, "A SHA-384 value.");

impl Digest384 {
    /// The value of a measurement register that held `self` after `digest` was extended into it:
    /// SHA-384(register || digest), the rule of TPM PCRs and TDX RTMRs.
    #[must_use]
    pub fn extended(&self, digest: &Self) -> Self {
        Self::of_parts(&[&self.0, &digest.0])
    }
}

/// Fills `out` from hex of either case; `None` on a wrong length or a foreign character.
fn decode_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != out.len() {
        return None;
    }
    let nibble = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (slot, [high, low]) in out.iter_mut().zip(pairs) {
        *slot = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(())
}

/// Lower-case hex of `bytes`, for reports.
pub fn encode_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn known_values() {
        // FIPS 180-4 examples for the empty message.
        assert_eq!(Digest256::of(b"").to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(Digest384::of_parts(&[b"a", b"b"]), Digest384::of(b"ab"));
    }

    #[test]
    fn hex_is_exact() {
        let digest = Digest256::of(b"x");
        assert_eq!(Digest256::from_hex(&digest.to_string()), Some(digest));
        let text = digest.to_string();
        for bad in [&text[1..], &text[2..], "", &text.replace('a', "g"), &text.replace('1', "+")] {
            assert_eq!(Digest256::from_hex(bad), None, "{bad}");
        }
    }
}
