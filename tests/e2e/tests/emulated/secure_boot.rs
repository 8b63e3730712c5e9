//! Secure Boot: keys by `openssl` and `virt-fw-vars`, signatures by `sbsign`, and firmware that verifies what it starts.

use std::path::{Path, PathBuf};

use e2e::bench;
use e2e::emulator::{Firmware, Trees};
use measure::eventlog::{AlgorithmId, EventLog, EventType};
use measure::uefi::{SecureBootVariables, VariableStore};

use crate::memory::{SIGNATURE, log, memchr};
use crate::predicted::*;

/// Keys and signatures by `openssl` and `sbsign`; `None` where these judges are not there.
struct Keys<'a> {
    directory: &'a Path,
}

impl Keys<'_> {
    fn run(&self, program: &str, words: &[&str]) -> Option<()> {
        let output = e2e::judge(program)?.args(words).current_dir(self.directory).output().unwrap();
        assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(())
    }

    /// A certificate NAME.pem and its key NAME.key: of an authority, issued by `issuer` or by itself.
    fn certificate(&self, name: &str, issuer: Option<&str>) -> Option<()> {
        let (key, pem, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN=Test {name}"));
        let mut words = vec!["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", &subject];
        words.extend(["-keyout", &key, "-out", &pem]);
        let of_issuer = issuer.map(|issuer| (format!("{issuer}.pem"), format!("{issuer}.key")));
        if let Some((pem, key)) = &of_issuer {
            words.extend(["-CA", pem, "-CAkey", key]);
        }
        self.run("openssl", &words)
    }

    /// `image` signed: the signed file.
    fn sign(&self, image: &Path, name: &str, carried: Option<&str>) -> Option<PathBuf> {
        let (key, pem, signed) = (format!("{name}.key"), format!("{name}.pem"), self.directory.join("signed.efi"));
        let carried = carried.map(|name| format!("{name}.pem"));
        let (image, to) = (image.display().to_string(), signed.display().to_string());
        let mut words = vec!["--key", &key, "--cert", &pem, "--output", &to];
        words.extend(carried.iter().flat_map(|pem| ["--addcert", pem]));
        words.push(&image);
        self.run("sbsign", &words)?;
        Some(signed)
    }
}

/// Debian's test key, for which it ships variables: the kernel is signed with it, and firmware measures the one entry of db. Unsigned, it
/// would not be started, and nothing is predicted.
#[test]
fn a_signed_kernel_is_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let keys = Keys { directory: directory.path() };
    let shipped = |name: &str| trees.ovmf("../ovmf").join(name).display().to_string();
    std::fs::copy(shipped("PkKek-1-snakeoil.pem"), directory.path().join("snakeoil.pem")).unwrap();
    // Its password is written beside it in the package.
    let (key, out) = (shipped("PkKek-1-snakeoil.key"), "snakeoil.key");
    let made = keys.run("openssl", &["pkey", "-in", &key, "-passin", "pass:snakeoil", "-out", out]);
    let signed = made.and_then(|()| keys.sign(&bench.image().join("vmlinuz"), "snakeoil", None));
    let Some(kernel) = signed else { return };
    let (mut words, cmdline) = direct_words(bench.image());
    words[1] = kernel.display().to_string();
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.secboot.fd"), trees.ovmf("OVMF_VARS_4M.snakeoil.fd"));
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let initrd = bench.image().join("initrd");
    let files =
        Files { code: &code, variables: &variables, kernel: &kernel, initrd: Some(&initrd), cmdline: Some(&cmdline) };
    assert_as_predicted_but_for_pcr_0(&stopped, &prediction(&bench, &files, &stopped));
    let path = |path: &Path| path.display().to_string();
    // Debian has signed it, for a certificate that is not in this db.
    let foreign = ["measure", "tpm", "--firmware", &path(&code), "--variables", &path(&variables), "--fw-cfg"];
    let foreign = foreign.map(str::to_owned).into_iter().chain([path(&stopped.fw_cfg), "--kernel".into()]);
    bench
        .run(foreign.chain([path(&bench.image().join("vmlinuz"))]))
        .expect(6, &["does not start the image", "no certificate in db leads to"]);
}

