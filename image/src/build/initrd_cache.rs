//! Compressed archives kept in the cache, because level 19 takes longer than the rest of a warm build.
//!
//! A kept archive is used only if it decompresses to exactly the bytes that are to be compressed, so a damaged or forged
//! one can never change what the guest gets. Its name holds everything that decides the compressed bits.

use std::io;

use spec::Sha256Digest;
use store::Store;

use crate::{FORMAT_EPOCH, deb, initrd, kept};

/// What `initrd::compress` makes of `archive`, from the cache where it is there.
pub(super) fn compress(archive: &[u8], store: &Store) -> io::Result<Vec<u8>> {
    let name = name(archive);
    if let Some(kept) = kept(&name, archive, store) {
        return Ok(kept);
    }
    let compressed = initrd::compress(archive)?;
    kept::keep(store, &name, &compressed);
    Ok(compressed)
}

fn name(archive: &[u8]) -> String {
    let codec = zstd::zstd_safe::version_number();
    format!("initrd-{FORMAT_EPOCH}-{codec}-{}", Sha256Digest::of(archive))
}

fn kept(name: &str, archive: &[u8], store: &Store) -> Option<Vec<u8>> {
    let compressed = kept::find(store, name)?;
    let unpacked = deb::decode_zstd(&compressed, archive.len() as u64).ok()??;
    (unpacked == archive).then_some(compressed)
}
