//! Extended attributes as they follow an inode: `struct erofs_xattr_ibody_header` and the entries (Linux 6.12 fs/erofs/erofs_fs.h).
//!
//! Each inode has its own: entries that several inodes share would save little, as hardly any file has one.

use crate::little_endian::u16_at;
use crate::tree::Xattrs;

/// `struct erofs_xattr_ibody_header` without shared entries: all zeros.
const HEADER: usize = 12;
/// `struct erofs_xattr_entry` without name and value; also what each entry is padded to.
const ENTRY: usize = 4;
/// The prefixes that stand as a number before a name (EROFS_XATTR_INDEX_*). Two of them are whole names.
const PREFIXES: [(u8, &str); 5] =
    [(1, "user."), (2, "system.posix_acl_access"), (3, "system.posix_acl_default"), (4, "trusted."), (6, "security.")];

/// Whether an attribute of this name can be stored.
pub(crate) fn is_known(name: &str) -> bool {
    parts(name).is_some()
}

/// The number of the prefix and the rest of the name.
fn parts(name: &str) -> Option<(u8, &str)> {
    PREFIXES.iter().find_map(|(index, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        (rest.is_empty() != prefix.ends_with('.')).then_some((*index, rest))
    })
}

/// What follows the inode: nothing for no attributes. `None` where a name or a size is none that the format has.
pub(super) fn encode(xattrs: &Xattrs) -> Option<Vec<u8>> {
    if xattrs.is_empty() {
        return Some(Vec::new());
    }
    let mut out = vec![0; HEADER];
    for (name, value) in xattrs {
        let (index, name) = parts(name)?;
        out.extend([u8::try_from(name.len()).ok()?, index]);
        out.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(ENTRY), 0);
    }
    (size(u16::MAX) >= out.len()).then_some(out)
}

/// `i_xattr_icount` for so many bytes as `encode` made.
pub(super) fn count(length: usize) -> u16 {
    let entries = length.checked_sub(HEADER).map_or(0, |rest| 1 + rest / ENTRY);
    u16::try_from(entries).unwrap_or(u16::MAX)
}

/// How many bytes `i_xattr_icount` stands for.
pub(super) fn size(count: u16) -> usize {
    count.checked_sub(1).map_or(0, |rest| HEADER + usize::from(rest) * ENTRY)
}

/// Reads back what `encode` made. `None` where it is damaged, or shares entries with other inodes.
pub(super) fn decode(body: &[u8]) -> Option<Xattrs> {
    let mut xattrs = Xattrs::new();
    if body.is_empty() {
        return Some(xattrs);
    }
    let (header, mut rest) = body.split_at_checked(HEADER)?;
    header.get(4).filter(|shared| **shared == 0)?;
    while let [length, index, ..] = *rest {
        let value_size = usize::from(u16_at(rest, 2)?);
        let (length, end) = (usize::from(length), ENTRY + usize::from(length) + value_size);
        let name = std::str::from_utf8(rest.get(ENTRY..ENTRY + length)?).ok()?;
        let prefix = PREFIXES.iter().find(|(known, _)| *known == index)?.1;
        let value = rest.get(ENTRY + length..end)?.to_vec();
        if xattrs.insert(format!("{prefix}{name}"), value).is_some() {
            return None;
        }
        rest = rest.get(end.next_multiple_of(ENTRY)..)?;
    }
    Some(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn attributes_come_back(xattrs in proptest::collection::btree_map("(user|trusted|security)\\.[a-z]{1,20}", proptest::collection::vec(any::<u8>(), 0..90), 0..5)) {
            let body = encode(&xattrs).unwrap();
            prop_assert_eq!(size(count(body.len())), body.len());
            prop_assert_eq!(decode(&body), Some(xattrs));
        }

        #[test]
        fn foreign_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&body);
        }
    }

    #[test]
    fn names_that_linux_does_not_know_are_refused() {
        let with = |name: &str| encode(&Xattrs::from([(name.to_owned(), vec![1])]));
        for name in ["user.a", "security.capability", "trusted.x", "system.posix_acl_access"] {
            assert!(with(name).is_some(), "{name}");
        }
        for name in ["user.", "user", "", "system.other", "system.posix_acl_access.x", "os2.x"] {
            assert!(with(name).is_none(), "{name}");
        }
        assert!(encode(&Xattrs::from([("user.a".to_owned(), vec![0; 70_000])])).is_none());
    }
}