/// Keys of our own, enrolled by `virt-fw-vars`: db has a certificate that has nothing to do with it before the root that a unified kernel
/// image leads to, by a certificate that its signature carries.
#[test]
fn a_unified_kernel_image_is_verified_by_a_chain() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(uki) = unified_image(&bench, directory.path()) else { return };
    let keys = Keys { directory: directory.path() };
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.secboot.fd"), directory.path().join("variables.fd"));
    let (empty, enrolled) = (trees.ovmf("OVMF_VARS_4M.fd").display().to_string(), variables.display().to_string());
    const OWNER: &str = "4dbb5ac1-6d3e-4bb8-95b9-8d5c1d2aa1f0";
    let signed = (|| {
        keys.certificate("other", None)?;
        keys.certificate("root", None)?;
        keys.certificate("middle", Some("root"))?;
        keys.certificate("leaf", Some("middle"))?;
        let words =
            ["--input", &empty, "--output", &enrolled, "--set-pk", OWNER, "other.pem", "--add-kek", OWNER, "other.pem"];
        let db = ["--add-db", OWNER, "other.pem", "--add-db", OWNER, "root.pem", "--secure-boot"];
        keys.run("virt-fw-vars", &[&words[..], &db].concat())?;
        keys.sign(&uki, "leaf", Some("middle"))
    })();
    let Some(signed) = signed else { return };
    let words = ["-kernel".to_owned(), signed.display().to_string()];
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let files = Files { code: &code, variables: &variables, kernel: &signed, initrd: None, cmdline: None };
    assert_as_predicted_but_for_pcr_0(&stopped, &prediction(&bench, &files, &stopped));
    let log = log(&stopped.memory).unwrap();
    let authorities = log.events.iter().filter(|event| event.event_type == EventType::EV_EFI_VARIABLE_AUTHORITY);
    let root = std::fs::read_to_string(directory.path().join("root.pem")).unwrap();
    let used: Vec<_> = authorities.map(|event| event.data).collect();
    assert_eq!(used.len(), 1);
    assert!(used[0].ends_with(&der(&root)), "the root certificate");
}

/// A certificate in PEM as DER.
fn der(pem: &str) -> Vec<u8> {
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    e2e::vectors::piped("base64", &["-d"], text.as_bytes()).unwrap()
}

/// Firmware with Secure Boot and no keys, as the TDX default is: its PCR 7. Its PCR 0 covers a volume that it has written to.
#[test]
fn variables_without_keys_are_measured_as_predicted() {
    let (Some(bench), Some(trees)) = (bench(), Trees::find()) else { return };
    let (words, _) = direct_words(bench.image());
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.secboot.fd"), trees.ovmf("OVMF_VARS_4M.fd"));
    let stopped = trees.boot(Firmware::Split(&code, &variables), &words, |memory| log(memory).is_some());
    let log = log(&stopped.memory).unwrap();
    for (number, value) in log.replay_pcrs(AlgorithmId::SHA384).unwrap() {
        assert_eq!(stopped.pcrs[&number], measure::digest::encode_hex(&value), "PCR {number}");
    }
    let store = std::fs::read(&variables).unwrap();
    let mut predicted: Vec<_> = SecureBootVariables::of_store(&VariableStore::parse(&store).unwrap()).events();
    predicted.push(("separator", measure::Digest384::of(&[0; 4])));
    let logged = log.events.iter().filter(|event| event.index == 7).map(|event| event.sha384().unwrap());
    assert_eq!(predicted.into_iter().map(|(_, digest)| digest).collect::<Vec<_>>(), logged.collect::<Vec<_>>());
}

/// The same with the keys that Debian enrols: SecureBoot, PK, KEK, db and dbx, before anything is started.
#[test]
fn enrolled_variables_are_measured_as_predicted() {
    let Some(trees) = Trees::find() else { return };
    let (code, variables) = (trees.ovmf("OVMF_CODE_4M.secboot.fd"), trees.ovmf("OVMF_VARS_4M.ms.fd"));
    let store = std::fs::read(&variables).unwrap();
    let store = VariableStore::parse(&store).unwrap();
    assert!(store.has_keys());
    let mut predicted: Vec<_> = SecureBootVariables::of_store(&store).events();
    predicted.push(("separator", measure::Digest384::of(&[0; 4])));
    let predicted: Vec<_> = predicted.into_iter().map(|(_, digest)| digest).collect();
    // There is nothing to boot: firmware has measured all of PCR 7 when its menu starts.
    let logged = |memory: &[u8]| {
        let logs = memchr(memory, SIGNATURE)
            .filter_map(|position| EventLog::parse_lenient(memory.get(position.checked_sub(32)?..)?).ok());
        let of_pcr_7 = logs.map(|(log, _)| {
            let events = log.events.iter().filter(|event| event.index == 7 && event.event_type.name().is_some());
            events.filter_map(|event| event.sha384()).collect::<Vec<_>>()
        });
        of_pcr_7.max_by_key(Vec::len).filter(|events| events.len() >= predicted.len())
    };
    let stopped = trees.boot(Firmware::Split(&code, &variables), &[], |memory| logged(memory).is_some());
    assert_eq!(logged(&stopped.memory).unwrap(), predicted);
    let pcr = predicted.iter().fold(measure::Digest384::ZERO, |pcr, digest| pcr.extended(digest));
    assert_eq!(stopped.pcrs[&7], pcr.to_string());
}
