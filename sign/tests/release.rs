//! What makes a signed release acceptable, and each thing that makes it not.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

use sign::{
    Algorithm, Envelope, EnvelopeError, PrivateKey, Rejection, Seen, SeenError, Trust, TrustError, VerifiedRelease,
    Wanted, pre_authentication_encoding, sign_release, verify_release,
};
use spec::manifest::Class;
use spec::release::{FILE_NAME, Release};
use spec::time::Timestamp;
use spec::{Diagnostic as _, Outcome, Sha256Digest};
use store::Image;
use tempfile::TempDir;

struct World {
    directory: TempDir,
    key: PrivateKey,
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn release(sequence: u64) -> Release {
    Release {
        name: "minimal".to_owned(),
        class: Class::Dev,
        sequence,
        expires: time("2027-06-30T00:00:00Z"),
        guest_svn: 3,
    }
}

fn write_manifest(directory: &Path, root_hash: &str) {
    let zeros = "00".repeat(32);
    let text = format!(
        r#"{{"schema":1,"name":"minimal","class":"dev","standing":"published","format_epoch":1,
        "artifacts":{{"vmlinuz":{{"size":6,"sha256":"{zeros}"}}}},
        "verity":{{"algorithm":"sha256","block_size":4096,"data_blocks":1,"hash_offset":4096,"salt":"","root_hash":"{root_hash}"}},
        "kernel_version":"7","command_line":"","lock_sha256":"{zeros}","inputs":[],
        "recipe":{{"name":"minimal","kind":"tree","architecture":"amd64","suites":{{}},"packages":[],"dependencies":false,"assume":[]}},
        "guest":{{"sha256":"{zeros}","size":1,"origin":"host"}},"references":{{}}}}"#
    );
    fs::write(directory.join("manifest.json"), text).unwrap();
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        write_manifest(directory.path(), &"aa".repeat(32));
        let key = PrivateKey::generate(Algorithm::EcdsaP384).unwrap();
        let world = Self { directory, key };
        world.sign(&release(5));
        world
    }

    fn image(&self) -> Image {
        Image::open(self.directory.path()).unwrap()
    }

    fn statement(&self) -> std::path::PathBuf {
        self.directory.path().join(FILE_NAME)
    }

    fn sign(&self, release: &Release) {
        let image = self.image();
        let bytes = sign_release(&image.manifest, image.manifest_sha256, release.clone(), &self.key).unwrap();
        fs::write(self.statement(), bytes).unwrap();
    }

    fn trust(&self, keys: &[&PrivateKey]) -> Trust {
        let mut trust = Trust::default();
        for (number, key) in keys.iter().enumerate() {
            let path = self.directory.path().join(format!("{number}.pub"));
            fs::write(&path, key.public().to_pem().unwrap()).unwrap();
            trust.add(&path).unwrap();
        }
        trust
    }

    fn verify_with(&self, trust: &Trust, now: &str, allow_dev: bool) -> Result<VerifiedRelease, Rejection> {
        let seen = Seen::in_directory(&self.directory.path().join("seen"));
        verify_release(&self.image(), &Wanted { trust, now: time(now), allow_dev, seen: &seen })
    }

    fn verify(&self) -> Result<VerifiedRelease, Rejection> {
        self.verify_with(&self.trust(&[&self.key]), "2027-01-01T00:00:00Z", true)
    }
}

#[test]
fn a_good_release_is_accepted_again_and_again() {
    let world = World::new();
    for _ in 0..2 {
        let verified = world.verify().unwrap();
        assert_eq!(verified.release(), &release(5));
        assert_eq!(verified.manifest_sha256(), &world.image().manifest_sha256);
        assert_eq!(verified.key(), &world.key.public().id().unwrap());
    }
}

#[test]
fn the_key_must_be_trusted() {
    let world = World::new();
    let others: Vec<PrivateKey> =
        [Algorithm::EcdsaP384, Algorithm::Ed25519].map(|algorithm| PrivateKey::generate(algorithm).unwrap()).into();
    let now = "2027-01-01T00:00:00Z";
    let error = world.verify_with(&Trust::default(), now, true).unwrap_err();
    assert!(matches!(error, Rejection::NoTrust));
    assert_eq!(error.outcome(), Outcome::SignatureInvalid);
    let error = world.verify_with(&world.trust(&[&others[0], &others[1]]), now, true).unwrap_err();
    assert!(matches!(error, Rejection::Envelope(EnvelopeError::NotTrusted { tried: 2, .. })));
    assert_eq!(error.outcome(), Outcome::SignatureInvalid);
    // One of several will do.
    world.verify_with(&world.trust(&[&others[0], &world.key]), now, true).unwrap();
}

#[test]
fn every_changed_byte_of_the_statement_is_refused() {
    let world = World::new();
    let good = fs::read(world.statement()).unwrap();
    let trust = world.trust(&[&world.key]);
    for position in 0..good.len() - 1 {
        let mut bytes = good.clone();
        bytes[position] ^= 1;
        fs::write(world.statement(), &bytes).unwrap();
        match world.verify_with(&trust, "2027-01-01T00:00:00Z", true) {
            Err(error) => assert_eq!(error.outcome(), Outcome::SignatureInvalid, "{position}: {error}"),
            // The key identifier is not signed (DSSE v1): the right key is found all the same.
            Ok(_) => {
                let text = String::from_utf8_lossy(&good);
                let start = text.find("\"keyid\":\"").unwrap();
                assert!((start..start + 9 + 64).contains(&position), "{position}");
            }
        }
    }
    fs::remove_file(world.statement()).unwrap();
    assert!(matches!(world.verify(), Err(Rejection::Unsigned { .. })));
}

