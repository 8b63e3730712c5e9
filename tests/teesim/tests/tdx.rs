//! The MRTD of what QEMU submits is the one that others compute for the same firmware, whatever else the TD is made of.
#![allow(clippy::print_stderr, reason = "says what was skipped and how long runs took")]

mod simulated;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha384};
use simulated::{Laboratory, base64, vector};

const FIRMWARE: &str = "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz";
const MRTD: &str = "a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08";

fn laboratory() -> Option<Laboratory> {
    Laboratory::open_with_qemu(10, 1, "TDX")
}

/// An unpacked firmware image.
fn unpack(packed: &Path) -> Vec<u8> {
    let mut image = Vec::new();
    liblzma::read::XzDecoder::new(File::open(packed).unwrap()).read_to_end(&mut image).unwrap();
    image
}

/// The firmware of most tests, as a file.
fn firmware(laboratory: &Laboratory) -> Option<PathBuf> {
    Some(laboratory.write("firmware.fd", &unpack(&vector(FIRMWARE)?)))
}

/// The MRTDs of `mrtd.json` by SHA-256 of the image: three independent calculators agree on them, and hardware has signed
/// two (vectors, `tdx/README.md`).
fn known_mrtds(index: &Path) -> BTreeMap<String, String> {
    let index: Value = serde_json::from_reader(File::open(index).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let images = index.as_object().unwrap().values();
    images.map(|image| (text(&image["sha256"]), text(&image["mrtd_single_pass"]))).collect()
}

#[test]
fn every_firmware_on_the_shelf_has_its_known_mrtd() {
    let (Some(laboratory), Some(index)) = (laboratory(), vector("tdx/firmware/mrtd.json")) else { return };
    let known = known_mrtds(&index);
    let shelf = index.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut seen = 0;
    for packed in shelf.filter(|path| path.extension().is_some_and(|extension| extension == "xz")) {
        let image = unpack(&packed);
        let expected = &known[&hex::encode(Sha256::digest(&image))];
        let firmware = laboratory.write("firmware.fd", &image);
        let outcome = laboratory.run(&mut laboratory.tdx(&firmware, 1, "2G", ""));
        assert!(outcome.status.success(), "{}: {}", packed.display(), outcome.stderr);
        assert_eq!(outcome.report["mrtd"], **expected, "{}", packed.display());
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn mrtd_depends_on_neither_vcpus_nor_memory() {
    let Some(laboratory) = laboratory() else { return };
    let Some(firmware) = firmware(&laboratory) else { return };
    for (vcpus, memory) in [(1, "2G"), (4, "64G"), (64, "2G"), (64, "64G")] {
        let outcome = laboratory.run(&mut laboratory.tdx(&firmware, vcpus, memory, ""));
        assert!(outcome.status.success(), "{vcpus} {memory}: {} {}", outcome.stderr, outcome.report["failed"]);
        assert_eq!(outcome.report["mrtd"], MRTD, "{vcpus} vCPUs, {memory}");
        assert_eq!(outcome.report["vcpus"], vcpus);
        eprintln!("{vcpus} vCPUs, {memory}: {:?}", outcome.elapsed);
    }
}

#[test]
fn the_report_has_what_was_given() {
    let Some(laboratory) = laboratory() else { return };
    let Some(firmware) = firmware(&laboratory) else { return };
    let register = |first: u8| (first..first + 48).collect::<Vec<u8>>();
    let given = [("mrconfigid", register(1)), ("mrowner", register(50)), ("mrownerconfig", register(100))];
    let properties: String = given.iter().map(|(name, value)| format!(r#","{name}":"{}""#, base64(value))).collect();
    let pages = laboratory.path("pages");
    std::fs::create_dir(&pages).unwrap();
    let outcome = laboratory.run(laboratory.tdx(&firmware, 2, "2G", &properties).env("TEESIM_PAGES", &pages));
    let report = outcome.report;
    assert_eq!(report["tee"], "tdx");
    assert_eq!(report["simulated"], true);
    assert_eq!(report["failed"], Value::Null);
    assert_eq!(report["attributes"], "0x10000000");
    for (name, value) in given {
        assert_eq!(report[name], hex::encode(value), "{name}");
    }
    // The TD HOB is where the vCPUs were told to look: a PHIT (type 1, 56 bytes) of version 9.
    let hob = report["vcpu_state"][1]["rcx"].as_str().unwrap();
    let content = std::fs::read(pages.join(format!("{hob}-added.bin"))).unwrap();
    assert_eq!(content[..12], [1, 0, 56, 0, 0, 0, 0, 0, 9, 0, 0, 0]);
    let measured: Vec<_> = report["pages"].as_array().unwrap().iter().filter(|run| run["measured"] == true).collect();
    assert_eq!(measured.len(), 1, "the boot firmware volume");
}

#[test]
fn attributes_that_kvm_does_not_support_fail_the_launch() {
    let Some(laboratory) = laboratory() else { return };
    let Some(firmware) = firmware(&laboratory) else { return };
    let outcome = laboratory.run(&mut laboratory.tdx(&firmware, 1, "2G", r#","attributes":1"#));
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert_eq!(outcome.report["mrtd"], Value::Null);
}

#[test]
fn a_sandboxed_qemu_launches() {
    let Some(laboratory) = laboratory() else { return };
    let Some(firmware) = firmware(&laboratory) else { return };
    let mut command = laboratory.tdx(&firmware, 1, "2G", "");
    command.args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    let outcome = laboratory.run(&mut command);
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert_eq!(outcome.report["mrtd"], MRTD);
}

/// A quote generation service: takes one request on each connection and answers it (Intel DCAP, `qgs_msg_lib.h`: a length in network
/// order, then major and minor version, type, size and error, then the sizes and what they are of).
fn quote_service(socket: &Path, quote: &'static [u8]) -> std::thread::JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let mut connection = listener.accept().unwrap().0;
        let mut length = [0; 4];
        connection.read_exact(&mut length).unwrap();
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        connection.read_exact(&mut request).unwrap();
        let quote_size = u32::try_from(quote.len()).unwrap();
        let size = 24 + quote_size;
        let header =
            [&1_u16.to_le_bytes()[..], &1_u16.to_le_bytes(), &1_u32.to_le_bytes(), &size.to_le_bytes(), &[0; 4]];
        let sizes = [&0_u32.to_le_bytes()[..], &quote_size.to_le_bytes(), quote];
        connection.write_all(&[&size.to_be_bytes()[..], &header.concat(), &sizes.concat()].concat()).unwrap();
        request
    })
}

#[test]
fn a_td_gets_the_quote_that_the_service_made_of_its_report() {
    let Some(laboratory) = laboratory() else { return };
    let Some(firmware) = firmware(&laboratory) else { return };
    let socket = laboratory.path("qgs.socket");
    let service = quote_service(&socket, b"a quote that nobody signed");
    // As `bullion launch` says it.
    let property = format!(r#","quote-generation-socket":{{"path":"{}","type":"unix"}}"#, socket.display());
    let outcome = laboratory.run(laboratory.tdx(&firmware, 1, "2G", &property).env("TEESIM_QUOTE", "1"));
    assert!(outcome.status.success(), "{} {}", outcome.stderr, outcome.report["failed"]);
    let quote = &outcome.report["quote"];
    assert_eq!((&quote["returned"], &quote["status"]), (&"0x0".into(), &"0x0".into()), "{quote} {}", outcome.stderr);
    assert_eq!(quote["sha384"], hex::encode(Sha384::digest(b"a quote that nobody signed")), "{quote}");
    let request = service.join().unwrap();
    let report: Vec<u8> = (0..=u8::MAX).cycle().take(1024).collect();
    assert!(request.windows(1024).any(|window| window == report), "{request:02x?}");
}

#[test]
fn a_td_without_a_service_is_told_so() {
    let Some(laboratory) = laboratory() else { return };
    let Some(firmware) = firmware(&laboratory) else { return };
    let nobody = laboratory.path("nobody");
    let property = format!(r#","quote-generation-socket":{{"path":"{}","type":"unix"}}"#, nobody.display());
    for property in ["", &property] {
        let outcome = laboratory.run(laboratory.tdx(&firmware, 1, "2G", property).env("TEESIM_QUOTE", "1"));
        assert!(outcome.status.success(), "{} {}", outcome.stderr, outcome.report["failed"]);
        let quote = &outcome.report["quote"];
        assert_ne!((&quote["returned"], &quote["status"]), (&"0x0".into(), &"0x0".into()), "{quote}");
        assert_eq!(quote["size"], 0, "{quote}");
    }
}
