//! Blobs: what is read is what was asked for, whatever happened to the file.

use std::fs;

use spec::{Diagnostic as _, Outcome, Sha256Digest};
use store::{Begin, PartialBlob, Store, StoreError};

fn cache() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("cache")).unwrap();
    (directory, store)
}

fn write(store: &Store, sha256: &Sha256Digest) -> PartialBlob {
    match store.begin(sha256).unwrap() {
        Begin::Write(partial) => partial,
        Begin::Present => panic!("{sha256} is present"),
    }
}

#[test]
fn what_went_in_comes_out() {
    let (_directory, store) = cache();
    let sha256 = store.insert_bytes(b"abc").unwrap();
    // FIPS 180-4: the digest of "abc".
    assert_eq!(sha256.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(store.blob_path(&sha256).ends_with(format!("blobs/sha256/ba/{sha256}")));
    assert_eq!(store.read(&sha256, 3).unwrap(), b"abc");
    assert_eq!(store.verify(&sha256, 3).unwrap(), store.blob_path(&sha256));
}

#[test]
fn a_damaged_blob_is_never_read() {
    let (_directory, store) = cache();
    let sha256 = store.insert_bytes(b"golden").unwrap();
    let path = store.blob_path(&sha256);
    for (content, same_size) in [(&b"golder"[..], true), (b"gold", false), (b"golden and more", false)] {
        fs::write(&path, content).unwrap();
        for error in [store.read(&sha256, 6).unwrap_err(), store.verify(&sha256, 6).unwrap_err()] {
            assert_eq!(matches!(error, StoreError::Digest { .. }), same_size, "{error}");
            assert_eq!(error.outcome(), Outcome::InputMismatch);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(error.hint().unwrap().contains("damaged"));
        }
    }
    store.insert_bytes(b"golden").unwrap();
    assert_eq!(store.read(&sha256, 6).unwrap(), b"golden");
}

#[test]
fn a_missing_blob_says_where_it_would_be() {
    let (_directory, store) = cache();
    let sha256 = Sha256Digest::of(b"never inserted");
    let error = store.read(&sha256, 1).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }));
    assert_eq!(error.outcome(), Outcome::InputMismatch);
    assert!(error.to_string().contains(&sha256.to_string()));
    assert!(error.hint().is_some());
}

#[test]
fn an_interrupted_blob_goes_on_where_it_stopped() {
    let (_directory, store) = cache();
    let content = b"first half, second half";
    let sha256 = Sha256Digest::of(content);
    let mut partial = write(&store, &sha256);
    partial.append(&content[..11]).unwrap();
    drop(partial);
    assert!(!store.has(&sha256));
    let mut partial = write(&store, &sha256);
    assert_eq!(partial.length(), 11);
    partial.append(&content[11..]).unwrap();
    partial.commit(content.len() as u64).unwrap();
    assert_eq!(store.read(&sha256, content.len() as u64).unwrap(), content);
    assert!(matches!(store.begin(&sha256).unwrap(), Begin::Present));
}

#[test]
fn wrong_bytes_are_not_committed_and_not_kept() {
    let (_directory, store) = cache();
    let sha256 = Sha256Digest::of(b"expected");
    let mut partial = write(&store, &sha256);
    partial.append(b"swapped!").unwrap();
    assert!(matches!(partial.commit(8).unwrap_err(), StoreError::Digest { .. }));
    let mut partial = write(&store, &sha256);
    assert_eq!(partial.length(), 0, "the wrong bytes are still there");
    partial.append(b"exp").unwrap();
    assert!(matches!(partial.commit(8).unwrap_err(), StoreError::Size { expected: 8, found: 3, .. }));
    let mut partial = write(&store, &sha256);
    partial.append(b"junk").unwrap();
    partial.restart().unwrap();
    partial.append(b"expected").unwrap();
    partial.commit(8).unwrap();
    assert_eq!(store.read(&sha256, 8).unwrap(), b"expected");
}

#[test]
fn two_writers_of_one_blob_do_not_interleave() {
    let (_directory, store) = cache();
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let sha256 = Sha256Digest::of(&content);
    let written: usize = std::thread::scope(|scope| {
        let writer = || match store.begin(&sha256).unwrap() {
            Begin::Present => 0,
            Begin::Write(mut partial) => {
                assert_eq!(partial.length(), 0);
                content.chunks(1000).for_each(|chunk| partial.append(chunk).unwrap());
                partial.commit(content.len() as u64).unwrap();
                1
            }
        };
        let writers: Vec<_> = (0..6).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    });
    assert_eq!(written, 1);
    assert_eq!(store.read(&sha256, content.len() as u64).unwrap(), content);
}

#[test]
fn a_full_disk_is_the_hosts_fault_and_comes_with_advice() {
    let (_directory, store) = cache();
    let sha256 = Sha256Digest::of(b"does not fit");
    let path = store.blob_path(&sha256);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // The kernel's own full device stands in for a full disk: every write to it fails with ENOSPC (full(4)).
    std::os::unix::fs::symlink("/dev/full", format!("{}.part", path.display())).unwrap();
    let mut partial = write(&store, &sha256);
    let error = partial.append(b"does not fit").unwrap_err();
    assert_eq!(error.outcome(), Outcome::HostCannot);
    assert!(error.hint().unwrap().contains("no room"), "{error:?}");
}
