//! Keys, bundles and the check of releases, as a publisher and an operator run them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Bench, Run, bench, judge, names, run};

/// A scratch directory with a key and a state directory of its own.
struct Desk<'a> {
    bench: &'a Bench,
    scratch: tempfile::TempDir,
}

impl<'a> Desk<'a> {
    fn new(bench: &'a Bench) -> Self {
        let desk = Self { bench, scratch: tempfile::tempdir().unwrap() };
        desk.run(&["keygen", "-o", "key"]).expect(0, &["not encrypted"]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Runs the program in the scratch directory, with the state kept there.
    fn run(&self, words: &[&str]) -> Run {
        let mut command = self.bench.command(words);
        command.current_dir(self.scratch.path()).env("BULLION_STATE_DIR", self.path("state"));
        run(command.env("BULLION_RUN_DIR", self.path("run")).env("XDG_CONFIG_HOME", self.path("config")))
    }

    fn publish(&self, bundle: &str, key: &str, sequence: &str) {
        let image = self.bench.image().to_str().unwrap();
        self.run(&["publish", image, "--key", key, "-o", bundle, "--sequence", sequence, "--replace"])
            .expect(0, &["class dev"]);
    }

    fn verify(&self, bundle: &str, words: &[&str]) -> Run {
        self.run(&[&["image", "verify", bundle], words].concat())
    }
}

const TRUST: [&str; 3] = ["--trust", "key.pub", "--dangerously-allow-dev"];

/// What DSSE says is signed, put together by Python, with what is in the envelope.
const PAE: &str = r#"
import base64, json, sys
envelope = json.load(open(sys.argv[1]))
payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
open("pae", "wb").write(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
open("signature", "wb").write(base64.b64decode(envelope["signatures"][0]["sig"]))
open("payload", "wb").write(payload)
"#;

const SECURESYSTEMSLIB: &str = r#"
import json, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
value = json.load(open(sys.argv[1]))
keyid = value["signatures"][0]["keyid"]
key = SSlibKey.from_crypto(load_pem_public_key(open(sys.argv[2], "rb").read()), keyid=keyid)
assert list(Envelope.from_dict(value).verify([key], 1)) == [keyid]
"#;

#[test]
fn others_accept_the_signature_of_a_bundle() {
    let Some(bench) = bench() else { return };
    let desk = Desk::new(&bench);
    desk.run(&["keygen", "-o", "ed", "--algorithm", "ed25519"]).expect(0, &[]);
    for (key, words) in [
        ("key", "dgst -sha384 -verify key.pub -signature signature pae"),
        ("ed", "pkeyutl -verify -pubin -inkey ed.pub -rawin -in pae -sigfile signature"),
    ] {
        desk.publish("bundle", key, "1");
        let Some(mut python) = judge("judge-python") else { return };
        let at = |command: &mut Command| run(command.current_dir(desk.scratch.path()));
        at(python.args(["-c", PAE, "bundle/release.dsse.json"])).expect(0, &[]);
        at(Command::new("openssl").args(words.split(' '))).expect(0, &[]);
        let public = format!("{key}.pub");
        at(judge("judge-python").unwrap().args(["-c", SECURESYSTEMSLIB, "bundle/release.dsse.json", &public]))
            .expect(0, &[]);
        // The subjects are the files, as sha256sum sees them.
        let statement: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("payload")).unwrap()).unwrap();
        let lines: String = statement["subject"]
            .as_array()
            .unwrap()
            .iter()
            .map(|file| format!("{}  {}\n", file["digest"]["sha256"].as_str().unwrap(), file["name"].as_str().unwrap()))
            .collect();
        fs::write(desk.path("sums"), &lines).unwrap();
        run(Command::new("sha256sum").args(["-c", "../sums"]).current_dir(desk.path("bundle"))).expect(0, &[]);
        assert_eq!(lines.lines().count() + 1, names(&desk.path("bundle")).len());
    }
}

#[test]
fn a_bundle_is_the_image_and_its_release() {
    let Some(bench) = bench() else { return };
    let desk = Desk::new(&bench);
    desk.publish("bundle", "key", "5");
    let mut expected = names(bench.image());
    expected.push("release.dsse.json".to_owned());
    expected.sort();
    assert_eq!(names(&desk.path("bundle")), expected);
    let answer = desk.verify("bundle", &[&TRUST[..], &["--json"]].concat()).expect(0, &[]).json();
    assert_eq!(answer["release"]["sequence"], 5);
    // The same image, key, number and expiry give the same bits.
    let image = bench.image().to_str().unwrap();
    for output in ["one", "two"] {
        let words = ["publish", image, "--key", "key", "-o", output, "--sequence", "6", "--expires", "9999-01-01"];
        desk.run(&words).expect(0, &[]);
    }
    assert_eq!(read(&desk.path("one/release.dsse.json")), read(&desk.path("two/release.dsse.json")));
    desk.run(&["publish", image, "--key", "key", "-o", "one"]).expect(2, &["is there already", "--replace"]);
    desk.run(&["publish", image, "--key", "key", "-o", "x", "--expires", "2020-01-01"]).expect(2, &["is past"]);
    desk.run(&["keygen", "-o", "key"]).expect(2, &["never overwritten"]);
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn a_bundle_is_refused_with_the_reason() {
    let Some(bench) = bench() else { return };
    let desk = Desk::new(&bench);
    desk.run(&["keygen", "-o", "other"]).expect(0, &[]);
    desk.publish("bundle", "key", "5");
    desk.verify("bundle", &[]).expect(5, &["no key is trusted", "--trust"]);
    desk.verify("bundle", &["--trust", "other.pub"]).expect(5, &["no good signature by a trusted key"]);
    desk.verify("bundle", &["--trust", "key"]).expect(2, &["not a public key"]);
    desk.verify("bundle", &["--trust", "key.pub"]).expect(6, &["class dev", "--dangerously-allow-dev"]);
    desk.verify(bench.image().to_str().unwrap(), &TRUST).expect(5, &["not signed", "bullion publish"]);
    // A trusted key in the user's directory will do.
    fs::create_dir_all(desk.path("config/bullion/trust")).unwrap();
    fs::copy(desk.path("key.pub"), desk.path("config/bullion/trust/publisher.pub")).unwrap();
    desk.verify("bundle", &["--dangerously-allow-dev"]).expect(0, &[]);
    // A step back.
    desk.publish("older", "key", "4");
    desk.verify("older", &TRUST).expect(6, &["older than release 5"]);
    // A file, those that only tell about the image among them, that is not the one that was released.
    for file in ["rootfs", "recipe.lock", "sbom.spdx.json", "sbom.cdx.json", "provenance.json"] {
        desk.publish("damaged", "key", "6");
        let mut bytes = read(&desk.path("damaged").join(file));
        bytes[99] ^= 1;
        fs::write(desk.path("damaged").join(file), bytes).unwrap();
        desk.verify("damaged", &TRUST).expect(4, &[file, "expected SHA-256"]);
    }
    // A manifest of other files, with the release of the right ones.
    fs::copy(desk.path("older/release.dsse.json"), desk.path("bundle/release.dsse.json")).unwrap();
    let text = String::from_utf8(read(&desk.path("bundle/manifest.json"))).unwrap();
    fs::write(desk.path("bundle/manifest.json"), text.replace("\"format_epoch\":2", "\"format_epoch\":9")).unwrap();
    desk.verify("bundle", &TRUST).expect(5, &["not about this image", "manifest.json"]);
}

#[test]
fn a_tee_gets_signed_releases_only() {
    let Some(bench) = bench() else { return };
    let desk = Desk::new(&bench);
    desk.publish("bundle", "key", "5");
    let launch = |tee: &str, image: &Path, words: &[&str]| {
        let vm = bench.vm(desk.scratch.path(), &format!("t-signed-{tee}"), tee, 1, image);
        let vmm = bench.vmm_words();
        let vmm: Vec<&str> = vmm.iter().map(String::as_str).collect();
        desk.run(&[&["launch", vm.to_str().unwrap()], &vmm[..], words].concat())
    };
    for tee in ["snp", "tdx"] {
        let unsigned = launch(tee, bench.image(), &[]).expect(5, &["not signed", "--dangerously-allow-unsigned"]);
        assert!(!unsigned.stderr.contains("QEMU started"), "{unsigned:?}");
        launch(tee, &desk.path("bundle"), &[]).expect(5, &["no key is trusted"]);
        launch(tee, &desk.path("bundle"), &["--trust", "key.pub"]).expect(6, &["class dev"]);
        // Past the signature, this host turns out to have no TEE, or the plan goes through.
        for words in [&TRUST[..], &["--dangerously-allow-unsigned"]] {
            let run = launch(tee, &desk.path("bundle"), &[words, &["--plan"]].concat());
            assert!(matches!(run.code, 0 | 3), "{run:?}");
        }
    }
    // Without a TEE nobody could check a signature either, so it is asked for only where a key is named.
    launch("none", bench.image(), &["--plan"]).expect(0, &[]);
    launch("none", bench.image(), &[&TRUST[..], &["--plan"]].concat()).expect(5, &["not signed"]);
    launch("none", &desk.path("bundle"), &[&TRUST[..], &["--plan"]].concat()).expect(0, &[]);
}
