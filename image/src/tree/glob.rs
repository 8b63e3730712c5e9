//! The patterns of `rootfs.drop`: absolute, `*` matches within one name, a last part `**` means "with all below it".

use spec::{Diagnostic, Outcome};

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<String>,
    with_all_below: bool,
}

/// Text that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{pattern}\" in rootfs.drop {reason}")]
pub struct GlobError {
    /// The text.
    pub pattern: String,
    /// What is wrong.
    pub reason: &'static str,
}

impl Diagnostic for GlobError {
    fn outcome(&self) -> Outcome {
        Outcome::Usage
    }
    fn hint(&self) -> Option<String> {
        Some("write an absolute path such as \"/usr/share/doc/**\" or \"/etc/*.conf\"".to_owned())
    }
}

impl Glob {
    /// Reads a pattern.
    pub fn parse(pattern: &str) -> Result<Self, GlobError> {
        let refuse = |reason| GlobError { pattern: pattern.to_owned(), reason };
        let rest = pattern.strip_prefix('/').ok_or_else(|| refuse("does not start with \"/\""))?;
        let (rest, with_all_below) = rest.strip_suffix("/**").map_or((rest, false), |rest| (rest, true));
        let parts: Vec<String> = rest.split('/').map(str::to_owned).collect();
        if parts.iter().any(|part| matches!(part.as_str(), "" | "." | "..")) {
            return Err(refuse("has an empty part"));
        }
        if parts.iter().any(|part| part.contains("**")) {
            return Err(refuse("has \"**\" elsewhere than in the last place"));
        }
        Ok(Self { parts, with_all_below })
    }

    /// Whether `path` (without a leading `/`) matches.
    pub fn matches(&self, path: &str) -> bool {
        let mut names = path.split('/');
        let all = self.parts.iter().all(|part| names.next().is_some_and(|name| matches_name(part, name)));
        all && (self.with_all_below || names.next().is_none())
    }
}

/// `*` stands for any text. The first part of the pattern must start the name, the last must end it, and those between
/// are found from left to right: with `*` as the only wildcard the leftmost match is always good enough.
fn matches_name(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*').filter(|piece| !piece.is_empty()) {
        match name.split_once(piece) {
            Some((_, after)) => name = after,
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(path)
    }

    #[test]
    fn a_double_star_takes_the_directory_and_all_below() {
        for path in ["usr/share/doc", "usr/share/doc/a", "usr/share/doc/a/b"] {
            assert!(matches("/usr/share/doc/**", path), "{path}");
        }
        for path in ["usr/share", "usr/share/docs", "usr/share/doc-base", "x/usr/share/doc"] {
            assert!(!matches("/usr/share/doc/**", path), "{path}");
        }
    }

    #[test]
    fn a_star_stays_within_one_name() {
        assert!(matches("/etc/*.conf", "etc/a.conf"));
        assert!(!matches("/etc/*.conf", "etc/a.d/b.conf"));
        assert!(matches("/a/*b*b", "a/xbb"));
        assert!(!matches("/a/*b*b", "a/xb"));
        assert!(matches("/a/x*y*z", "a/xyyz"));
        assert!(!matches("/a/xy*yz", "a/xyz"));
        assert!(matches("/usr/share/locale/*/LC_MESSAGES/**", "usr/share/locale/de/LC_MESSAGES/x.mo"));
    }

    #[test]
    fn what_could_mean_two_things_is_refused() {
        for bad in ["usr", "/", "", "/a//b", "/a/../b", "/**/a", "/a**", "/**"] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
    }
}
