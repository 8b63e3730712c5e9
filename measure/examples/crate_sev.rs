//! One SEV-SNP launch digest by crate `sev`, as a program: what `scripts/bench-measure` runs beside `bullion measure snp`.
//!
//! `crate_sev FIRMWARE KERNEL INITRD COMMAND_LINE VCPUS`
#![allow(clippy::print_stdout, reason = "the digest is its output")]

use std::path::PathBuf;

use sev::measurement::snp::{SnpMeasurementArgs, snp_calc_launch_digest};
use sev::measurement::vcpu_types::CpuType;
use sev::measurement::vmsa::{GuestFeatures, VMMType};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [firmware, kernel, initrd, command_line, vcpus] = &words[..] else {
        return Err("usage: crate_sev FIRMWARE KERNEL INITRD COMMAND_LINE VCPUS".into());
    };
    let digest = snp_calc_launch_digest(SnpMeasurementArgs {
        vcpus: vcpus.parse()?,
        vcpu_type: CpuType::EpycV4,
        ovmf_file: PathBuf::from(firmware),
        guest_features: GuestFeatures(1),
        kernel_file: Some(PathBuf::from(kernel)),
        initrd_file: Some(PathBuf::from(initrd)),
        append: Some(command_line),
        ovmf_hash_str: None,
        vmm_type: Some(VMMType::QEMU),
    })?;
    println!("{}", digest.get_hex_ld());
    Ok(())
}
