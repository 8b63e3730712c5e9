//! A strict reader of Debian binary packages (deb(5), format 2.0).
//!
//! What a package may hold is narrower than what the formats can express: anything that could lead outside the tree, lie
//! about its size or leave two readings is refused. Reading never panics and never takes more memory than `MAX_UNPACKED`.

mod archive;
mod codec;
mod control;
mod entries;
mod error;
mod path;
mod pax;
mod repack;

pub use codec::{MAX_RATIO, MAX_UNPACKED};
pub(crate) use codec::{decode_gzip, decode_xz, decode_zstd};
pub use control::{Control, SCRIPTS};
pub use error::DebError;
pub(crate) use path::clean_target;

use crate::content::Content;
use crate::tree::Xattrs;

/// A decoded package.
#[derive(Clone, Debug)]
pub struct Package {
    /// `Package` of the control file.
    pub name: String,
    /// `Version` of the control file.
    pub version: String,
    /// `Architecture` of the control file.
    pub architecture: String,
    /// The control file and the maintainer scripts.
    pub control: Control,
    /// What is unpacked, in the order of the archive. Paths are unique.
    pub entries: Vec<Entry>,
}

/// One member of a package's data archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes, without a leading `/`; empty for the root directory.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-uid, set-gid and sticky: at most 0o7777.
    pub mode: u16,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Extended attributes by their full names, from `SCHILY.xattr` records of the archive.
    pub xattrs: Xattrs,
}

/// What an entry is. Devices, FIFOs and sparse files are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link with this target, which does not climb above the root.
    Symlink(String),
    /// Another name of the regular file at this path, which comes earlier in the same package.
    HardLink(String),
}

/// Decodes the bytes of a .deb file.
pub fn read(deb: &[u8]) -> Result<Package, DebError> {
    let members = archive::members(deb)?;
    package(members, codec::decode(members.data)?)
}

/// The same, and the package packed anew: `read` makes the same of both, of the second in a tenth of the time.
pub fn read_and_repack(deb: &[u8]) -> Result<(Package, Vec<u8>), DebError> {
    let members = archive::members(deb)?;
    let data = codec::decode(members.data)?;
    let repacked = repack::repack(members.control, &data)
        .map_err(|source| DebError::Codec { member: members.data.name.to_owned(), source })?;
    Ok((package(members, data)?, repacked))
}

fn package(members: archive::Members<'_>, data: Vec<u8>) -> Result<Package, DebError> {
    let control = Control::read(&codec::decode(members.control)?)?;
    let (name, version) = (control.required("Package")?, control.required("Version")?);
    let architecture = control.required("Architecture")?;
    Ok(Package { name, version, architecture, control, entries: entries::read(data)? })
}

/// Decodes what the bytes of a .deb file say about the package, and not its files.
pub fn read_control(deb: &[u8]) -> Result<Control, DebError> {
    Control::read(&codec::decode(archive::members(deb)?.control)?)
}
