//! Reading packages: the good, the bad and the random.

mod support;

use image::deb::{self, DebError, EntryKind};
use proptest::prelude::*;
use spec::{Diagnostic as _, Outcome};
use support::{Deb, ar, deb_of, pack};
use tar::EntryType;

#[test]
fn a_package_is_read_whatever_its_compression() {
    let long = format!("./usr/share/{}/{}", "d".repeat(90), "f".repeat(120));
    for ending in ["", ".xz", ".zst", ".gz"] {
        let package = Deb::new("demo")
            .directory("./usr/")
            .file(&long, "long")
            .entry("./usr/su", EntryType::Regular, 0o4755, None, b"suid")
            .link("./usr/link", "../etc/x")
            .hard_link("./usr/hard", "./usr/su");
        let package = deb::read(&package.build_as(ending)).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("demo", "1.0-1"));
        let paths: Vec<&str> = package.entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["", "usr", &long[2..], "usr/su", "usr/link", "usr/hard"], "{ending}");
        assert!(matches!(&package.entries[2].kind, EntryKind::File(content) if content.bytes() == b"long"));
        assert_eq!(package.entries[3].mode, 0o4755);
        assert_eq!(package.entries[4].kind, EntryKind::Symlink("../etc/x".to_owned()));
        assert_eq!(package.entries[5].kind, EntryKind::HardLink("usr/su".to_owned()));
    }
}

#[test]
fn extended_attributes_are_read_and_unknown_ones_refused() {
    let value = b"\x01\0\0\x02\0\x20\0\0\n\0\0\0\0\0\0\0\0\0\0\0";
    let with = |name: &str| Deb::new("demo").xattr(name, value).file("./usr/ping", "x").file("./usr/other", "y");
    let package = deb::read(&with("security.capability").build()).unwrap();
    assert_eq!(package.entries[1].xattrs, [("security.capability".to_owned(), value.to_vec())].into());
    assert!(package.entries[2].xattrs.is_empty());
    refused(with("system.unheard_of").build(), "does not know");
}

#[track_caller]
fn refused(deb: Vec<u8>, word: &str) {
    let error = deb::read(&deb).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains(word), "{error}");
    assert_eq!(error.outcome(), Outcome::InputMismatch);
}

#[test]
fn paths_that_lead_outside_are_refused() {
    for (path, word) in [
        ("./../etc/passwd", "climbs"),
        ("./a/../../b", "climbs"),
        ("/etc/passwd", "absolute"),
        ("./a//b", "empty part"),
        ("./a/./b", "empty part"),
        ("./a\nb", "control character"),
    ] {
        refused(Deb::new("bad").file(path, "x").build(), word);
    }
    refused(Deb::new("bad").file(&format!("./{}", "n".repeat(256)), "x").build(), "too long");
}

#[test]
fn links_that_lead_outside_are_refused() {
    refused(Deb::new("bad").link("./a", "../etc/passwd").build(), "leads outside");
    refused(Deb::new("bad").link("./a/b", "c/../../../x").build(), "leads outside");
    refused(Deb::new("bad").link("./a", "/../x").build(), "leads outside");
    refused(Deb::new("bad").link("./a", "").build(), "without a target");
    refused(Deb::new("bad").hard_link("./a", "./missing").build(), "hard link");
    refused(Deb::new("bad").link("./l", "x").hard_link("./a", "./l").build(), "hard link");
    refused(Deb::new("bad").hard_link("./a", "/etc/passwd").build(), "absolute");
}

#[test]
fn devices_fifos_and_unknown_types_are_refused() {
    refused(Deb::new("bad").entry("./dev/sda", EntryType::Block, 0o600, None, b"").build(), "device node");
    refused(Deb::new("bad").entry("./dev/mem", EntryType::Char, 0o600, None, b"").build(), "device node");
    refused(Deb::new("bad").entry("./pipe", EntryType::Fifo, 0o600, None, b"").build(), "FIFO");
    refused(Deb::new("bad").entry("./odd", EntryType::new(b'Q'), 0o600, None, b"").build(), "unknown type");
    refused(Deb::new("bad").entry("./", EntryType::Regular, 0o644, None, b"x").build(), "stands for the root");
}

