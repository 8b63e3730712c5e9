//! allow.toml: exceptions to the rules about tracked files, each with its reason.
//!
//! An exception that nothing needs any more is a finding too, so that the list only ever holds what is true.

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allowances {
    #[serde(default)]
    pub(crate) allow: Vec<Allowance>,
}

/// One exception.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allowance {
    /// The file, below the root of the workspace.
    pub(crate) file: String,
    /// Which rule it may break: `path`, `host`, `size` or `binary`.
    pub(crate) rule: String,
    /// Why.
    pub(crate) reason: String,
}

impl Allowances {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parsed: Self = toml::from_str(text).map_err(|error| format!("allow.toml: {error}"))?;
        match parsed.allow.iter().find(|allowance| allowance.reason.trim().len() < 10) {
            Some(bare) => Err(format!("allow.toml: the exception for {} gives no reason", bare.file)),
            None => Ok(parsed),
        }
    }

    /// The position of the exception for `rule` in `file`.
    pub(crate) fn find(&self, file: &str, rule: &str) -> Option<usize> {
        self.allow.iter().position(|allowance| allowance.file == file && allowance.rule == rule)
    }
}
