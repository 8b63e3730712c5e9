//! `NAME`, `NAME/SUITE` and `NAME=VERSION`: how a recipe asks for a package.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A package as a recipe asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageRequest {
    /// The package's name.
    pub name: String,
    /// The only suite it may come from.
    pub suite: Option<String>,
    /// The only version it may have.
    pub version: Option<String>,
}

/// Text that does not name a package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" does not name a package: write NAME, NAME/SUITE or NAME=VERSION")]
pub struct PackageRequestError(pub String);

/// Whether `name` follows Debian policy 5.6.1 (lower-case letters, digits, `+ - .`, two characters at least).
fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"+-.".contains(&c))
}

impl FromStr for PackageRequest {
    type Err = PackageRequestError;

    fn from_str(text: &str) -> Result<Self, PackageRequestError> {
        let (rest, version) = match text.split_once('=') {
            Some((rest, version)) => (rest, Some(version.to_owned())),
            None => (text, None),
        };
        let (name, suite) = match rest.split_once('/') {
            Some((name, suite)) => (name, Some(suite.to_owned())),
            None => (rest, None),
        };
        let suite_ok = suite.as_deref().is_none_or(|suite| !suite.is_empty() && !suite.contains('/'));
        let version_ok = version.as_deref().is_none_or(|version| !version.is_empty() && !version.contains([' ', '/']));
        if !is_package_name(name) || !suite_ok || !version_ok {
            return Err(PackageRequestError(text.to_owned()));
        }
        Ok(Self { name: name.to_owned(), suite, version })
    }
}

impl fmt::Display for PackageRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(suite) = &self.suite {
            write!(f, "/{suite}")?;
        }
        if let Some(version) = &self.version {
            write!(f, "={version}")?;
        }
        Ok(())
    }
}

impl Serialize for PackageRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackageRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for PackageRequest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PackageRequest".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9+.-]+(/[^/=]+)?(=[^ /]+)?$" })
    }
}
