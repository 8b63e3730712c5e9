//! The SNP digest of what QEMU submits is the one that others compute for the same inputs.
#![allow(clippy::print_stderr, reason = "says what was skipped and how long runs took")]

mod simulated;

use std::path::{Path, PathBuf};
use std::process::Command;

use simulated::{Laboratory, base64, tool, vector};

const FIRMWARE: &str = "snp/launch-digest/debian_2026.08+ds-2_OVMF.amdsev.fd";
const POLICY: &str = "policy=0x30000";
/// The published digests of this firmware without a kernel, for 1 and 64 vCPUs of type EPYC-v4: `sev-snp-measure` 0.0.13 and
/// the crate `sev` 8.0.0 agree on them, and for one vCPU `igvmmeasure` too.
const ONE_VCPU: &str =
    "d74bd3ea40b240c3228edc5177ce6193561ebff633dbd0be76d6c143b876d65102425c0e2e8a930857c48daa5eacda58";
const MANY_VCPUS: &str =
    "c8988bfa29626e72129dd39d65a2deb380513881d5cb98f3b2dc1a6d02c8ebd6017056ff0943743a66a1221bea8f229e";

/// Kernel, initrd and command line of a direct boot.
struct Boot {
    kernel: PathBuf,
    initrd: PathBuf,
    append: &'static str,
}

