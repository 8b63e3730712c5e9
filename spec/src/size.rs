//! Sizes as people write them (`"2GiB"`, `"512MiB"`) and as programs need them (bytes, MiB).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A size in bytes, written as a whole number with a binary unit: `KiB`, `MiB`, `GiB`, `TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size {
    /// The size in bytes.
    pub bytes: u64,
}

/// Text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a size: write a whole number and one of KiB, MiB, GiB, TiB, as in \"2GiB\"")]
pub struct SizeError(pub String);

const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

impl Size {
    /// `mib` mebibytes.
    pub const fn from_mib(mib: u64) -> Self {
        Self { bytes: mib << 20 }
    }

    /// The size in MiB, if it is a whole number of them.
    pub fn whole_mib(self) -> Option<u64> {
        self.bytes.is_multiple_of(1 << 20).then_some(self.bytes >> 20)
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError(text.to_owned());
        let (number, shift) = UNITS
            .iter()
            .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))
            .ok_or_else(error)?;
        if number.is_empty() || !number.bytes().all(|c| c.is_ascii_digit()) {
            return Err(error());
        }
        let number: u64 = number.parse().map_err(|_| error())?;
        number.checked_mul(1 << shift).map(|bytes| Self { bytes }).ok_or_else(error)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS
            .iter()
            .rev()
            .find(|(_, shift)| self.bytes.is_multiple_of(1 << shift) && self.bytes > 0)
            .unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", self.bytes >> shift)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9]+ *(KiB|MiB|GiB|TiB)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, bytes) in [("1KiB", 1 << 10), ("512MiB", 512 << 20), ("2GiB", 2 << 30), ("3 TiB", 3 << 40)] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.bytes, bytes);
            assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
        for bad in ["", "2", "2GB", "-1GiB", "+1GiB", "1.5GiB", "99999999999999TiB", "GiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
