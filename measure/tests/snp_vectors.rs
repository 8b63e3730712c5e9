//! SEV-SNP, SEV-ES and SEV launch digests that others asserted, two of them signed by hardware.

mod shelf;

use measure::firmware::{Firmware, HashTableArea, SevLayout, SevSection, SevSectionType};
use measure::snp::profile::{self, Profile};
use measure::snp::vmsa::{Role, Vmsa};
use measure::snp::{CpuSignature, KernelHashes, Seed, Vcpu, seed, sev};
use measure::{Digest256, Digest384};
use serde_json::Value;

fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap(),
        other => other.as_u64().unwrap(),
    }
}

fn word(value: &Value) -> u32 {
    u32::try_from(number(value)).unwrap()
}

/// The kernel and initrd of the cases are not in the vectors; their hashes are.
fn file_hash(name: &str) -> Digest256 {
    let hex = match name {
        "/dev/null" => return Digest256::of(b""),
        "vmlinuz-6.12.107+deb13-cloud-amd64" => "d1bc2c60a78ae6979736d081bc3c90e45ace6baf414f767dff588e319d3492bd",
        "ird.cpio" => "f066b3b0b474461c844d5080c569c1f4da20ed52fe214dc6a49ec35c82244f9a",
        other => panic!("no hash of {other}"),
    };
    Digest256::from_hex(hex).unwrap()
}

fn kernel_hashes(case: &Value) -> Option<KernelHashes> {
    let kernel = file_hash(case["kernel"].as_str()?);
    let initrd = case["initrd"].as_str().map(file_hash);
    Some(KernelHashes::new(kernel, initrd, case["append"].as_str().unwrap_or("").as_bytes()).unwrap())
}

fn digest_of(case: &Value, image: &[u8]) -> String {
    let firmware = Firmware::parse(image).unwrap();
    let hashes = kernel_hashes(case);
    let vcpus = word(&case["vcpus"]);
    let vcpu = Vcpu {
        signature: CpuSignature(case["vcpu_sig"].as_str().map_or(0, |_| word(&case["vcpu_sig"]))),
        sev_features: number(&case["guest_features"]),
    };
    let profile = match case["vmm"].as_str().unwrap() {
        "QEMU" => &profile::QEMU_KVM,
        "ec2" => &profile::EC2,
        "gce" => &profile::GCE_MILAN,
        other => panic!("no profile {other}"),
    };
    match case["mode"].as_str().unwrap() {
        "snp" => {
            let start = seed::firmware_digest(&firmware).unwrap();
            let seed = Seed::new(start, &firmware.sev_layout().unwrap(), hashes.as_ref(), profile).unwrap();
            seed.digest(&vcpu, vcpus).unwrap().to_string()
        }
        // sev-snp-measure has the FPU state of a VM type that is not QEMU's default.
        "seves" => sev::es_launch_digest(&firmware, hashes.as_ref(), &vcpu, vcpus, profile).unwrap().to_string(),
        "sev" => sev::launch_digest(&firmware, hashes.as_ref()).unwrap().to_string(),
        other => panic!("no mode {other}"),
    }
}

#[test]
fn launch_digests_asserted_by_other_tools() {
    let Some(cases) = shelf::json("snp/launch-digest/expected.json") else { return };
    let mut checked = 0;
    for case in cases.as_array().unwrap() {
        // The raw SVSM image format was replaced by IGVM, and the tool behind these two has the x87 control word wrong.
        if case["mode"] == "svsm" {
            continue;
        }
        let image = shelf::bytes(&format!("snp/launch-digest/{}", case["ovmf"].as_str().unwrap())).unwrap();
        assert_eq!(digest_of(case, &image), case["digest"].as_str().unwrap(), "{case}");
        checked += 1;
    }
    assert_eq!(checked, 37);
}

fn sections(list: &Value, gpa: &str, size: &str, section_type: &str) -> Vec<SevSection> {
    let section = |item: &Value| SevSection {
        gpa: word(&item[gpa]),
        size: word(&item[size]),
        section_type: SevSectionType(word(&item[section_type])),
    };
    list.as_array().unwrap().iter().map(section).collect()
}

