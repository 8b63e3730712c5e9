//! What a build leaves in the cache for later ones: content under a name that says what it was made of.
//!
//! The content is held against its digest; that it is what the name says is believed. Who asks decides whether it may be.

use std::path::PathBuf;

use store::Store;

/// The content that an earlier build kept under `name`.
pub(crate) fn find(store: &Store, name: &str) -> Option<Vec<u8>> {
    let text = std::fs::read_to_string(note(store, name)).ok()?;
    let (sha256, size) = text.trim_end().split_once(' ')?;
    store.read(&sha256.parse().ok()?, size.parse().ok()?).ok()
}

/// Keeps `content` under `name`. A cache that cannot be written makes the next build slower and nothing else.
pub(crate) fn keep(store: &Store, name: &str, content: &[u8]) {
    let _ = store.insert_bytes(content).and_then(|sha256| {
        store::write_atomically(&note(store, name), format!("{sha256} {}\n", content.len()).as_bytes())
    });
}

fn note(store: &Store, name: &str) -> PathBuf {
    store.verdicts_dir().join(name)
}
