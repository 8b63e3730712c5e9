//! Archive volumes: read once from the host's disk, hashed on the way into the guest's own memory or scratch, and used
//! from there. The host may change its disk at any time; nothing reads it a second time. Scratch is the host's disk too: it
//! is encrypted, not authenticated, so a copy that lies there can be damaged after the check, though not chosen.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use spec::Sha256Digest;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// An archive that is not the one that was meant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The disk cannot be read, or the copy cannot be written.
    #[error("copying volume \"{name}\": {error}")]
    Copy {
        /// The volume.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// The disk holds less than the archive.
    #[error("volume \"{name}\" has {found} bytes, expected {expected}")]
    Short {
        /// The volume.
        name: String,
        /// What was read.
        found: u64,
        /// What the configuration says.
        expected: u64,
    },
    /// The content is another.
    #[error("volume \"{name}\" has SHA-256 {found}, expected {expected} by the configuration")]
    Digest {
        /// The volume.
        name: String,
        /// What was read.
        found: Sha256Digest,
        /// What the configuration says.
        expected: Sha256Digest,
    },
}

/// What an archive must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) sha256: Sha256Digest,
    pub(crate) size_bytes: u64,
}

/// Copies the archive from `from` to the new file `to`. Where it is not the one that was meant, no copy is left.
pub(crate) fn copy(wanted: &Wanted<'_>, from: &Path, to: &Path) -> Result<(), ArchiveError> {
    let failed = |error| ArchiveError::Copy { name: wanted.name.to_owned(), error };
    let source = File::open(from).map_err(failed)?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let copied = hash_into(source, &mut target, wanted.size_bytes).map_err(failed).and_then(|(found, size)| {
        let (name, expected) = (wanted.name.to_owned(), wanted.sha256);
        match (size == wanted.size_bytes, found == expected) {
            (false, _) => Err(ArchiveError::Short { name, found: size, expected: wanted.size_bytes }),
            (true, false) => Err(ArchiveError::Digest { name, found, expected }),
            (true, true) => Ok(()),
        }
    });
    if copied.is_err() {
        let _ = std::fs::remove_file(to);
    }
    copied
}

/// Copies at most `limit` bytes; returns their digest and how many they were.
fn hash_into(source: impl Read, target: &mut impl Write, limit: u64) -> io::Result<(Sha256Digest, u64)> {
    let mut source = source.take(limit);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok((Sha256Digest(hasher.finalize().into()), size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hasher.update(bytes);
        target.write_all(bytes)?;
        size += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_archive_that_was_meant_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let (disk, copy_path) = (directory.path().join("vdc"), directory.path().join("copy"));
        // A disk is a whole number of sectors: what is behind the archive does not count.
        std::fs::write(&disk, b"abc\0\0\0\0\0").unwrap();
        // SHA-256 of "abc": FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap();
        let wanted = Wanted { name: "app", sha256: abc, size_bytes: 3 };
        copy(&wanted, &disk, &copy_path).unwrap();
        assert_eq!(std::fs::read(&copy_path).unwrap(), b"abc");
        assert!(matches!(copy(&wanted, &disk, &copy_path), Err(ArchiveError::Copy { .. })), "nothing is replaced");
        std::fs::remove_file(&copy_path).unwrap();

        let longer = Wanted { size_bytes: 4, ..wanted };
        assert!(matches!(copy(&longer, &disk, &copy_path), Err(ArchiveError::Digest { .. })));
        assert!(!copy_path.exists());
        let missing = Wanted { size_bytes: 9, ..wanted };
        assert!(matches!(copy(&missing, &disk, &copy_path), Err(ArchiveError::Short { found: 8, expected: 9, .. })));
        assert!(!copy_path.exists());
    }
}
