//! A kernel command line as slips of hand and script leave it: what explaining a wrong digest tries first.

use alloc::borrow::Cow;
use alloc::vec::Vec;

/// A command line, and how it differs from the expected one; `None` for that one itself.
pub(crate) type Variant<'a> = (Option<&'static str>, Cow<'a, [u8]>);

/// The line itself first, then its variants; each line once.
pub(crate) fn variants(line: &[u8]) -> Vec<Variant<'_>> {
    let with = |before: &[u8], after: &[u8]| Cow::Owned([before, line, after].concat());
    let candidates = [
        (None, Cow::Borrowed(line)),
        (Some("without blanks at its ends"), Cow::Borrowed(line.trim_ascii())),
        (Some("without blanks at its end"), Cow::Borrowed(line.trim_ascii_end())),
        (Some("with a newline at its end"), with(b"", b"\n")),
        (Some("with a blank at its end"), with(b"", b" ")),
        (Some("with a blank at its start"), with(b" ", b"")),
        (Some("in double quotes"), with(b"\"", b"\"")),
        (Some("empty"), Cow::Borrowed(&b""[..])),
    ];
    let mut lines: Vec<Variant<'_>> = Vec::new();
    for candidate in candidates {
        if !lines.iter().any(|(_, known)| *known == candidate.1) {
            lines.push(candidate);
        }
    }
    lines
}
