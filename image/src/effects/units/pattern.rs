//! Patterns of preset files: fnmatch(3) as systemd calls it, without a meaning for backslashes (FNM_NOESCAPE).
//!
//! Names of units are ASCII (systemd.unit(5)), so bytes are characters, and ranges are those of the C locale, in which PID 1 runs.

/// A pattern in its parts.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    /// `*`
    Star,
    /// `?`
    Any,
    One(u8),
    /// `[a-z_[:digit:]]`, or with `!` or `^` first all other characters.
    Set {
        others: bool,
        members: Vec<Member>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Member {
    Range(u8, u8),
    Class(fn(&u8) -> bool),
}

impl Pattern {
    /// Reads a pattern; `None` where it has what only a locale knows (`[=a=]`, `[.a.]`), or a class that there is not.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.as_bytes();
        let mut parts = Vec::new();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            parts.push(match first {
                b'*' => Part::Star,
                b'?' => Part::Any,
                b'[' => match set(after)? {
                    Some((part, after)) => {
                        rest = after;
                        part
                    }
                    None => Part::One(b'['),
                },
                one => Part::One(*one),
            });
        }
        Some(Self(parts))
    }

    /// Whether a name fits.
    pub(super) fn fits(&self, name: &str) -> bool {
        let (parts, name) = (&self.0, name.as_bytes());
        let (mut at, mut in_name) = (0, 0);
        // Where the last `*` was, and how much of the name it stands for so far.
        let mut star: Option<(usize, usize)> = None;
        while let Some(c) = name.get(in_name) {
            match (parts.get(at), star) {
                (Some(Part::Star), _) => {
                    star = Some((at, in_name));
                    at += 1;
                }
                (Some(part), _) if part.fits(*c) => (at, in_name) = (at + 1, in_name + 1),
                (_, Some((last, taken))) => {
                    star = Some((last, taken + 1));
                    (at, in_name) = (last + 1, taken + 1);
                }
                _ => return false,
            }
        }
        parts.get(at..).unwrap_or_default().iter().all(|part| matches!(part, Part::Star))
    }
}

impl Part {
    fn fits(&self, c: u8) -> bool {
        match self {
            Self::Star | Self::Any => true,
            Self::One(one) => *one == c,
            Self::Set { others, members } => {
                let is_in = |member: &Member| match member {
                    Member::Range(low, high) => (*low..=*high).contains(&c),
                    Member::Class(has) => has(&c),
                };
                members.iter().any(is_in) != *others
            }
        }
    }
}

/// A set and what comes after it; `Some(None)` where nothing closes it, and the bracket means itself.
#[allow(clippy::option_option, reason = "not a set, and not understood, are two answers")]
fn set(text: &[u8]) -> Option<Option<(Part, &[u8])>> {
    let (others, mut rest) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut members = Vec::new();
    loop {
        let member = match rest {
            // A bracket that comes first is a member.
            [b']', after @ ..] if !members.is_empty() => return Some(Some((Part::Set { others, members }, after))),
            [b'[', b':', after @ ..] => {
                let Some(end) = after.windows(2).position(|two| two == b":]") else { return Some(None) };
                let (name, after) = (after.get(..end)?, after.get(end + 2..)?);
                rest = after;
                Member::Class(class(name)?)
            }
            [b'[', b'=' | b'.', ..] => return None,
            [low, b'-', high, after @ ..] if *high != b']' => {
                // The end of a range that only a locale knows.
                if *high == b'[' && matches!(after.first(), Some(b'=' | b'.' | b':')) {
                    return None;
                }
                rest = after;
                Member::Range(*low, *high)
            }
            [one, after @ ..] => {
                rest = after;
                Member::Range(*one, *one)
            }
            [] => return Some(None),
        };
        members.push(member);
    }
}

fn class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |c| matches!(c, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |c| matches!(c, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |c| matches!(c, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_those_of_fnmatch() {
        for (pattern, name, fits) in [
            ("a.service", "a.service", true),
            ("*", "x", true),
            ("systemd-journal-remote.*", "systemd-journal-remote.socket", true),
            ("*.service", "a.socket", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("q?.service", "q1.service", true),
            ("q?.service", "q.service", false),
            ("", "", true),
            ("a", "", false),
            ("q[0-46].service", "q6.service", true),
            ("q[0-46].service", "q5.service", false),
            ("q[!0-4]", "q5", true),
            ("q[^0-4]", "q3", false),
            ("q[]-]", "q]", true),
            ("q[a-]", "q-", true),
            ("q[", "q[", true),
            ("q[ab", "qa", false),
            ("*[[:digit:]x]", "tty1", true),
            ("*[[:digit:]x]", "ttyS", false),
            ("q\\[a]", "q\\a", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(name), fits, "{pattern} {name}");
        }
        for not_understood in ["[[=a=]]", "[[.a.]]", "[[:digits:]]"] {
            assert!(Pattern::parse(not_understood).is_none(), "{not_understood}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_read_or_refused(pattern in "[a-c\\[\\]!^:=.*?-]{0,20}", name in "[a-c.-]{0,10}") {
            if let Some(pattern) = Pattern::parse(&pattern) {
                pattern.fits(&name);
            }
        }
    }
}
