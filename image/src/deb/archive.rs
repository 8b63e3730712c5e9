//! The outer layer: an `ar` archive with exactly `debian-binary`, `control.tar*`, `data.tar*` (deb(5)).

use super::error::DebError;

/// The parts of a package, still compressed.
#[derive(Clone, Copy)]
pub(super) struct Members<'a> {
    pub(super) control: Member<'a>,
    pub(super) data: Member<'a>,
}

/// A member of the `ar` archive.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) name: &'a str,
    pub(super) bytes: &'a [u8],
}

pub(super) const MAGIC: &[u8] = b"!<arch>\n";
const HEADER: usize = 60;

pub(super) fn members(deb: &[u8]) -> Result<Members<'_>, DebError> {
    if !deb.starts_with(MAGIC) {
        return Err(damage(0, "it does not start with \"!<arch>\""));
    }
    let mut offset = MAGIC.len();
    let version = next(deb, &mut offset, "debian-binary")?;
    if version.name != "debian-binary" {
        return Err(DebError::Member { expected: "debian-binary", found: version.name.to_owned() });
    }
    // The minor number may grow; the major number may not (deb(5)).
    if !version.bytes.starts_with(b"2.") || !version.bytes.ends_with(b"\n") {
        return Err(damage(offset, "the format version is not 2"));
    }
    let control = named(next(deb, &mut offset, "control.tar")?, "control.tar")?;
    let data = named(next(deb, &mut offset, "data.tar")?, "data.tar")?;
    if offset < deb.len() {
        return Err(damage(offset, "something follows data.tar"));
    }
    Ok(Members { control, data })
}

fn named<'a>(member: Member<'a>, expected: &'static str) -> Result<Member<'a>, DebError> {
    match member.name.strip_prefix(expected) {
        Some("" | ".xz" | ".zst" | ".gz") => Ok(member),
        _ => Err(DebError::Member { expected, found: member.name.to_owned() }),
    }
}

/// Reads the member at `offset` and moves `offset` to the next.
fn next<'a>(deb: &'a [u8], offset: &mut usize, expected: &'static str) -> Result<Member<'a>, DebError> {
    let start = *offset;
    let rest = deb.get(start..).unwrap_or_default();
    if rest.is_empty() {
        return Err(DebError::Member { expected, found: "the end of the file".to_owned() });
    }
    let (header, rest) = rest.split_at_checked(HEADER).ok_or_else(|| damage(start, "the header is cut short"))?;
    if header.get(58..60) != Some(b"`\n") {
        return Err(damage(start, "the header has no end mark"));
    }
    let name = text(header.get(..16)).ok_or_else(|| damage(start, "the name is not text"))?;
    let size = text(header.get(48..58))
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()))
        .and_then(|digits| digits.parse::<usize>().ok())
        .ok_or_else(|| damage(start, "the size is not a number"))?;
    let bytes = rest.get(..size).ok_or_else(|| damage(start, "the member is larger than the file"))?;
    // Members start at even offsets; the last one may lack its padding byte.
    *offset = (start + HEADER + size).next_multiple_of(2).min(deb.len());
    Ok(Member { name: name.strip_suffix('/').unwrap_or(name), bytes })
}

/// An `ar` header field: ASCII, padded with spaces on the right.
fn text(field: Option<&[u8]>) -> Option<&str> {
    let text = std::str::from_utf8(field?).ok()?.trim_end_matches(' ');
    text.is_ascii().then_some(text)
}

fn damage(offset: usize, reason: &'static str) -> DebError {
    DebError::Archive { offset, reason }
}
