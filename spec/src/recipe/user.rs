//! `[[user]]`, and the owners of files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `[[user]]`: a user of the image, with a group of the same name and number unless another is named. There is no password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// The name: lower-case letters, digits, `_` and `-`.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The name of the main group, which is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Further groups, which are there already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The home directory, which is not made: add it with `[[rootfs.directory]]`.
    #[serde(default = "no_home")]
    pub home: String,
    /// The shell; without it, nobody can log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Numbers that the user may give to what runs in its name, for `/etc/subuid` and `/etc/subgid`: `"FIRST:COUNT"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subordinate: Option<NumberRange>,
}

fn no_home() -> String {
    "/nonexistent".to_owned()
}

/// Numbers of users or groups, written `FIRST:COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct NumberRange {
    /// The first.
    pub first: u32,
    /// How many, at least one.
    pub count: u32,
}

/// The owner of a file: a user and a group, by name or number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct Owner {
    /// The user.
    pub user: String,
    /// The group; the user's name where it was not given.
    pub group: String,
}

impl FromStr for NumberRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
        let parts = text.split_once(':').and_then(|(first, count)| Some((number(first)?, number(count)?)));
        match parts {
            Some((first, count)) if count > 0 && first.checked_add(count).is_some() => Ok(Self { first, count }),
            _ => Err(format!("\"{text}\" is not a range of numbers: write FIRST:COUNT, such as \"100000:65536\"")),
        }
    }
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = text.split_once(':').unwrap_or((text, text));
        match [user, group].iter().all(|name| is_account(name)) {
            true => Ok(Self { user: user.to_owned(), group: group.to_owned() }),
            false => Err(format!("\"{text}\" is not an owner: write USER or USER:GROUP, by name or number")),
        }
    }
}

/// Whether a text can name a user or group in passwd(5).
pub(super) fn is_account(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_-".contains(&c))
}

impl fmt::Display for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.first, self.count)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.user, self.group)
    }
}

macro_rules! as_text {
    ($name:ty) => {
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}
as_text!(NumberRange);
as_text!(Owner);
