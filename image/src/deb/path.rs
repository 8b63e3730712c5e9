//! Paths and link targets inside packages, and which of them are refused.

use super::error::DebError;

/// The longest path and the longest name (Linux PATH_MAX, NAME_MAX).
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;

/// `./a/b` or `./a/b/` to `a/b`; the root directory to the empty string.
pub(super) fn clean(raw: &[u8]) -> Result<String, DebError> {
    let refuse = |reason: &str| DebError::entry(raw, reason);
    let text = std::str::from_utf8(raw).map_err(|_| refuse("does not have a name in UTF-8"))?;
    if text.starts_with('/') {
        return Err(refuse("has an absolute path"));
    }
    if text.bytes().any(|c| c.is_ascii_control()) {
        return Err(refuse("has a control character in its path"));
    }
    let text = text.strip_suffix('/').unwrap_or(text);
    let text = if text == "." { "" } else { text.strip_prefix("./").unwrap_or(text) };
    if text.len() > MAX_PATH {
        return Err(refuse("has a path that is too long"));
    }
    for part in text.split('/').filter(|_| !text.is_empty()) {
        match part {
            "" | "." => return Err(refuse("has a path with an empty part")),
            ".." => return Err(refuse("has a path that climbs with \"..\"")),
            _ if part.len() > MAX_NAME => return Err(refuse("has a name that is too long")),
            _ => {}
        }
    }
    Ok(text.to_owned())
}

/// Checks the target of the symbolic link at `path`: absolute targets stay inside the tree when it is a root file system;
/// relative ones must not climb above its root. `None` where the target is refused.
pub(crate) fn clean_target(path: &str, target: &str) -> Option<()> {
    if target.is_empty() || target.len() > MAX_PATH || target.bytes().any(|c| c.is_ascii_control()) {
        return None;
    }
    let mut depth = if target.starts_with('/') { 0 } else { path.matches('/').count() };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.checked_sub(1)?,
            _ => depth += 1,
        }
    }
    Some(())
}