#[test]
fn a_member_that_comes_twice_is_refused() {
    refused(Deb::new("bad").file("./a", "1").file("./a", "2").build(), "comes twice");
    refused(Deb::new("bad").directory("./a").file("./a/", "2").build(), "comes twice");
}

#[test]
fn a_size_that_lies_is_refused() {
    let deb = Deb::new("bad").file("./a", "x").build_as("");
    // Cut the data archive inside the content of its last file, and mend the size in the ar header.
    let whole = deb::read(&deb).unwrap();
    assert_eq!(whole.entries.len(), 2);
    let mut tar = tar::Header::new_gnu();
    tar.as_old_mut().name[..3].copy_from_slice(b"./a");
    tar.set_size(1 << 40);
    tar.set_mode(0o644);
    tar.set_uid(0);
    tar.set_gid(0);
    tar.set_mtime(0);
    tar.set_cksum();
    refused(
        deb_of("Package: a\nVersion: 1\nArchitecture: all\n", "data.tar", tar.as_bytes()),
        "larger than the archive",
    );
    for cut in [deb.len() - 1400, 200, 70, 8, 3, 0] {
        assert!(deb::read(&deb[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_fills_the_memory() {
    // 64 MiB of zeros: xz makes about 10 kB of it, zstd less. gzip cannot do so: its best is 1032 to 1.
    let zeros = vec![0; 64 << 20];
    for ending in [".xz", ".zst"] {
        let data = pack(&zeros, ending);
        let name = format!("data.tar{ending}");
        let error = deb::read(&deb_of("Package: a\nVersion: 1\nArchitecture: all\n", &name, &data)).unwrap_err();
        assert!(matches!(error, DebError::Bomb { limit, .. } if limit == 16 << 20), "{ending}: {error}");
        assert!(
            error.to_string().starts_with(&format!("{name} of {} bytes unpacks to more than", data.len())),
            "{error}"
        );
    }
}

#[test]
fn a_compressed_member_that_is_cut_or_spoilt_is_refused() {
    let control = "Package: a\nVersion: 1\nArchitecture: all\n";
    let noise: Vec<u8> = (0u32..4096).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for ending in [".xz", ".zst", ".gz"] {
        let good = pack(&noise, ending);
        let name = format!("data.tar{ending}");
        let mut spoilt = good.clone();
        spoilt[..4].copy_from_slice(b"????");
        for (what, bytes) in [("cut", &good[..good.len() / 2]), ("empty", &[][..]), ("spoilt", &spoilt)] {
            let error = deb::read(&deb_of(control, &name, bytes)).unwrap_err();
            assert!(matches!(&error, DebError::Codec { member, .. } if *member == name), "{ending}, {what}: {error}");
        }
    }
}

#[test]
fn an_ar_member_whose_size_lies_is_refused() {
    let deb = Deb::new("demo").file("./a", "x").build_as("");
    let size_at = |member: usize| 8 + 60 * member + 48;
    for (digits, word) in
        [("9999999999", "larger than the file"), ("-1        ", "not a number"), ("          ", "not a number")]
    {
        let mut lying = deb.clone();
        lying[size_at(0)..size_at(0) + 10].copy_from_slice(digits.as_bytes());
        refused(lying, word);
    }
    // Shorter than it is: what should be the next header is not one.
    let mut short = deb.clone();
    short[size_at(0)..size_at(0) + 10].copy_from_slice(b"2         ");
    assert!(matches!(deb::read(&short), Err(DebError::Archive { .. })));
}

#[test]
fn what_is_not_a_package_is_refused() {
    let control = "Package: a\nVersion: 1\nArchitecture: all\n";
    let good = deb_of(control, "data.tar", &[0; 1024]);
    assert!(deb::read(&good).is_ok());
    assert!(matches!(deb::read(&deb_of("Package: a\n", "data.tar", &[])), Err(DebError::Control("Version"))));
    refused(deb_of(control, "data.tar.lzma", &[]), "data.tar.lzma");
    refused(deb_of(control, "data.tar.xz", b"not xz"), "cannot decode");
    refused(ar(&[("debian-binary", b"3.0\n")]), "version");
    refused(ar(&[("debian-binary", b"2.0\n")]), "the end of the file");
    refused(ar(&[("control.tar", b"")]), "debian-binary");
    refused([good.clone(), ar(&[("extra", b"")])[8..].to_vec()].concat(), "follows");
    let mut trailing = pack(&[0; 1024], ".xz");
    trailing.extend(b"more");
    refused(deb_of(control, "data.tar.xz", &trailing), "cannot decode");
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = deb::read(&bytes);
        let _ = deb::read(&ar(&[("debian-binary", b"2.0\n"), ("control.tar", &bytes), ("data.tar", &bytes)]));
        let _ = deb::read(&deb_of("Package: a\nVersion: 1\nArchitecture: all\n", "data.tar", &bytes));
        let _ = deb::read(&deb_of("Package: a\nVersion: 1\nArchitecture: all\n", "data.tar.xz", &bytes));
    }

    #[test]
    fn damage_to_a_package_never_panics(at in 0usize..4000, byte in any::<u8>()) {
        let mut deb = Deb::new("demo").file("./a", "x").link("./b", "a").hard_link("./c", "./a").build_as("");
        if let Some(place) = deb.get_mut(at) {
            *place = byte;
        }
        // Whatever is accepted stays inside the tree.
        if let Ok(package) = deb::read(&deb) {
            for entry in package.entries {
                prop_assert!(!entry.path.starts_with('/') && !entry.path.split('/').any(|part| part == ".."));
            }
        }
    }
}

#[test]
fn every_script_is_answered_or_named() {
    let script =
        "#!/bin/sh\nset -e\n# Automatically added by dh_installsystemd/13\nx\n# End automatically added section\n";
    let own = "#!/bin/sh\nmkdir /var/own\n";
    let control = |scripts: &[(&str, &str)]| {
        let scripts = scripts.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        deb::Control { scripts, ..deb::Control::default() }
    };
    let control =
        control(&[("postinst", script), ("preinst", own), ("prerm", own), ("triggers", "activate-noawait ldconfig\n")]);
    let none = std::collections::BTreeMap::new();
    let answers = image::scripts::answers("demo", &control, &none);
    let open: Vec<&str> =
        answers.iter().filter(|answer| !answer.is_answered()).map(|answer| answer.name.as_str()).collect();
    assert_eq!(open, ["preinst"]);
    assert_eq!(answers.iter().find(|answer| answer.name == "triggers").unwrap().effects, ["loader-cache"]);
    let given = [("demo".to_owned(), spec::recipe::ScriptAnswer { ignore: "the guest makes it".to_owned() })].into();
    let answers = image::scripts::answers("demo", &control, &given);
    assert!(answers.iter().all(spec::lock::Script::is_answered));
    assert_eq!(answers[1].ignored.as_deref(), Some("the guest makes it"));
    // An answer to another package says nothing.
    assert!(!image::scripts::answers("other", &control, &given)[1].is_answered());
}

#[test]
fn a_control_archive_with_two_readings_is_refused() {
    let control = "Package: a\nVersion: 1\nArchitecture: all\n";
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["control", "./control"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(control.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        tar.append_data(&mut header, name, control.as_bytes()).unwrap();
    }
    let control = pack(&tar.into_inner().unwrap(), ".gz");
    let data = pack(&[0; 1024], ".gz");
    let twice = ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &control), ("data.tar.gz", &data)]);
    refused(twice, "comes twice in the control archive");
}
