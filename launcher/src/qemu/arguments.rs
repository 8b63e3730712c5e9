//! The grammar of QEMU's command line: options, `key=value` lists with their commas doubled, base64.

/// An argument list in the making.
#[derive(Debug, Default)]
pub(super) struct Arguments(Vec<String>);

impl Arguments {
    /// An option without a value.
    pub(super) fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    /// An option with a value that QEMU takes as it is.
    pub(super) fn value(&mut self, name: &str, value: &str) {
        self.0.extend([name.to_owned(), value.to_owned()]);
    }

    /// An option with a list of properties.
    pub(super) fn option(&mut self, name: &str, properties: Properties) {
        self.0.extend([name.to_owned(), properties.0]);
    }

    pub(super) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

/// `first,key=value,...`; commas in values are doubled, as QEMU's option parser wants them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Properties(String);

impl Properties {
    /// A list that starts with a bare value.
    pub(super) fn of(first: &str) -> Self {
        Self(escape(first))
    }

    /// A list that starts with a pair.
    pub(super) fn with_first(key: &str, value: &str) -> Self {
        Self(format!("{key}={}", escape(value)))
    }

    /// All properties as JSON, which some options take in the place of a list. No pair can be added.
    pub(super) fn json(properties: &serde_json::Value) -> Self {
        Self(properties.to_string())
    }

    /// The list with one more pair.
    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        self.0.push_str(&format!(",{key}={}", escape(value)));
        self
    }
}

fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

/// Base64 with padding (RFC 4648, section 4): how QEMU takes binary values.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32, shift: u32| ALPHABET.get((bits >> shift & 0x3f) as usize).map_or('=', |c| char::from(*c));
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, index| bits << 8 | chunk.get(index).map_or(0, |byte| u32::from(*byte)));
        let digits = [18, 12, 6, 0].map(|shift| digit(bits, shift));
        out.extend(digits.into_iter().take(chunk.len() + 1));
        out.extend(std::iter::repeat_n('=', 3 - chunk.len()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_in_rfc_4648_section_10() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn commas_in_values_are_doubled() {
        assert_eq!(Properties::of("a,b").with("k", "v,w").0, "a,,b,k=v,,w");
    }
}
