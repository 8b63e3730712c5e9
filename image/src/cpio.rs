//! The `newc` cpio format of the initial RAM disk (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Inode numbers count from 1 in the order of writing and times are 0, so that the same entries give the same bytes.
//! The reader of the same format, for comparing images, is in `compare`.

use std::io::{self, Write};

/// One entry of an archive.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its path, without a leading `/`.
    pub path: &'a str,
    /// Type and permissions, as `st_mode` has them.
    pub mode: u32,
    /// The device it stands for, major and minor; zeros for all but devices.
    pub device: (u32, u32),
    /// The content of a file or the target of a link.
    pub content: &'a [u8],
}

/// The name of the entry that ends an archive.
pub const TRAILER: &str = "TRAILER!!!";
/// What every header starts with.
pub const MAGIC: &[u8; 6] = b"070701";
/// The length of a header in bytes.
pub const HEADER: usize = 110;

/// Writes a whole archive. All entries belong to root. Fails where `out` does, and for content of 4 GiB or more.
pub fn write_newc<'a>(out: &mut impl Write, entries: impl IntoIterator<Item = Entry<'a>>) -> io::Result<()> {
    let mut inode = 0;
    for entry in entries {
        inode += 1;
        write_entry(out, inode, &entry)?;
    }
    write_entry(out, 0, &Entry { path: TRAILER, mode: 0, device: (0, 0), content: &[] })
}

fn write_entry(out: &mut impl Write, inode: u32, entry: &Entry<'_>) -> io::Result<()> {
    let length = |length: usize| u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let (major, minor) = entry.device;
    let name_length = entry.path.len() + 1;
    let links = 1;
    let fields =
        [inode, entry.mode, 0, 0, links, 0, length(entry.content.len())?, 0, 0, major, minor, length(name_length)?, 0];
    out.write_all(MAGIC)?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(entry.path.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, HEADER + name_length)?;
    out.write_all(entry.content)?;
    pad(out, entry.content.len())
}

/// Zeros up to a multiple of four.
fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    out.write_all([0; 3].get(..written.next_multiple_of(4) - written).unwrap_or_default())
}
