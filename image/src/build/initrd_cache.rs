//! Compressed archives kept in the cache, because level 19 takes longer than the rest of a warm build.
//!
//! A kept archive is used only if it decompresses to exactly the bytes that are to be compressed, so a damaged or forged
//! one can never change what the guest gets. Its name holds everything that decides the compressed bits.

use std::io;
use std::path::PathBuf;

use spec::Sha256Digest;
use store::Store;

use crate::{FORMAT_EPOCH, deb, initrd};

/// What `initrd::compress` makes of `archive`, from the cache where it is there.
pub(super) fn compress(archive: &[u8], store: &Store) -> io::Result<Vec<u8>> {
    let note = note_path(archive, store);
    if let Some(kept) = kept(&note, archive, store) {
        return Ok(kept);
    }
    let compressed = initrd::compress(archive)?;
    // A cache that cannot be written makes the next build slower and nothing else.
    let _ = store
        .insert_bytes(&compressed)
        .and_then(|sha256| store::write_atomically(&note, format!("{sha256} {}\n", compressed.len()).as_bytes()));
    Ok(compressed)
}

fn note_path(archive: &[u8], store: &Store) -> PathBuf {
    let codec = zstd::zstd_safe::version_number();
    store.verdicts_dir().join(format!("initrd-{FORMAT_EPOCH}-{codec}-{}", Sha256Digest::of(archive)))
}

fn kept(note: &std::path::Path, archive: &[u8], store: &Store) -> Option<Vec<u8>> {
    let text = std::fs::read_to_string(note).ok()?;
    let (sha256, size) = text.trim_end().split_once(' ')?;
    let compressed = store.read(&sha256.parse().ok()?, size.parse().ok()?).ok()?;
    let unpacked = deb::decode_zstd(&compressed, archive.len() as u64).ok()??;
    (unpacked == archive).then_some(compressed)
}
