//! Files appear whole or not at all, with the same mode for everyone.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use spec::{Diagnostic as _, Outcome};
use store::{AtomicFile, Store, write_atomically};

#[test]
fn a_file_dropped_before_commit_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest.json");
    write_atomically(&path, b"old").unwrap();
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"half").unwrap();
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    write_atomically(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// The umask belongs to the whole process, so the file is written by another one: this test, run again.
#[test]
fn the_umask_does_not_show() {
    const TARGET: &str = "BULLION_TEST_UMASK_TARGET";
    if let Some(target) = std::env::var_os(TARGET) {
        write_atomically(target.as_ref(), b"x").unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for umask in ["077", "000", "027"] {
        let path = directory.path().join(umask);
        let status = Command::new("sh")
            .args(["-c", "umask $1 && exec \"$2\" --exact the_umask_does_not_show", "sh", umask])
            .arg(std::env::current_exe().unwrap())
            .env(TARGET, &path)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644, "umask {umask}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_the_hosts_fault() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(&file).unwrap_err();
    assert_eq!(error.outcome(), Outcome::HostCannot);
    assert!(error.to_string().contains("file/blobs/sha256"), "{error}");
    let error = write_atomically(&directory.path().join("absent/x"), b"").unwrap_err();
    assert_eq!(error.outcome(), Outcome::HostCannot);
}