#[test]
fn the_release_of_another_image_is_refused() {
    let world = World::new();
    write_manifest(world.directory.path(), &"bb".repeat(32));
    let error = world.verify().unwrap_err();
    assert!(matches!(&error, Rejection::OtherImage { what, .. } if what.contains("manifest.json")), "{error}");
    assert_eq!(error.outcome(), Outcome::SignatureInvalid);
    // A signer that says another name or class than its own manifest is not believed either.
    world.sign(&Release { name: "other".to_owned(), ..release(5) });
    assert!(matches!(world.verify(), Err(Rejection::OtherImage { .. })));
    world.sign(&Release { class: Class::Release, ..release(5) });
    assert!(matches!(world.verify(), Err(Rejection::OtherImage { .. })));
}

#[test]
fn an_expired_release_is_refused_from_its_last_second_on() {
    let world = World::new();
    let trust = world.trust(&[&world.key]);
    world.verify_with(&trust, "2027-06-29T23:59:59Z", true).unwrap();
    let error = world.verify_with(&trust, "2027-06-30T00:00:00Z", true).unwrap_err();
    assert!(matches!(error, Rejection::Expired { .. }));
    assert_eq!(error.outcome(), Outcome::SignatureInvalid);
}

#[test]
fn class_dev_is_refused_unless_the_caller_takes_the_risk() {
    let world = World::new();
    let error = world.verify_with(&world.trust(&[&world.key]), "2027-01-01T00:00:00Z", false).unwrap_err();
    assert!(matches!(error, Rejection::Dev));
    assert_eq!(error.outcome(), Outcome::Refused);
}

#[test]
fn an_older_release_is_refused_and_so_is_another_of_the_same_number() {
    let world = World::new();
    world.verify().unwrap();
    world.sign(&release(7));
    world.verify().unwrap();
    for sequence in [5, 6] {
        world.sign(&release(sequence));
        let error = world.verify().unwrap_err();
        assert!(matches!(error, Rejection::Seen(SeenError::Older { last: 7, .. })), "{error}");
        assert_eq!(error.outcome(), Outcome::Refused);
    }
    write_manifest(world.directory.path(), &"bb".repeat(32));
    world.sign(&release(7));
    assert!(matches!(world.verify(), Err(Rejection::Seen(SeenError::Other { sequence: 7, .. }))));
    // A release that is refused for another reason is not recorded: 9 was never accepted, so 8 is.
    world.sign(&release(9));
    world.verify_with(&world.trust(&[&world.key]), "2028-01-01T00:00:00Z", true).unwrap_err();
    world.sign(&release(8));
    world.verify().unwrap();
    // A damaged record is no reason to forget.
    let records = world.directory.path().join("seen").join(world.key.public().id().unwrap().to_string());
    let record = records.join(format!("{}.json", Sha256Digest::of(b"minimal")));
    fs::write(&record, "{}").unwrap();
    assert!(matches!(world.verify(), Err(Rejection::Seen(SeenError::Damaged { .. }))));
}

#[test]
fn a_trust_directory_has_pub_files_and_is_not_everybodys() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let directory = world.directory.path().join("trust");
    fs::create_dir(&directory).unwrap();
    let mut trust = Trust::default();
    trust.add(&directory).unwrap();
    trust.add_if_there(&world.directory.path().join("nowhere")).unwrap();
    assert!(trust.keys().is_empty());
    fs::write(directory.join("a.pub"), world.key.public().to_pem().unwrap()).unwrap();
    fs::write(directory.join("README"), "not a key").unwrap();
    trust.add(&directory).unwrap();
    assert_eq!(trust.keys(), [world.key.public()]);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(trust.add(&directory), Err(TrustError::Writable { mode: 0o777, .. })));
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.join("b.pub"), world.key.to_pem().unwrap()).unwrap();
    assert!(matches!(trust.add(&directory), Err(TrustError::Key(_))));
}

#[test]
fn the_encoding_that_is_signed_is_the_published_example() {
    // DSSE v1 protocol, "Test vectors".
    let found = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
    assert_eq!(found, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn an_envelope_of_another_type_is_not_opened() {
    let key = PrivateKey::generate(Algorithm::Ed25519).unwrap();
    let keys = [key.public()];
    let envelope = Envelope::seal("text/plain", b"payload", &key).unwrap();
    let again = Envelope::parse("x", &envelope.to_bytes().unwrap()).unwrap();
    assert_eq!(again.open("x", "text/plain", &keys).unwrap().0, b"payload");
    assert!(matches!(again.open("x", "text/html", &keys), Err(EnvelopeError::Malformed { .. })));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered(bytes: Vec<u8>, text in "\\{\"payload\":\"[a-zA-Z0-9+/=]{0,20}\",\"payloadType\":\"t\",\"signatures\":\\[\\{\"sig\":\"[A-Z=]{0,9}\"\\}\\]\\}") {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            if let Ok(envelope) = Envelope::parse("x", bytes) {
                assert!(envelope.open("x", "t", &[]).is_err());
            }
            let _ = spec::release::Statement::parse("x", bytes);
        }
    }
}