/// MEASUREMENT of a live m6a.xlarge (aws/uefi issue 10).
#[test]
fn ec2_guest_verified_on_hardware() {
    let Some(case) = shelf::json("snp/launch-digest/aws_ec2_hw_verified.json") else { return };
    let path = format!("snp/launch-digest/{}", case["metadata_file"].as_str().unwrap());
    let metadata = shelf::json(&path).unwrap();
    let layout = SevLayout {
        sections: sections(&metadata["MetadataItems"], "GPA", "Size", "SectionTypeInt"),
        hash_table: None,
        ap_reset_eip: Some(word(&metadata["ResetEIP"])),
    };
    let start = Digest384::from_hex(metadata["OVMFHash"].as_str().unwrap()).unwrap();
    let seed = Seed::new(start, &layout, None, &profile::EC2_2023).unwrap();
    let vcpu = Vcpu { signature: CpuSignature(0), sev_features: 1 };
    assert_eq!(seed.digest(&vcpu, 4).unwrap().to_string(), case["digest"].as_str().unwrap());
}

/// MEASUREMENT of a report signed by a Milan processor, with the hashes of all its inputs (Dstack-TEE/dstack).
#[test]
fn dstack_guest_signed_by_hardware() {
    let Some(case) = shelf::json("dstack/snp/real_measurement_input.json") else { return };
    let text = |key: &str| case[key].as_str().unwrap();
    let layout = SevLayout {
        sections: sections(&case["ovmf_sections"], "gpa", "size", "section_type"),
        hash_table: Some(HashTableArea { base: word(&case["sev_hashes_table_gpa"]), size: 0x400 }),
        ap_reset_eip: Some(word(&case["sev_es_reset_eip"])),
    };
    let kernel = Digest256::from_hex(text("kernel_hash")).unwrap();
    let initrd = Digest256::from_hex(text("initrd_hash"));
    let hashes = KernelHashes::new(kernel, initrd, text("base_cmdline").as_bytes()).unwrap();
    let start = Digest384::from_hex(text("ovmf_hash")).unwrap();
    let seed = Seed::new(start, &layout, Some(&hashes), &profile::QEMU_KVM).unwrap();
    let signature = measure::snp::cpu::signature(text("vcpu_type"), None).unwrap();
    let vcpu = Vcpu { signature, sev_features: number(&case["guest_features"]) };
    let digest = seed.digest(&vcpu, word(&case["vcpus"])).unwrap();

    // MEASUREMENT is at 0x90 of the 1184-byte report (AMD 56860, ATTESTATION_REPORT), which the attestation embeds.
    let attestation = shelf::bytes("dstack/snp/sev_snp_attestation.bin").unwrap();
    assert!(attestation.windows(48).any(|window| window == digest.0), "{digest}");
    assert!(digest.to_string().starts_with("7f51e17f72a04d54"));
}

fn page(role: Role, profile: &Profile) -> [u8; 4096] {
    Vmsa { role, signature: CpuSignature(0x80_0f12), sev_features: 1, profile }.page()
}

#[test]
fn pages_made_by_other_tools() {
    let Some(bsp) = shelf::bytes("snp/igvm/vmsa_bsp_qemu_epyc-v4_feat1.bin") else { return };
    assert!(page(Role::Bsp, &profile::QEMU_KVM) == *bsp);
    let ap = shelf::bytes("snp/igvm/vmsa_ap_qemu_epyc-v4_feat1_eip80b004.bin").unwrap();
    assert!(page(Role::Ap { eip: 0x80_b004 }, &profile::QEMU_KVM) == *ap);
    let hashes = KernelHashes::new(
        file_hash("vmlinuz-6.12.107+deb13-cloud-amd64"),
        Some(file_hash("ird.cpio")),
        b"console=ttyS0 loglevel=7",
    );
    let expected = shelf::bytes("snp/igvm/khashes_page_off_c00.bin").unwrap();
    assert!(hashes.unwrap().page(0xc00).unwrap() == *expected);
}