impl Boot {
    /// Nothing that boots, but what QEMU takes for a bzImage (Documentation/arch/x86/boot.rst); only its hash matters.
    fn new(laboratory: &Laboratory) -> Self {
        let mut kernel: Vec<u8> =
            (0..0x1_2345_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        kernel[0x1f1] = 4;
        kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        kernel[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        kernel[0x236..0x238].fill(0);
        Self {
            kernel: laboratory.write("vmlinuz", &kernel),
            initrd: laboratory.write("initrd", &[0x5a; 5000]),
            append: "console=ttyS0  panic=-1 ",
        }
    }

    fn add_to(&self, command: &mut Command) {
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd).arg("-append").arg(self.append);
    }

    fn add_to_judge(&self, command: &mut Command) {
        command.arg("--kernel").arg(&self.kernel).arg("--initrd").arg(&self.initrd).arg("--append").arg(self.append);
    }
}

/// What `sev-snp-measure` expects.
fn judge(tool: &Path, firmware: &Path, model: &str, vcpus: u32, boot: Option<&Boot>) -> String {
    let mut command = Command::new(tool);
    command.args(["--mode", "snp", "--vcpu-type", model, "--vcpus", &vcpus.to_string(), "--guest-features", "0x1"]);
    command.arg("--ovmf").arg(firmware);
    boot.inspect(|boot| boot.add_to_judge(&mut command));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Each CPU model, each number of vCPUs, with and without a kernel: every value of each beside several of the others.
const LAUNCHES: [(&str, u32, bool); 8] = [
    ("EPYC-v4", 1, false),
    ("EPYC-Milan", 2, false),
    ("EPYC-Genoa", 4, false),
    ("EPYC-Turin", 64, false),
    ("EPYC-v4", 64, true),
    ("EPYC-Milan", 4, true),
    ("EPYC-Genoa", 1, true),
    ("EPYC-Turin", 2, true),
];

fn matrix(laboratory: &Laboratory) -> Option<()> {
    let (firmware, tool) = (vector(FIRMWARE)?, tool("sev-snp-measure")?);
    let boot = Boot::new(laboratory);
    for (model, vcpus, with_kernel) in LAUNCHES {
        let boot = with_kernel.then_some(&boot);
        let hashes = if with_kernel { "on" } else { "off" };
        let mut command = laboratory.snp(&firmware, model, vcpus, &format!("{POLICY},kernel-hashes={hashes}"));
        boot.inspect(|boot| boot.add_to(&mut command));
        let outcome = laboratory.run(&mut command);
        if outcome.stderr.contains("unable to find CPU model") {
            assert_eq!(model, "EPYC-Turin", "every QEMU that launches SNP knows the others");
            eprintln!("skipped: this QEMU does not know {model}");
            continue;
        }
        let case = format!("{model}, {vcpus} vCPUs, kernel {with_kernel}");
        assert!(outcome.status.success(), "{case}: {}", outcome.stderr);
        assert_eq!(outcome.report["launch_digest"], judge(&tool, &firmware, model, vcpus, boot), "{case}");
        assert_eq!(outcome.report["vcpus"], vcpus);
        eprintln!("{case}: {:?}", outcome.elapsed);
    }
    Some(())
}

#[test]
fn digests_are_those_of_sev_snp_measure() {
    Laboratory::open().and_then(|laboratory| matrix(&laboratory));
}

/// Older than what `launch` starts: what is measured is the same.
#[test]
fn digests_of_an_older_qemu_are_those_of_sev_snp_measure() {
    Laboratory::open_older().and_then(|laboratory| matrix(&laboratory));
}

#[test]
fn published_digests_are_met() {
    let (Some(laboratory), Some(firmware)) = (Laboratory::open(), vector(FIRMWARE)) else { return };
    for (vcpus, expected) in [(1, ONE_VCPU), (64, MANY_VCPUS)] {
        let outcome = laboratory.run(&mut laboratory.snp(&firmware, "EPYC-v4", vcpus, POLICY));
        assert_eq!(outcome.report["launch_digest"], expected);
    }
}

#[test]
fn the_report_has_what_was_given() {
    let (Some(laboratory), Some(firmware)) = (Laboratory::open(), vector(FIRMWARE)) else { return };
    let host_data: Vec<u8> = (1..=32).collect();
    let object = format!("policy=0xb0000,host-data={},vcek-disabled=on", base64(&host_data));
    let pages = laboratory.path("pages");
    std::fs::create_dir(&pages).unwrap();
    let outcome = laboratory.run(laboratory.snp(&firmware, "EPYC-v4", 2, &object).env("TEESIM_PAGES", &pages));
    let report = outcome.report;
    assert_eq!(report["schema"], 1);
    assert_eq!(report["simulated"], true);
    assert_eq!(report["tee"], "snp");
    assert_eq!(report["failed"], serde_json::Value::Null);
    assert_eq!(report["policy"], "0xb0000");
    assert_eq!(report["sev_features"], "0x1");
    assert_eq!(report["host_data"], hex::encode(&host_data));
    assert_eq!(report["vcek_disabled"], true);
    assert_eq!(report["vcpu_state"][1]["rip"], "0xb004");
    assert_eq!(report["vcpu_state"][1]["cs_base"], "0x800000");
    assert_eq!(report["cpuid_pages"][0]["gpa"], "0x80e000");
    assert!(report["cpuid_pages"][0]["functions"].as_array().unwrap().len() > 10);
    assert_eq!(report["pages"][0]["gpa"], "0xffc00000");
    assert_eq!(std::fs::read(pages.join("0xffc00000-normal.bin")).unwrap(), std::fs::read(&firmware).unwrap());
    let vmsa = std::fs::read(pages.join("vcpu1-vmsa.bin")).unwrap();
    if let Some(expected) = vector("snp/igvm/vmsa_ap_qemu_epyc-v4_feat1_eip80b004.bin") {
        assert!(vmsa == std::fs::read(expected).unwrap(), "the VMSA of an AP is that of the vector");
    }
}

#[test]
fn a_sandboxed_qemu_launches() {
    let (Some(laboratory), Some(firmware)) = (Laboratory::open(), vector(FIRMWARE)) else { return };
    let mut command = laboratory.snp(&firmware, "EPYC-v4", 1, POLICY);
    command.args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    let outcome = laboratory.run(&mut command);
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert_eq!(outcome.report["launch_digest"], ONE_VCPU);
}

#[test]
fn a_policy_the_host_cannot_keep_fails_the_launch() {
    let (Some(laboratory), Some(firmware)) = (Laboratory::open(), vector(FIRMWARE)) else { return };
    let command = || laboratory.snp(&firmware, "EPYC-v4", 1, "policy=0x20000");
    let outcome = laboratory.run(&mut command());
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert_eq!(outcome.report["firmware_status"], "0x7");
    assert_eq!(outcome.report["launch_digest"], serde_json::Value::Null);
    assert!(outcome.report["failed"].as_str().unwrap().contains("SMT"), "{}", outcome.report);
    let outcome = laboratory.run(command().env("TEESIM_SMT", "0"));
    assert_eq!(outcome.report["launch_digest"], ONE_VCPU);
}

#[test]
fn an_id_block_for_another_image_fails_the_launch() {
    let (Some(laboratory), Some(firmware)) = (Laboratory::open(), vector(FIRMWARE)) else { return };
    let (Some(block), Some(auth)) =
        (vector("snp/idblock/test_id_block.bin"), vector("snp/idblock/test_auth_block.bin"))
    else {
        return;
    };
    let (block, auth) = (std::fs::read(block).unwrap(), std::fs::read(auth).unwrap());
    let launch = |block: &[u8], auth: &[u8]| {
        let object = format!("{POLICY},author-key-enabled=on,id-block={},id-auth={}", base64(block), base64(auth));
        laboratory.run(&mut laboratory.snp(&firmware, "EPYC-v4", 1, &object))
    };
    let outcome = launch(&block, &auth);
    assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
    assert_eq!(outcome.report["firmware_status"], "0xb", "{}", outcome.report["failed"]);
    assert_eq!(outcome.report["id_block"]["policy"], "0x30000");
    let mut forged = block;
    forged[..48].copy_from_slice(&hex::decode(ONE_VCPU).unwrap());
    let outcome = launch(&forged, &auth);
    assert_eq!(outcome.report["firmware_status"], "0xa", "{}", outcome.report["failed"]);
}

#[test]
fn an_id_block_for_this_image_lets_it_launch() {
    use p384::ecdsa::signature::hazmat::PrehashSigner as _;
    use p384::ecdsa::{Signature, SigningKey};
    use sha2::{Digest as _, Sha384};

    let (Some(laboratory), Some(firmware)) = (Laboratory::open(), vector(FIRMWARE)) else { return };
    let key = SigningKey::from_slice(&[7; 48]).unwrap();
    // Integers of the secure processor are least significant byte first.
    let reversed = |big_endian: &[u8]| big_endian.iter().rev().copied().collect::<Vec<u8>>();
    let mut block = hex::decode(ONE_VCPU).unwrap();
    block.extend([0; 32]);
    block.extend([1_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat());
    block.extend(0x3_0000_u64.to_le_bytes());
    let signature: Signature = key.sign_prehash(&Sha384::digest(&block)).unwrap();
    let point = key.verifying_key().to_encoded_point(false);
    let mut auth = vec![0; 4096];
    auth[0] = 1;
    auth[0x40..0x70].copy_from_slice(&reversed(&signature.r().to_bytes()));
    auth[0x88..0xb8].copy_from_slice(&reversed(&signature.s().to_bytes()));
    auth[0x240] = 2;
    auth[0x244..0x274].copy_from_slice(&reversed(point.x().unwrap()));
    auth[0x28c..0x2bc].copy_from_slice(&reversed(point.y().unwrap()));
    let object = format!("{POLICY},id-block={},id-auth={}", base64(&block), base64(&auth));
    let outcome = laboratory.run(&mut laboratory.snp(&firmware, "EPYC-v4", 1, &object));
    assert!(outcome.status.success(), "{} {}", outcome.stderr, outcome.report["failed"]);
    assert_eq!(outcome.report["id_block"]["guest_svn"], 3);
    assert_eq!(outcome.report["id_block"]["author_key_digest"], serde_json::Value::Null);
}
