//! A small strict reader of `newc` archives.

use crate::cpio::{HEADER, MAGIC, TRAILER};

/// Bytes that are not a `newc` archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a readable cpio archive at byte {offset}: {reason}")]
pub struct CpioReadError {
    /// Where.
    pub offset: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadEntry<'a> {
    pub(super) path: &'a str,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) time: u32,
    pub(super) device: (u32, u32),
    pub(super) content: &'a [u8],
}

pub(super) fn read(archive: &[u8]) -> Result<Vec<ReadEntry<'_>>, CpioReadError> {
    let mut entries = Vec::new();
    let mut offset = 0;
    loop {
        let error = |reason| CpioReadError { offset, reason };
        let (entry, end) = entry_at(archive, offset).ok_or_else(|| error("the entry is damaged or cut short"))?;
        if entry.path == TRAILER {
            let rest = archive.get(end..).unwrap_or_default();
            return if rest.iter().all(|byte| *byte == 0) {
                Ok(entries)
            } else {
                Err(error("something follows the end"))
            };
        }
        entries.push(entry);
        offset = end;
    }
}

/// The entry at `offset` and the offset of the next.
fn entry_at(archive: &[u8], offset: usize) -> Option<(ReadEntry<'_>, usize)> {
    let header = archive.get(offset..)?.get(..HEADER)?;
    let digits = header.strip_prefix(MAGIC)?;
    let field = |index: usize| {
        let text = std::str::from_utf8(digits.get(index * 8..index * 8 + 8)?).ok()?;
        text.bytes().all(|c| c.is_ascii_hexdigit()).then_some(text)?;
        u32::from_str_radix(text, 16).ok()
    };
    let length = |index: usize| field(index).and_then(|length| usize::try_from(length).ok());
    let name_start = offset + HEADER;
    let name_end = name_start.checked_add(length(11)?)?;
    let name = archive.get(name_start..name_end)?.strip_suffix(&[0])?;
    let content_start = name_end.checked_next_multiple_of(4)?;
    let content_end = content_start.checked_add(length(6)?)?;
    let entry = ReadEntry {
        path: std::str::from_utf8(name).ok()?,
        mode: field(1)?,
        uid: field(2)?,
        gid: field(3)?,
        links: field(4)?,
        time: field(5)?,
        device: (field(9)?, field(10)?),
        content: archive.get(content_start..content_end)?,
    };
    Some((entry, content_end.checked_next_multiple_of(4)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio::{Entry, write_newc};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(files in proptest::collection::btree_map("[a-z/]{1,40}", proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
            let mut archive = Vec::new();
            let entries = files.iter().map(|(path, content)| Entry { path, mode: 0o100_644, device: (0, 0), content });
            write_newc(&mut archive, entries).unwrap();
            let read = read(&archive).unwrap();
            prop_assert_eq!(read.len(), files.len());
            for (entry, (path, content)) in read.iter().zip(&files) {
                prop_assert_eq!((entry.path, entry.content), (path.as_str(), content.as_slice()));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..110, byte in any::<u8>()) {
            let _ = read(&bytes);
            let mut archive = Vec::new();
            write_newc(&mut archive, [Entry { path: "a", mode: 0, device: (0, 0), content: &bytes }]).unwrap();
            archive[at] = byte;
            let _ = read(&archive);
        }
    }
}
