//! Which keys may sign, with keys and signatures made by GnuPG: the other implementation, and the one Debian signs with.

mod fixture;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use archive::lock::{LockError, Options};
use archive::{Keyring, ReleaseError};
use fixture::{Archive, SUITE, deb};
use spec::lock::Release;
use spec::{Diagnostic as _, Outcome};

/// A GnuPG home with its own agent.
struct Gnupg {
    home: tempfile::TempDir,
}

impl Gnupg {
    /// `None`, said on stderr, where GnuPG is not installed.
    #[allow(clippy::print_stderr, reason = "a skipped test says so")]
    fn find() -> Option<Self> {
        if Command::new("gpg").arg("--version").output().is_err() {
            eprintln!("skipped: gpg is not installed");
            return None;
        }
        Some(Self { home: tempfile::tempdir().unwrap() })
    }

    /// Runs gpg at a time such as `20240101T000000`; its output.
    fn run(&self, time: &str, arguments: &[&str], input: &str) -> Vec<u8> {
        let input_file = self.home.path().join("input");
        fs::write(&input_file, input).unwrap();
        let output = Command::new("gpg")
            .arg("--homedir")
            .arg(self.home.path())
            .args([
                "--batch",
                "--yes",
                "--quiet",
                "--pinentry-mode",
                "loopback",
                "--passphrase",
                "",
                "--trust-model",
                "always",
            ])
            .args(["--faked-system-time", &format!("{time}!")])
            .args(arguments)
            .stdin(fs::File::open(&input_file).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Makes a key that may sign, without expiry; its fingerprint.
    fn key(&self, time: &str, algorithm: &str, usage: &str) -> String {
        self.run(time, &["--quick-gen-key", "Test <test@example.org>", algorithm, usage, "never"], "");
        self.fingerprints().remove(0)
    }

    /// Fingerprints of all keys and subkeys.
    fn fingerprints(&self) -> Vec<String> {
        let listing = self.run("20261125T000000", &["--list-keys", "--with-colons", "--with-subkey-fingerprint"], "");
        let listing = String::from_utf8(listing).unwrap();
        let lines = listing.lines().filter_map(|line| line.strip_prefix("fpr:"));
        lines.map(|line| line.trim_matches(':').to_owned()).collect()
    }

    fn export(&self) -> Vec<u8> {
        self.run("20261125T000000", &["--export"], "")
    }

    fn sign(&self, time: &str, key: &str, text: &str) -> Vec<u8> {
        self.run(time, &["--local-user", key, "--clearsign"], text)
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        let mut kill = Command::new("gpgconf");
        let _ =
            kill.arg("--homedir").arg(self.home.path()).args(["--kill", "gpg-agent"]).stderr(Stdio::null()).status();
    }
}

/// Whether a release file signed so is accepted with this keyring: `Ok` with the fingerprints, or why not.
fn judge(keyring: &[u8], sign: impl Fn(&str) -> Vec<u8>) -> Result<Vec<String>, String> {
    let archive = Archive::new(&[deb("aa", "1", "")]);
    fs::write(archive.keyring(), keyring).unwrap();
    archive.release(SUITE, &sign(&archive.release_text(SUITE)));
    match archive.lock(&["aa"]) {
        Ok(mut lock) => Ok(lock.release.remove(0).signed_by),
        Err(LockError::Release(error @ ReleaseError::Signature { .. })) => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn primary_keys_and_signing_subkeys_are_accepted() {
    let Some(gnupg) = Gnupg::find() else { return };
    for algorithm in ["ed25519", "rsa2048"] {
        let key = gnupg.key("20240101T000000", algorithm, "cert,sign");
        assert_eq!(judge(&gnupg.export(), |text| gnupg.sign("20261125T100000", &key, text)), Ok(vec![key.clone()]));
        gnupg.run("20240102T000000", &["--quick-add-key", &key, algorithm, "sign", "never"], "");
        let subkey = gnupg.fingerprints().into_iter().find(|found| *found != key).unwrap();
        let by_subkey = |text: &str| gnupg.sign("20261125T100000", &format!("{subkey}!"), text);
        assert_eq!(judge(&gnupg.export(), by_subkey), Ok(vec![subkey.clone()]));
        // The signature says who made it only by key id, as in old files, or both: either way the armored ring does too.
        let armored = gnupg.run("20261125T000000", &["--export", "--armor"], "");
        assert_eq!(judge(&[armored.clone(), armored].concat(), by_subkey), Ok(vec![subkey.clone()]));
        gnupg.run("20261125T000000", &["--delete-secret-and-public-key", &key], "");
    }
}

/// Locks an empty recipe from this release file with this keyring: the only release of the lock.
fn lock_with(archive: &Archive, keyring: &[u8], file: &[u8], accept_expired: bool) -> Result<Release, ReleaseError> {
    fs::write(archive.keyring(), keyring).unwrap();
    archive.release(SUITE, file);
    let accept_expired = accept_expired.then(|| SUITE.to_owned()).into_iter().collect();
    let options = Options { accept_expired, ..archive.options() };
    let recipe = fixture::recipe(&fixture::tree(&[]));
    match archive::lock::resolve(&recipe, &archive.mirror(), &archive.store(), &options, &archive::Silent) {
        Ok(mut lock) => Ok(lock.release.remove(0)),
        Err(LockError::Release(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_expired_key_cannot_sign_by_writing_an_old_date() {
    let Some(gnupg) = Gnupg::find() else { return };
    let key = gnupg.key("20240101T000000", "ed25519", "cert,sign");
    let archive = Archive::new(&[]);
    let text = archive.release_text(SUITE);
    // Made today for all that anybody can tell: the date is what its maker writes.
    let [late, early] = ["20261125T100000", "20240301T000000"].map(|time| gnupg.sign(time, &key, &text));
    let unlimited = gnupg.export();
    gnupg.run("20240201T000000", &["--quick-set-expire", &key, "2025-01-01"], "");
    let limited = gnupg.export();
    assert!(!lock_with(&archive, &unlimited, &late, false).unwrap().expired);
    assert!(!lock_with(&archive, &unlimited, &early, false).unwrap().expired);
    let error = lock_with(&archive, &limited, &early, false).unwrap_err();
    assert_eq!(error.outcome(), Outcome::SignatureInvalid);
    assert!(error.to_string().contains(&format!("{key}, which by now had expired")), "{error}");
    assert!(error.hint().unwrap().contains("--accept-expired trixie"));
    // A snapshot of old is taken on request, and the lock says so; what was signed too late is never.
    let accepted = lock_with(&archive, &limited, &early, true).unwrap();
    assert_eq!((accepted.expired, accepted.signed_by), (true, vec![key]));
    for accept in [false, true] {
        let error = lock_with(&archive, &limited, &late, accept).unwrap_err();
        assert!(error.to_string().contains(", which had expired"), "{error}");
    }
}

#[test]
fn an_expired_subkey_and_the_subkey_of_an_expired_key_are_refused() {
    let Some(gnupg) = Gnupg::find() else { return };
    let key = gnupg.key("20240101T000000", "ed25519", "cert,sign");
    gnupg.run("20240102T000000", &["--quick-add-key", &key, "ed25519", "sign", "never"], "");
    let subkey = gnupg.fingerprints().into_iter().find(|found| *found != key).unwrap();
    let archive = Archive::new(&[]);
    let early = gnupg.sign("20240301T000000", &format!("{subkey}!"), &archive.release_text(SUITE));
    assert_eq!(lock_with(&archive, &gnupg.export(), &early, false).unwrap().signed_by, std::slice::from_ref(&subkey));
    gnupg.run("20240201T000000", &["--quick-set-expire", &key, "2025-01-01", &subkey], "");
    let of_subkey = gnupg.export();
    gnupg.run("20240202T000000", &["--quick-set-expire", &key, "never", &subkey], "");
    gnupg.run("20240203T000000", &["--quick-set-expire", &key, "2025-01-01"], "");
    for limited in [of_subkey, gnupg.export()] {
        let error = lock_with(&archive, &limited, &early, false).unwrap_err();
        assert!(error.to_string().contains("which by now had expired"), "{error}");
        assert!(lock_with(&archive, &limited, &early, true).unwrap().expired);
    }
}

#[test]
fn a_revoked_key_and_a_revoked_subkey_are_refused() {
    let Some(gnupg) = Gnupg::find() else { return };
    let key = gnupg.key("20240101T000000", "ed25519", "cert,sign");
    gnupg.run("20240102T000000", &["--quick-add-key", &key, "ed25519", "sign", "never"], "");
    let subkey = gnupg.fingerprints().into_iter().find(|found| *found != key).unwrap();
    let good = gnupg.export();
    // GnuPG writes a revocation beside every new key, made harmless by a colon.
    let path: PathBuf = gnupg.home.path().join(format!("openpgp-revocs.d/{key}.rev"));
    let revocation = fs::read_to_string(path).unwrap().replace(":-----BEGIN", "-----BEGIN");
    for signer in [&key, &subkey] {
        let sign = |text: &str| gnupg.sign("20240601T000000", &format!("{signer}!"), text);
        assert!(judge(&good, sign).is_ok());
    }
    let archive = Archive::new(&[]);
    let text = archive.release_text(SUITE);
    let files = [&key, &subkey].map(|signer| gnupg.sign("20240601T000000", &format!("{signer}!"), &text));
    gnupg.run("20240701T000000", &["--import"], &revocation);
    let revoked = gnupg.export();
    for file in files {
        assert!(judge(&revoked, |_| file.clone()).unwrap_err().contains("had been revoked"));
        // Not for a snapshot of old either: whoever has the key can write any date.
        assert!(lock_with(&archive, &revoked, &file, true).unwrap_err().to_string().contains("had been revoked"));
    }
}

#[test]
fn a_signature_over_sha1_is_refused() {
    let Some(gnupg) = Gnupg::find() else { return };
    let key = gnupg.key("20240101T000000", "rsa2048", "cert,sign");
    let sign = |hash: &str| {
        let arguments = ["--allow-weak-digest-algos", "--digest-algo", hash, "--local-user", &key, "--clearsign"];
        judge(&gnupg.export(), |text| gnupg.run("20261125T100000", &arguments, text))
    };
    assert!(sign("SHA1").unwrap_err().contains("SHA1"));
    assert!(sign("SHA512").is_ok());
}

#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn gnupg_finds_our_test_signatures_good_too() {
    if Command::new("gpgv").arg("--version").output().is_err() {
        eprintln!("skipped: gpgv is not installed");
        return;
    }
    let archive = Archive::new(&[deb("aa", "1", "")]);
    let verify = || {
        let mut gpgv = Command::new("gpgv");
        gpgv.arg("--ignore-time-conflict").arg("--keyring").arg(archive.keyring()).arg(archive.in_release(SUITE));
        gpgv.stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(verify());
    let text = fs::read_to_string(archive.in_release(SUITE)).unwrap().replace("Origin: Debian", "Origin: Bebian");
    archive.release(SUITE, text.as_bytes());
    assert!(!verify());
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_as_a_keyring_without_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), at in 0..100usize, flip in 1..255u8) {
        let _ = Keyring::parse(&bytes);
        let mut damaged = fixture::Signer::new(1).public();
        let at = at % damaged.len();
        damaged[at] ^= flip;
        let _ = Keyring::parse(&damaged);
        damaged.truncate(at);
        let _ = Keyring::parse(&damaged);
    }
}
