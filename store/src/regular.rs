//! Reading files that somebody else put there: regular ones only, without waiting for a pipe, and not beyond the size they
//! had when they were opened.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256, Sha384};
use spec::{Sha256Digest, Sha384Digest};

const READ_BYTES: usize = 256 << 10;

/// Opens a regular file for reading, and refuses anything else without waiting: open(2) of a pipe would block until
/// somebody writes to it.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// The size and SHA-256 of a regular file, read piece by piece: however large it is, little memory is enough. Anything
/// else, such as a pipe or a device, is an error.
pub fn hash_file(path: &Path) -> io::Result<(u64, Sha256Digest)> {
    let file = open_regular(path)?;
    // As long as it is now, so that a file that grows for ever has an end.
    let length = file.metadata()?.len();
    hash(file.take(length))
}

/// The SHA-384 of a regular file beside its size and SHA-256, in one pass and as carefully as `hash_file`.
pub fn hash_file_384(path: &Path) -> io::Result<(u64, Sha256Digest, Sha384Digest)> {
    let file = open_regular(path)?;
    let length = file.metadata()?.len();
    let (mut sha256, mut sha384) = (Sha256::new(), Sha384::new());
    let size = each_piece(file.take(length), |piece| {
        sha256.update(piece);
        sha384.update(piece);
    })?;
    Ok((size, Sha256Digest(sha256.finalize().into()), Sha384Digest(sha384.finalize().into())))
}

/// The size and SHA-256 of all that `file` gives.
pub(crate) fn hash(file: impl Read) -> io::Result<(u64, Sha256Digest)> {
    let mut hasher = Sha256::new();
    let size = each_piece(file, |piece| hasher.update(piece))?;
    Ok((size, Sha256Digest(hasher.finalize().into())))
}

/// Hands `file` on piece by piece, and gives its size.
fn each_piece(mut file: impl Read, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(read) => {
                take(buffer.get(..read).unwrap_or_default());
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
