//! What was compiled before: files in the cache by digest, and for each key a note of which they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use spec::Sha256Digest;
use spec::manifest::Artifact;
use store::Store;

use super::ComponentError;

fn note_path(key: &Sha256Digest, store: &Store) -> PathBuf {
    store.verdicts_dir().join(format!("component-{key}"))
}

/// The outputs of the component with this key; `None` where they, or one of them, are not there whole.
pub(super) fn find(key: &Sha256Digest, store: &Store) -> Option<BTreeMap<String, Artifact>> {
    let text = std::fs::read_to_string(note_path(key, store)).ok()?;
    let outputs: BTreeMap<String, Artifact> = text.lines().map(parse).collect::<Option<_>>()?;
    outputs.values().all(|output| store.verify(&output.sha256, output.size).is_ok()).then_some(outputs)
}

fn parse(line: &str) -> Option<(String, Artifact)> {
    let mut words = line.splitn(3, ' ');
    let artifact = Artifact { sha256: words.next()?.parse().ok()?, size: words.next()?.parse().ok()? };
    Some((words.next()?.to_owned(), artifact))
}

/// Puts outputs into the cache.
pub(super) fn keep(
    key: &Sha256Digest,
    files: &BTreeMap<String, Vec<u8>>,
    store: &Store,
) -> Result<BTreeMap<String, Artifact>, ComponentError> {
    let mut outputs = BTreeMap::new();
    let mut note = String::new();
    for (name, bytes) in files {
        let artifact = Artifact { size: bytes.len() as u64, sha256: store.insert_bytes(bytes)? };
        note += &format!("{} {} {name}\n", artifact.sha256, artifact.size);
        outputs.insert(name.clone(), artifact);
    }
    store::write_atomically(&note_path(key, store), note.as_bytes())?;
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_found_while_all_of_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let key = Sha256Digest([5; 32]);
        assert_eq!(find(&key, &store), None);
        let files = BTreeMap::from([("a b".to_owned(), b"one".to_vec()), ("c".to_owned(), Vec::new())]);
        let kept = keep(&key, &files, &store).unwrap();
        assert_eq!(find(&key, &store), Some(kept.clone()));
        assert_eq!(find(&Sha256Digest([6; 32]), &store), None);
        std::fs::write(store.blob_path(&kept["a b"].sha256), b"two").unwrap();
        assert_eq!(find(&key, &store), None, "a changed file is compiled again");
    }
}
