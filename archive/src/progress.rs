//! How a download says how far it is. Drawing bars is the program's business.

/// Told about a download; called from several threads.
pub trait Progress: Sync {
    /// A download begins: this many bytes in this many files are not in the cache yet. Adds to what was announced before.
    fn start(&self, total_bytes: u64, files: usize) {
        let _ = (total_bytes, files);
    }
    /// Bytes have arrived, or were there from an earlier attempt.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }
    /// Bytes that were counted have been thrown away: the file is fetched again from its start.
    fn rewind(&self, bytes: u64) {
        let _ = bytes;
    }
    /// A file is complete and verified.
    fn finish_file(&self, name: &str) {
        let _ = name;
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
