//! Pax records before an entry of a tar file (POSIX.1-2017, pax, "pax Extended Header"): only for extended attributes, whose
//! values are bytes. The crate `tar` reads records line by line, so that one with a newline in it hides those that follow; and
//! entries are found here by the sizes in their headers, which a record would overrule.

use std::collections::BTreeMap;
use std::ops::Range;

use tar::EntryType;

use super::error::DebError;
use crate::erofs::is_known;
use crate::tree::Xattrs;

/// What GNU tar and star put before the name of an extended attribute (star(1), "SCHILY.xattr").
const XATTR: &[u8] = b"SCHILY.xattr.";
/// Records that say what and where an entry is, and whose: read by the crate.
const PLACES: [&[u8]; 4] = [b"path", b"linkpath", b"uid", b"gid"];
/// The record that moves whatever follows.
const SIZE: &[u8] = b"size";

/// Where the records of the entry are whose header is at a position.
pub(super) type Records = BTreeMap<u64, Range<usize>>;

/// Finds the records of all entries.
pub(super) fn find(data: &[u8]) -> Result<Records, DebError> {
    let mut records = Records::new();
    let mut waiting = None;
    for entry in tar::Archive::new(data).entries().map_err(DebError::Tar)?.raw(true) {
        let entry = entry.map_err(DebError::Tar)?;
        match entry.header().entry_type() {
            EntryType::XHeader => {
                let start = usize::try_from(entry.raw_file_position()).unwrap_or(usize::MAX);
                waiting = Some(start..start.saturating_add(usize::try_from(entry.size()).unwrap_or(usize::MAX)));
            }
            EntryType::GNULongName | EntryType::GNULongLink => {}
            _ => drop(waiting.take().map(|range| records.insert(entry.raw_header_position(), range))),
        }
    }
    Ok(records)
}

/// The extended attributes in the records of the entry at `path`.
pub(super) fn xattrs(path: &[u8], records: &[u8]) -> Result<Xattrs, DebError> {
    let refuse = |reason: &str| DebError::entry(path, reason);
    let mut xattrs = Xattrs::new();
    let mut has_newline = false;
    let by_line = |keys: &'static [&'static [u8]]| records.split(|byte| *byte == b'\n').any(|line| says(line, keys));
    // No file of a package needs it: a header says up to 8 GiB.
    if by_line(&[SIZE]) {
        return Err(refuse("has its size in a pax record"));
    }
    let mut says_place = by_line(&PLACES);
    let mut rest = records;
    while !rest.is_empty() {
        let (key, value, after) = record(rest).ok_or_else(|| refuse("has damaged pax records"))?;
        has_newline |= value.contains(&b'\n');
        if key == SIZE {
            return Err(refuse("has its size in a pax record"));
        }
        says_place |= PLACES.contains(&key);
        if let Some(name) = key.strip_prefix(XATTR) {
            let name = std::str::from_utf8(name).ok().filter(|name| is_known(name));
            let name = name.ok_or_else(|| refuse("has an extended attribute that Linux does not know"))?;
            if xattrs.insert(name.to_owned(), value.to_vec()).is_some() {
                return Err(refuse("has an extended attribute twice"));
            }
        }
        rest = after;
    }
    if has_newline && says_place {
        return Err(refuse("has pax records that can be read in two ways"));
    }
    Ok(xattrs)
}

/// Whether the crate, which looks at no length, takes a line for a record of one of these.
fn says(line: &[u8], keys: &[&[u8]]) -> bool {
    let blank = line.iter().position(|byte| *byte == b' ');
    let field = blank.and_then(|blank| line.get(blank + 1..)).unwrap_or_default();
    keys.iter().any(|key| field.strip_prefix(*key).is_some_and(|rest| rest.starts_with(b"=")))
}

/// `LENGTH KEY=VALUE` and a newline, and what follows.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = text.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(text.get(..blank)?).ok()?.parse().ok()?;
    let (whole, after) = text.split_at_checked(length)?;
    let field = whole.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = field.iter().position(|byte| *byte == b'=')?;
    Some((field.get(..equals)?, field.get(equals + 1..)?, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_bytes_and_nothing_is_read_in_two_ways() {
        let of = |records: &[u8]| xattrs(b"x", records);
        assert_eq!(of(b"23 SCHILY.xattr.user.a=\n\n").unwrap_err().to_string(), of(b"1").unwrap_err().to_string());
        let found = of(b"26 SCHILY.xattr.user.a=\n\0\n11 mtime=0\n").unwrap();
        assert_eq!(found, [("user.a".to_owned(), b"\n\0".to_vec())].into());
        let twice = of(b"26 SCHILY.xattr.user.a=\n\0\n9 path=y\n").unwrap_err();
        assert!(twice.to_string().contains("two ways"), "{twice}");
        // A record within a value: nothing here, a place to the crate.
        for inner in ["9 path=y", "7 uid=0", "7 gid=0", "x linkpath=y"] {
            let field = format!("SCHILY.xattr.user.a=x\n{inner}\n");
            let error = of(format!("{} {field}", field.len() + 3).as_bytes()).unwrap_err();
            assert!(error.to_string().contains("two ways"), "{inner}: {error}");
        }
        assert!(of(b"9 path=y\n8 uid=0\n").is_ok(), "one way of reading them");
        for size in [&b"12 size=1024\n"[..], b"30 SCHILY.xattr.user.a=\n size=9\n"] {
            assert!(of(size).unwrap_err().to_string().contains("its size in a pax record"));
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), length in 0usize..90) {
            let _ = xattrs(b"x", &bytes);
            let _ = xattrs(b"x", &[format!("{length} a=").as_bytes(), &bytes].concat());
            let _ = find(&bytes);
        }
    }
}
