//! What is in the cache is listed truly, and pruning takes what was asked and no more.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use spec::Sha256Digest;
use store::{Begin, Keep, Kind, Store};

struct Cache {
    _directory: tempfile::TempDir,
    store: Store,
    kept: Sha256Digest,
    other: Sha256Digest,
    tree: Sha256Digest,
}

/// A cache with two blobs of 3 and 5 bytes, a cut-short one of 2, a tree of 7 and a finding of 1.
fn filled() -> Cache {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let kept = store.insert_bytes(b"abc").unwrap();
    let other = store.insert_bytes(b"defgh").unwrap();
    match store.begin(&Sha256Digest::of(b"partial")).unwrap() {
        Begin::Write(mut partial) => partial.append(b"pa").unwrap(),
        Begin::Present => panic!(),
    }
    let tree = Sha256Digest::of(b"lock");
    let new = store.new_tree(&tree).unwrap();
    fs::create_dir_all(new.path().join("root/usr")).unwrap();
    fs::write(new.path().join("root/usr/file"), b"1234567").unwrap();
    assert_eq!(new.commit().unwrap(), store.tree_dir(&tree));
    fs::write(store.verdicts_dir().join("kvm"), b"1").unwrap();
    Cache { _directory: directory, store, kept, other, tree }
}

fn listing(store: &Store) -> Vec<(Kind, u64)> {
    store.entries().unwrap().into_iter().map(|entry| (entry.kind, entry.bytes)).collect()
}

#[test]
fn everything_is_listed_with_its_size() {
    let cache = filled();
    let mut expected = [(Kind::Blob, 3), (Kind::Blob, 5), (Kind::Tree, 7), (Kind::Partial, 2), (Kind::Other, 1)];
    let mut found = listing(&cache.store);
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn reading_a_blob_is_a_use() {
    let cache = filled();
    let old = SystemTime::now() - Duration::from_secs(1_000_000);
    let path = cache.store.blob_path(&cache.kept);
    File::open(&path).unwrap().set_modified(old).unwrap();
    let last_used = || {
        let entries = cache.store.entries().unwrap();
        entries.into_iter().find(|entry| entry.sha256 == Some(cache.kept)).unwrap().last_used
    };
    assert_eq!(last_used(), old);
    cache.store.read(&cache.kept, 3).unwrap();
    assert!(last_used().elapsed().unwrap() < Duration::from_secs(60));
}

#[test]
fn pruning_keeps_what_is_named_and_what_was_found_out() {
    let cache = filled();
    let keep = BTreeSet::from([cache.kept]);
    let pruned = cache.store.prune(Keep::Only(&keep)).unwrap();
    assert_eq!(pruned.bytes(), 5 + 2 + 7);
    assert_eq!(listing(&cache.store), [(Kind::Blob, 3), (Kind::Other, 1)]);
    assert!(!cache.store.has(&cache.other));
    assert_eq!(cache.store.prune(Keep::Nothing).unwrap().bytes(), 4);
    assert_eq!(listing(&cache.store), []);
}

#[test]
fn what_is_in_use_stays() {
    let cache = filled();
    let hold = cache.store.hold_tree(&cache.tree).unwrap().unwrap();
    let Begin::Write(partial) = cache.store.begin(&Sha256Digest::of(b"partial")).unwrap() else { panic!() };
    let pruned = cache.store.prune(Keep::Nothing).unwrap();
    let in_use: Vec<Kind> = pruned.in_use.iter().map(|entry| entry.kind).collect();
    assert_eq!(in_use, [Kind::Tree, Kind::Partial]);
    assert!(hold.path().join("root/usr/file").is_file());
    drop((hold, partial));
    assert_eq!(cache.store.prune(Keep::Nothing).unwrap().removed.len(), 2);
    assert!(cache.store.hold_tree(&cache.tree).unwrap().is_none());
}

#[test]
fn remains_of_a_killed_process_go_after_an_hour() {
    let cache = filled();
    let remains = cache.store.blob_path(&cache.kept).with_file_name(".x.abc.tmp");
    fs::write(&remains, b"half").unwrap();
    cache.store.prune(Keep::Nothing).unwrap();
    assert!(remains.exists(), "its writer may be alive");
    File::open(&remains).unwrap().set_modified(SystemTime::now() - Duration::from_secs(4000)).unwrap();
    cache.store.prune(Keep::Only(&BTreeSet::new())).unwrap();
    assert!(!remains.exists());
}

#[test]
fn a_prune_that_was_killed_is_finished_by_the_next_and_blocks_none() {
    let cache = filled();
    let tree = cache.store.tree_dir(&cache.tree);
    let named = |middle: &str, end: &str| {
        tree.with_file_name(format!(".{}{middle}{end}", tree.file_name().unwrap().to_str().unwrap()))
    };
    // What a killed one leaves, and the name that used to be shared by all of them.
    let (remains, shared) = (named(".a1b2c3", ".doomed"), named("", ".tmp"));
    for left in [&remains, &shared] {
        fs::create_dir_all(left.join("root")).unwrap();
        fs::write(left.join("root/file"), b"half").unwrap();
    }
    // Another process at work on it has its lock.
    let lock = File::open(&remains).unwrap();
    lock.lock().unwrap();
    let keep = BTreeSet::from([cache.kept, cache.other]);
    let pruned = cache.store.prune(Keep::Only(&keep)).unwrap();
    assert_eq!(pruned.in_use.iter().map(|entry| &entry.path).collect::<Vec<_>>(), [&remains]);
    assert!(remains.exists() && !tree.exists(), "the tree itself goes, whatever lies beside it");
    drop(lock);
    let pruned = cache.store.prune(Keep::Only(&keep)).unwrap();
    assert_eq!(pruned.removed.iter().map(|entry| &entry.path).collect::<Vec<_>>(), [&remains]);
    assert!(!remains.exists());
    assert!(cache.store.has(&cache.kept) && cache.store.verdicts_dir().join("kvm").exists());
}

#[test]
fn the_first_of_two_trees_wins_and_nothing_is_left() {
    let cache = filled();
    let late = cache.store.new_tree(&cache.tree).unwrap();
    fs::write(late.path().join("late"), b"").unwrap();
    let dropped = cache.store.new_tree(&cache.tree).unwrap();
    drop(dropped);
    assert_eq!(late.commit().unwrap(), cache.store.tree_dir(&cache.tree));
    let trees = fs::read_dir(cache.store.root().join("trees")).unwrap().count();
    assert_eq!(trees, 1);
    assert!(cache.store.tree_dir(&cache.tree).join("root/usr/file").is_file());
}
