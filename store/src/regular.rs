//! Reading files that somebody else put there: regular ones only, without waiting for a pipe, and not beyond the size they
//! had when they were opened.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256, Sha384};
use spec::{Sha256Digest, Sha384Digest};

const READ_BYTES: usize = 256 << 10;
/// Files from this size on are read by one thread and hashed by another.
const AHEAD_BYTES: u64 = 2 << 20;
/// How many pieces are under way between the two.
const PIECES: usize = 3;

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
    if length < AHEAD_BYTES {
        return hash(file.take(length));
    }
    let mut hasher = Sha256::new();
    let size = read_ahead(file.take(length), |_| {}, |piece| hasher.update(piece))?;
    Ok((size, Sha256Digest(hasher.finalize().into())))
}

/// The size and SHA-256 of a file that was opened, read from where it stands as far as it reaches now; each piece is also given to `also`,
/// on this thread.
pub fn hash_with(file: &File, mut also: impl FnMut(&[u8])) -> io::Result<(u64, Sha256Digest)> {
    let length = file.metadata()?.len();
    let mut sha256 = Sha256::new();
    let size = match length < AHEAD_BYTES {
        true => each_piece(file.take(length), |piece| {
            sha256.update(piece);
            also(piece);
        })?,
        false => read_ahead(file.take(length), |piece| sha256.update(piece), also)?,
    };
    Ok((size, Sha256Digest(sha256.finalize().into())))
}

/// The SHA-384 of a regular file beside its size and SHA-256, in one pass and as carefully as `hash_file`.
pub fn hash_file_384(path: &Path) -> io::Result<(u64, Sha256Digest, Sha384Digest)> {
    let mut sha384 = Sha384::new();
    // SHA-384 takes more than twice as long as SHA-256: reading and the latter go together.
    let (size, sha256) = hash_with(&open_regular(path)?, |piece| sha384.update(piece))?;
    Ok((size, sha256, Sha384Digest(sha384.finalize().into())))
}

/// The size and SHA-256 of all that `file` gives.
pub(crate) fn hash(file: impl Read) -> io::Result<(u64, Sha256Digest)> {
    let mut hasher = Sha256::new();
    let size = each_piece(file, |piece| hasher.update(piece))?;
    Ok((size, Sha256Digest(hasher.finalize().into())))
}

/// Hands `file` on piece by piece, and gives its size.
pub(crate) fn each_piece(mut file: impl Read, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
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

/// Hands `file` on piece by piece, and gives its size: a thread of its own reads and looks at each piece with `first`, while this
/// one is busy with the piece before.
fn read_ahead(
    file: impl Read + Send,
    first: impl FnMut(&[u8]) + Send,
    mut second: impl FnMut(&[u8]),
) -> io::Result<u64> {
    thread::scope(|scope| {
        let (send, pieces) = sync_channel(PIECES);
        let (give_back, buffers) = channel();
        for _ in 0..PIECES {
            let _ = give_back.send(vec![0; READ_BYTES]);
        }
        scope.spawn(move || read_pieces(file, first, &buffers, &send));
        let mut size = 0;
        for piece in pieces {
            let piece: Vec<u8> = piece?;
            second(&piece);
            size += piece.len() as u64;
            let _ = give_back.send(piece);
        }
        Ok(size)
    })
}

/// Fills one buffer after the other, until the file or the interest in it ends.
fn read_pieces(
    mut file: impl Read,
    mut first: impl FnMut(&[u8]),
    buffers: &Receiver<Vec<u8>>,
    pieces: &SyncSender<io::Result<Vec<u8>>>,
) {
    while let Ok(mut buffer) = buffers.recv() {
        buffer.resize(READ_BYTES, 0);
        let read = loop {
            match file.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let piece = match read {
            Ok(0) => return,
            Ok(read) => {
                buffer.truncate(read);
                first(&buffer);
                Ok(buffer)
            }
            Err(error) => Err(error),
        };
        let failed = piece.is_err();
        if pieces.send(piece).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of so many bytes `x` by `head -c N /dev/zero | tr '\0' x | sha256sum`, and by sha384sum.
    #[test]
    fn large_files_are_hashed_as_coreutils_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for (length, sha256, sha384) in [(1000, SHORT.0, SHORT.1), (3_000_001, LONG.0, LONG.1)] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            let (size, found) = hash_file(&path).unwrap();
            assert_eq!((size, found.to_string().as_str()), (length as u64, sha256));
            let (size, found, found_384) = hash_file_384(&path).unwrap();
            assert_eq!((size, found.to_string().as_str()), (length as u64, sha256));
            assert_eq!(found_384.to_string(), sha384);
        }
    }

    struct Breaks(u32);

    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 -= 1;
            match self.0 {
                0 => Err(io::Error::other("the disk is gone")),
                2 => Err(io::ErrorKind::Interrupted.into()),
                _ => Ok(buffer.len()),
            }
        }
    }

    #[test]
    fn what_cannot_be_read_ends_both_threads() {
        let mut bytes = 0;
        let read = read_ahead(Breaks(9), |_| {}, |piece| bytes += piece.len());
        assert_eq!(read.unwrap_err().to_string(), "the disk is gone");
        assert_eq!(bytes, 7 * READ_BYTES);
    }

    const SHORT: (&str, &str) = (
        "44f8354494a5ba03ba1792a8d3e9c534c47a9181980fde7a3f44b06ef2ae7c7f",
        "f096805600f4ca46f56b08074af11e7ec1da65cc3a66457c11ae0724d0c2e3912428dbc43d4ebc1cd0d7886109b07580",
    );

    const LONG: (&str, &str) = (
        "a3ccf84896e3e6d1185dee335e2f32266f86bd958bdc51fff840792fd520e351",
        "2fda9a4f873ea5710cd126ddac7e74f936a97c2fc2ac822288c3d8062c36bf5680c1245f188e176f713008cea590ead7",
    );
}
