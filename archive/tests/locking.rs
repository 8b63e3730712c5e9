//! The chain of proof from the keyring to the package: what holds, and what each break in it leads to.

mod fixture;

use std::fs;

use archive::lock::LockError;
use archive::{IndexError, Mirror, MirrorError, Rejection, ReleaseError, Silent};
use fixture::server::{Answer, Server};
use fixture::{Archive, NOW, SUITE, Signer, deb, names, recipe, tree, write};
use spec::lock::Standing;
use spec::{Diagnostic as _, Outcome, Sha256Digest};

fn simple() -> Archive {
    Archive::new(&[deb("aa", "1.0-1", "Depends: bb (>= 2)\n"), deb("bb", "2:3+x", "")])
}

fn release_error(archive: &Archive) -> ReleaseError {
    match archive.lock(&["aa"]).unwrap_err() {
        LockError::Release(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_good_archive_is_locked() {
    let archive = simple();
    let lock = archive.lock(&["aa"]).unwrap();
    assert_eq!(names(&lock), ["aa 1.0-1", "bb 2:3+x"]);
    let package = &lock.package[1];
    assert_eq!((package.path.as_str(), package.size), ("pool/main/bb_2%3a3+x_all.deb", 2000));
    assert_eq!(package.sha256, Sha256Digest::of(&deb("bb", "2:3+x", "").content));
    let release = &lock.release[0];
    assert_eq!((release.suite.as_str(), release.expired), (SUITE, false));
    assert_eq!(release.signed_by, [archive.signer.fingerprint()]);
    assert_eq!(release.sha256, Sha256Digest::of(&fs::read(archive.in_release(SUITE)).unwrap()));
    assert_eq!(lock.recipe_sha256, recipe(&tree(&["aa"])).lock_digest());
    assert_eq!(lock.standing, Standing::Published);
    // What is written is a lock that the format's own reader takes.
    assert_eq!(spec::lock::Lock::parse("t.lock", &lock.to_text().unwrap()).unwrap(), lock);
}

#[test]
fn a_second_lock_takes_the_index_from_the_cache() {
    let archive = simple();
    let server = Server::start(archive.root(), |_| Answer::Serve);
    for _ in 0..2 {
        let recipe = recipe(&tree(&["aa"]));
        archive::lock::resolve(&recipe, &server.mirror(), &archive.store(), &archive.options(), &Silent).unwrap();
    }
    assert_eq!(server.requests_for("InRelease").len(), 2);
    let indexes: Vec<_> =
        server.requests.lock().unwrap().iter().filter(|one| one.path.contains("binary")).cloned().collect();
    assert_eq!(indexes.len(), 1, "{indexes:?}");
    assert!(indexes[0].path.contains("/by-hash/SHA256/"));
    assert!(server.requests.lock().unwrap().iter().all(|request| request.user_agent == "bullion/0.1"));
}

#[test]
fn a_mirror_without_by_hash_directories_will_do() {
    let archive = simple();
    fs::remove_dir_all(archive.index(SUITE).with_file_name("by-hash")).unwrap();
    assert_eq!(archive.lock(&["aa"]).unwrap().package.len(), 2);
}

#[test]
fn a_signature_by_a_foreign_key_is_refused() {
    let archive = simple();
    let foreign = Signer::new(2);
    archive.release(SUITE, &foreign.sign(&archive.release_text(SUITE)));
    let error = release_error(&archive);
    assert_eq!(error.outcome(), Outcome::SignatureInvalid);
    assert!(error.to_string().contains(&foreign.fingerprint()), "{error}");
    assert!(error.hint().unwrap().contains("--keyring"));
}

#[test]
fn every_changed_byte_of_the_signed_part_is_noticed() {
    let archive = simple();
    let good = String::from_utf8(fs::read(archive.in_release(SUITE)).unwrap()).unwrap();
    for (from, to) in
        [("Origin: Debian", "Origin: Bebian"), ("27 Nov 2026", "27 Nov 2027"), ("main/binary", "main/Binary")]
    {
        assert!(good.contains(from));
        archive.release(SUITE, good.replacen(from, to, 1).as_bytes());
        let error = release_error(&archive);
        assert!(
            matches!(&error, ReleaseError::Signature { rejections, .. } if matches!(rejections[..], [Rejection::Wrong(_)])),
            "{error}"
        );
    }
}

#[test]
fn text_outside_the_signature_is_refused() {
    let archive = simple();
    let good = String::from_utf8(fs::read(archive.in_release(SUITE)).unwrap()).unwrap();
    let injected = format!("SHA256:\n {} 5 main/binary-amd64/Packages.xz\n", Sha256Digest::of(b"x"));
    let unsigned = archive.release_text(SUITE);
    for bad in [
        format!("{injected}\n{good}"),
        format!("{good}\n{injected}"),
        format!("{good}{good}"),
        good.replace("-----BEGIN PGP SIGNATURE-----", &format!("-----BEGIN PGP SIGNATURE-----\n{injected}")),
        good.replace("Hash: SHA256\n", &format!("Hash: SHA256\n{injected}")),
        unsigned,
        String::new(),
        good[..good.len() / 2].to_owned(),
    ] {
        archive.release(SUITE, bad.as_bytes());
        let error = release_error(&archive);
        assert_eq!(error.outcome(), Outcome::SignatureInvalid, "{error}\n{bad}");
    }
}

#[test]
fn a_signature_from_the_future_counts_for_nothing() {
    let archive = simple();
    let text = archive.release_text(SUITE);
    archive.release(SUITE, &archive.signer.sign_at(&text, NOW + 3 * 86400));
    assert!(release_error(&archive).to_string().contains("not valid at this time"));
    archive.release(SUITE, &archive.signer.sign_at(&text, NOW + 86400 + 1));
    assert!(release_error(&archive).to_string().contains("not valid at this time"), "more than a day");
    archive.release(SUITE, &archive.signer.sign_at(&text, NOW + 86400));
    assert!(archive.lock(&["aa"]).is_ok(), "clocks may differ");
}

#[test]
fn a_key_that_may_only_certify_signs_nothing() {
    let archive = simple();
    let certifier = Signer::with(3, false);
    fs::write(archive.keyring(), certifier.public()).unwrap();
    archive.release(SUITE, &certifier.sign(&archive.release_text(SUITE)));
    assert!(release_error(&archive).to_string().contains("may not sign data"));
}

#[test]
fn an_expired_release_file_is_refused_unless_its_suite_is_excepted() {
    let archive = simple();
    let recipe = recipe(&tree(&["aa"]));
    let late = NOW + 3 * 86400;
    let lock = |accept: &[&str]| {
        let accept_expired = accept.iter().map(|suite| (*suite).to_owned()).collect();
        let options = archive::lock::Options { now: late, accept_expired, ..archive.options() };
        archive::lock::resolve(&recipe, &archive.mirror(), &archive.store(), &options, &Silent)
    };
    let error = lock(&[]).unwrap_err();
    assert_eq!(error.outcome(), Outcome::SignatureInvalid);
    assert!(error.to_string().contains("Fri, 27 Nov 2026 12:00:00 UTC"), "{error}");
    assert!(error.hint().unwrap().contains("--accept-expired trixie"));
    // An exception for a suite that the recipe does not have is a slip, not a wish to be ignored.
    let error = lock(&["sid", "trixie"]).unwrap_err();
    assert!(matches!(&error, LockError::UnknownSuites { unknown, .. } if *unknown == ["sid"]), "{error}");
    assert_eq!(error.outcome(), Outcome::Usage);
    assert!(error.to_string().contains("\"sid\"") && error.to_string().contains("suites trixie"), "{error}");
    let lock = lock(&["trixie"]).unwrap();
    assert!(lock.release[0].expired);
    assert!(lock.to_text().unwrap().contains("expired = true"));
}

#[test]
fn the_release_file_of_another_suite_is_refused() {
    let archive = simple();
    archive.publish("sid", &[deb("aa", "9", "")]);
    fs::copy(archive.in_release("sid"), archive.in_release(SUITE)).unwrap();
    let error = release_error(&archive);
    assert!(matches!(error, ReleaseError::WrongSuite { .. }));
    assert_eq!(error.outcome(), Outcome::SignatureInvalid);
}

#[test]
fn an_index_that_is_not_the_signed_one_is_refused_and_not_kept() {
    let archive = simple();
    let index = archive.index(SUITE);
    fs::remove_dir_all(index.with_file_name("by-hash")).unwrap();
    let good = fs::read(&index).unwrap();
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    for bad in [&flipped[..], &good[..good.len() - 1], &[&good[..], b"x"].concat(), b""] {
        write(&index, bad);
        let error = archive.lock(&["aa"]).unwrap_err();
        assert_eq!(error.outcome(), Outcome::InputMismatch);
        assert!(matches!(error, LockError::Index(IndexError::Fetch { .. })), "{error}");
        assert_eq!(archive.store().entries().unwrap(), []);
    }
}

#[test]
fn a_path_that_leads_out_of_the_mirror_is_refused() {
    let archive = simple();
    archive.publish_index(SUITE, &deb("aa", "1", "").paragraph().replace("pool/main", "../../etc"));
    let error = archive.lock(&["aa"]).unwrap_err();
    assert!(error.to_string().contains("Filename"), "{error}");
}

#[test]
fn an_unknown_suite_or_component_says_what_to_check() {
    let archive = simple();
    let error = archive.lock_recipe(&tree(&["aa"]).replace("trixie", "trixy")).unwrap_err();
    assert_eq!(error.outcome(), Outcome::InputMismatch);
    assert!(error.hint().unwrap().contains("\"trixy\" is a suite"), "{error}");
    let error =
        archive.lock_recipe(&tree(&["aa"]).replace("[suites.trixie]", "[suites.trixie]\ncomponents = [\"contrib\"]"));
    assert!(matches!(error.unwrap_err(), LockError::Index(IndexError::NotListed { .. })));
}

#[test]
fn a_mirror_that_cannot_be_reached_is_told_from_one_that_lacks_the_suite() {
    let archive = simple();
    let recipe = recipe(&tree(&["aa"]));
    // Nothing listens on the discard port of this host.
    let mirror = Mirror::new("http://127.0.0.1:9").unwrap().with_patience(fixture::hasty());
    let error = archive::lock::resolve(&recipe, &mirror, &archive.store(), &archive.options(), &Silent).unwrap_err();
    assert_eq!(error.outcome(), Outcome::InputMismatch);
    assert!(error.hint().unwrap().contains("check the network"), "{error}");
}

#[test]
fn a_keyring_that_is_missing_or_empty_is_the_hosts_fault() {
    let archive = simple();
    fs::write(archive.keyring(), b"this is no key").unwrap();
    for _ in 0..2 {
        let error = archive.lock(&["aa"]).unwrap_err();
        assert_eq!(error.outcome(), Outcome::HostCannot);
        assert!(error.hint().unwrap().contains("debian-archive-keyring"));
        let _ = fs::remove_file(archive.keyring());
    }
}

#[test]
fn the_mirror_and_its_keys_come_from_apt_where_nothing_else_names_one() {
    let archive = simple();
    let apt = archive.directory.path().join("apt");
    let none = Mirror::find_in(None, None, &apt).unwrap_err();
    assert_eq!(none.outcome(), Outcome::HostCannot);
    assert!(none.hint().unwrap().contains("BULLION_MIRROR"));
    // Debian's own keyring would do as a name; the test's stands for it.
    let keyring = archive.directory.path().join("debian-archive-test.gpg");
    fs::rename(archive.keyring(), &keyring).unwrap();
    let source = format!(
        "Types: deb\nURIs: file:{}\nSuites: trixie\nComponents: main\nSigned-By: {}\n",
        archive.root().display(),
        keyring.display()
    );
    write(&apt.join("sources.list.d/debian.sources"), source.as_bytes());
    let mirror = Mirror::find_in(None, None, &apt).unwrap();
    let options = archive::lock::Options { keyring: None, ..archive.options() };
    let lock = archive::lock::resolve(&recipe(&tree(&["aa"])), &mirror, &archive.store(), &options, &Silent).unwrap();
    assert_eq!(lock.package.len(), 2);
    // Nothing in a lock says where it came from.
    assert!(!lock.to_text().unwrap().contains(mirror.address()));
    assert_eq!(Mirror::find_in(None, Some("http://v.example/d/"), &apt).unwrap().address(), "http://v.example/d");
    assert_eq!(Mirror::find_in(Some("https://o.example"), Some("x"), &apt).unwrap().address(), "https://o.example");
    assert!(matches!(Mirror::find_in(Some("ftp://x"), None, &apt), Err(MirrorError::Scheme(_))));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
    /// A release file with any one byte changed, or cut short, is refused, or nothing that counts has changed.
    #[test]
    fn no_damage_to_a_release_file_changes_what_is_locked(at in 0..4000usize, flip in 1..=255u8, cut in proptest::prelude::any::<bool>()) {
        thread_local!(static ARCHIVE: Archive = simple());
        ARCHIVE.with(|archive| {
            archive.release(SUITE, &archive.signer.sign(&archive.release_text(SUITE)));
            let good = archive.lock(&["aa"]).unwrap();
            let mut bytes = fs::read(archive.in_release(SUITE)).unwrap();
            let at = at % bytes.len();
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            archive.release(SUITE, &bytes);
            if let Ok(lock) = archive.lock(&["aa"]) {
                assert_eq!(lock.package, good.package);
                assert_eq!((&lock.release[0].date, &lock.release[0].signed_by), (&good.release[0].date, &good.release[0].signed_by));
            }
        });
    }
}

/// An archive with one suite and a package, and a security archive with another key and a newer package, as apt has them.
fn with_security() -> (Archive, Archive, Mirror, fixture::Deb) {
    let (main, mut security) = (simple(), Archive::new(&[]));
    security.signer = Signer::new(2);
    let newer = deb("bb", "2:3+x+deb13u1", "");
    let path = newer.path().replace("pool/main", "pool/updates/main");
    write(&security.root().join(&path), &newer.content);
    security.publish_index("trixie-security", &newer.paragraph().replace(&newer.path(), &path));
    let apt = main.directory.path().join("apt");
    let mut sources = String::new();
    for (archive, suite) in [(&main, SUITE), (&security, "trixie-security")] {
        let keyring = archive.directory.path().join("debian.gpg");
        write(&keyring, &archive.signer.public());
        sources += &format!("deb [signed-by={}] file:{} {suite} main\n", keyring.display(), archive.root().display());
    }
    write(&apt.join("sources.list"), sources.as_bytes());
    let mirror = Mirror::find_in(None, None, &apt).unwrap();
    (main, security, mirror, newer)
}

fn security_recipe_text() -> String {
    tree(&["aa"]).replace("[suites.trixie]", "[suites.trixie]\npreference = 1\n[suites.trixie-security]")
}

fn security_recipe() -> spec::recipe::Recipe {
    recipe(&security_recipe_text())
}

#[test]
fn suites_of_the_security_archive_come_from_their_own_root_and_have_their_own_keys() {
    let (main, security, mirror, newer) = with_security();
    let options = archive::lock::Options { keyring: None, ..main.options() };
    let lock = archive::lock::resolve(&security_recipe(), &mirror, &main.store(), &options, &Silent).unwrap();
    assert_eq!(names(&lock), ["aa 1.0-1", "bb 2:3+x+deb13u1"]);
    let path = newer.path().replace("pool/main", "pool/updates/main");
    assert_eq!((lock.package[1].suite.as_str(), &lock.package[1].path), ("trixie-security", &path));
    let signers: Vec<_> = lock.release.iter().map(|release| release.signed_by.clone()).collect();
    assert_eq!(signers, [[main.signer.fingerprint()], [security.signer.fingerprint()]]);
    // A lock names no root, and yet says enough to find the package.
    archive::fetch::fetch_all(&lock, &mirror, &main.store(), &Silent).unwrap();
    assert_eq!(main.store().read(&lock.package[1].sha256, lock.package[1].size).unwrap(), newer.content);
    let lost = main.lock_recipe(&security_recipe_text()).unwrap_err();
    assert!(lost.to_string().contains("trixie-security"), "{lost}");
}

#[test]
fn the_keys_of_one_archive_do_not_vouch_for_the_other() {
    let (main, security, mirror, _) = with_security();
    let options = archive::lock::Options { keyring: None, ..main.options() };
    let lock = || archive::lock::resolve(&security_recipe(), &mirror, &main.store(), &options, &Silent);
    lock().unwrap();
    main.release(SUITE, &security.signer.sign(&main.release_text(SUITE)));
    assert!(matches!(lock().unwrap_err(), LockError::Release(ReleaseError::Signature { .. })));
    main.release(SUITE, &main.signer.sign(&main.release_text(SUITE)));
    security.release("trixie-security", &main.signer.sign(&security.release_text("trixie-security")));
    assert!(matches!(lock().unwrap_err(), LockError::Release(ReleaseError::Signature { .. })));
}
