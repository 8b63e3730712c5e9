//! The three fields of the control file that say which package this is (Debian Policy 5.3).

use std::io::Read as _;

use super::error::DebError;

pub(super) struct Fields {
    pub(super) package: String,
    pub(super) version: String,
    pub(super) architecture: String,
}

/// A control file larger than this is no control file.
const MAX_CONTROL: u64 = 1 << 20;

/// Finds `control` in the decoded control archive and reads it.
pub(super) fn fields(archive: &[u8]) -> Result<Fields, DebError> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().map_err(DebError::Tar)? {
        let entry = entry.map_err(DebError::Tar)?;
        if !matches!(entry.path_bytes().as_ref(), b"./control" | b"control") {
            continue;
        }
        let mut text = String::new();
        entry.take(MAX_CONTROL).read_to_string(&mut text).map_err(DebError::Tar)?;
        return Ok(Fields {
            package: field(&text, "Package")?,
            version: field(&text, "Version")?,
            architecture: field(&text, "Architecture")?,
        });
    }
    Err(DebError::Control("Package"))
}

fn field(text: &str, name: &'static str) -> Result<String, DebError> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .filter(|value| !value.is_empty())
        .ok_or(DebError::Control(name))
}
