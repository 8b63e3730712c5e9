//! Relations between packages (Debian Policy 7.1): `libc6 (>= 2.41), awk | mawk, python3:any`.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

use std::cmp::Ordering;
use std::fmt;

use crate::version::compare;

/// Text that is not a relation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a relation between packages")]
pub struct RelationError(pub String);

/// How two versions must relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operator {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

/// One package name with what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Relation<'a> {
    /// The name of a package, real or virtual.
    pub name: &'a str,
    /// What stands after the colon: `any` or an architecture.
    pub architecture: Option<&'a str>,
    /// The versions asked for.
    pub version: Option<(Operator, &'a str)>,
}

/// Alternatives: one of them is enough.
pub(crate) type Alternatives<'a> = Vec<Relation<'a>>;

/// Reads the value of a relation field: all of the alternatives must hold. Empty text is an empty list.
pub(crate) fn parse(text: &str) -> Result<Vec<Alternatives<'_>>, RelationError> {
    let groups = text.split(',').map(str::trim).filter(|group| !group.is_empty());
    groups.map(|group| group.split('|').map(|one| one_relation(one.trim())).collect()).collect()
}

fn one_relation(text: &str) -> Result<Relation<'_>, RelationError> {
    let error = || RelationError(text.to_owned());
    let (name, rest) = text.split_at(text.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(text.len()));
    let (name, architecture) = match name.split_once(':') {
        Some((name, architecture)) => (name, Some(architecture)),
        None => (name, None),
    };
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric())
            && word.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
    };
    if !is_word(name) || architecture.is_some_and(|architecture| !is_word(architecture)) {
        return Err(error());
    }
    let version = match rest.trim() {
        "" => None,
        rest => {
            let inner = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(error)?;
            Some(version_clause(inner.trim()).ok_or_else(error)?)
        }
    };
    Ok(Relation { name, architecture, version })
}

fn version_clause(text: &str) -> Option<(Operator, &str)> {
    let (operator, version) = text.split_at(text.find(|c: char| !"<=>".contains(c))?);
    let operator = match operator {
        "<<" => Operator::Earlier,
        // `<` and `>` are the obsolete spellings of "or equal" (Debian Policy 7.1).
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return None,
    };
    let version = version.trim();
    (!version.is_empty() && !version.contains(char::is_whitespace)).then_some((operator, version))
}

impl Relation<'_> {
    /// Whether a real package of this version is what is asked for.
    pub(crate) fn accepts(&self, version: &str) -> bool {
        let Some((operator, wanted)) = self.version else { return true };
        let order = compare(version, wanted);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }

    /// Whether something provided, with or without a version, is what is asked for. What is provided without a version
    /// satisfies no relation that names one (Debian Policy 7.5).
    pub(crate) fn accepts_provided(&self, version: Option<&str>) -> bool {
        version.map_or(self.version.is_none(), |version| self.accepts(version))
    }

    /// Whether the relation speaks of packages that run on `architecture`. With `any`, which packages it means is for
    /// them to say (`Multi-Arch: allowed`).
    pub(crate) fn is_for(&self, architecture: &str) -> bool {
        self.architecture.is_none_or(|asked| asked == "any" || asked == architecture)
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Earlier => "<<",
            Self::EarlierOrEqual => "<=",
            Self::Equal => "=",
            Self::LaterOrEqual => ">=",
            Self::Later => ">>",
        })
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(architecture) = self.architecture {
            write!(f, ":{architecture}")?;
        }
        match self.version {
            Some((operator, version)) => write!(f, " ({operator} {version})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn relations_of_real_packages() {
        let text =
            "dracut | initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, kmod,perl:any(>=5),\n libc6 (<<2)";
        let read = parse(text).unwrap();
        let written: Vec<Vec<String>> =
            read.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(
            written,
            [
                vec!["dracut", "initramfs-tools (>= 0.120+deb8u2)", "linux-initramfs-tool"],
                vec!["kmod"],
                vec!["perl:any (>= 5)"],
                vec!["libc6 (<< 2)"],
            ]
        );
        assert_eq!(parse(" \n").unwrap(), Vec::<Alternatives<'_>>::new());
        for bad in ["a |", "a (1)", "a (>= )", "a (>= 1", "a b", "-a", "a:", "a (~ 1)", "ä"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_operator_means_what_policy_says() {
        let accepted = |text: &str| {
            let relation = one_relation(text).unwrap();
            ["1", "2", "3"].map(|version| relation.accepts(version))
        };
        assert_eq!(accepted("a (<< 2)"), [true, false, false]);
        assert_eq!(accepted("a (<= 2)"), [true, true, false]);
        assert_eq!(accepted("a (= 2)"), [false, true, false]);
        assert_eq!(accepted("a (>= 2)"), [false, true, true]);
        assert_eq!(accepted("a (>> 2)"), [false, false, true]);
        assert_eq!(accepted("a"), [true, true, true]);
        assert!(one_relation("a").unwrap().accepts_provided(None));
        assert!(!one_relation("a (>= 1)").unwrap().accepts_provided(None));
        assert!(one_relation("a (>= 1)").unwrap().accepts_provided(Some("2")));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_written_back(text in "[a-c:()<>=~ ,|0-2.+-]{0,30}", noise in ".{0,40}") {
            for text in [&text, &noise] {
                if let Ok(groups) = parse(text) {
                    let written: Vec<String> = groups.iter().map(|group| group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")).collect();
                    let joined = written.join(", ");
                    prop_assert_eq!(parse(&joined).unwrap(), groups);
                }
            }
        }
    }
}
