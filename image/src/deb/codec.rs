//! Decompression with bounds: a package may not make the builder run out of memory.

use std::io::{self, Read};

use liblzma::stream::{CONCATENATED, Stream};

use super::archive::Member;
use super::error::DebError;

/// The most bytes a compressed member may unpack to.
pub const MAX_UNPACKED: u64 = 4 << 30;
/// The most bytes a compressed member may unpack to for each byte that it has, once it unpacks to more than 16 MiB.
pub const MAX_RATIO: u64 = 1000;

const FREE_OF_RATIO: u64 = 16 << 20;
/// xz(1): -9 needs 65 MiB to decompress.
const XZ_MEMORY: u64 = 512 << 20;
/// The largest window that zstd's own tool accepts without being asked: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

pub(super) fn decode(member: Member<'_>) -> Result<Vec<u8>, DebError> {
    let Member { name, bytes } = member;
    let limit = (bytes.len() as u64).saturating_mul(MAX_RATIO).clamp(FREE_OF_RATIO, MAX_UNPACKED);
    let decoded = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("xz") => decode_xz(bytes, limit),
        Some("zst") => decode_zstd(bytes, limit),
        Some("gz") => decode_gzip(bytes, limit),
        _ => Ok(Some(bytes.to_vec())),
    };
    decoded.map_err(|source| DebError::Codec { member: name.to_owned(), source })?.ok_or_else(|| DebError::Bomb {
        member: name.to_owned(),
        packed: bytes.len(),
        limit,
    })
}

/// Decodes xz streams; `Ok(None)` where they hold more than `limit` bytes.
pub(crate) fn decode_xz(bytes: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
    // CONCATENATED makes anything after the stream that is not another stream or padding an error.
    let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
    bounded(liblzma::bufread::XzDecoder::new_stream(bytes, stream), bytes.len(), limit)
}

/// Decodes zstd frames; `Ok(None)` where they hold more than `limit` bytes.
pub(crate) fn decode_zstd(bytes: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut decoder = zstd::Decoder::with_buffer(bytes)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG)?;
    bounded(decoder, bytes.len(), limit)
}

/// Decodes gzip members; `Ok(None)` where they hold more than `limit` bytes.
pub(crate) fn decode_gzip(bytes: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
    bounded(flate2::bufread::MultiGzDecoder::new(bytes), bytes.len(), limit)
}

fn bounded(reader: impl Read, packed: usize, limit: u64) -> io::Result<Option<Vec<u8>>> {
    // A small guess only: what the header says about the unpacked size is not to be trusted.
    let mut decoded = Vec::with_capacity(packed);
    reader.take(limit.saturating_add(1)).read_to_end(&mut decoded)?;
    // A buffer that grew has up to as much again behind it, and it is kept for as long as the build lasts.
    decoded.shrink_to_fit();
    Ok((decoded.len() as u64 <= limit).then_some(decoded))
}
