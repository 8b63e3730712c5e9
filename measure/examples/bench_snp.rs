//! Times SEV-SNP launch digests on real files: `bench_snp FIRMWARE [KERNEL [INITRD]]`.
//!
//! Not part of any test: figures go into docs/benchmarks.md with the machine they were taken on.
#![allow(clippy::print_stdout, reason = "figures are its output")]

use std::time::{Duration, Instant};

use measure::firmware::Firmware;
use measure::snp::explain::{Candidate, Expected, Kernel, explain};
use measure::snp::{CpuSignature, KernelHashes, LaunchInputs, Vcpu, profile, seed};
use measure::tdx::mrtd::{PageOrder, mrtd};
use measure::{Digest256, Digest384};

/// The best of `rounds` runs.
fn best<T>(rounds: u32, mut work: impl FnMut() -> T) -> Duration {
    let time = |_| {
        let start = Instant::now();
        std::hint::black_box(work());
        start.elapsed()
    };
    (0..rounds).map(time).min().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = std::env::args_os().skip(1);
    let image = std::fs::read(files.next().ok_or("usage: bench_snp FIRMWARE [KERNEL [INITRD]]")?)?;
    let kernel = files.next().map(std::fs::read).transpose()?;
    let initrd = files.next().map(std::fs::read).transpose()?;
    let hashes = || {
        let initrd = initrd.as_deref().map(Digest256::of);
        kernel.as_deref().map(|kernel| KernelHashes::new(Digest256::of(kernel), initrd, b"console=ttyS0")).transpose()
    };
    let firmware = Firmware::parse(&image)?;
    let kernel_hashes = hashes()?;
    let vcpu = Vcpu { signature: CpuSignature(0x80_0f12), sev_features: 1 };
    let inputs = LaunchInputs { firmware: &firmware, kernel_hashes, vcpu, vcpus: 1, profile: profile::QEMU_KVM };
    println!("SHA-256 of kernel and initrd    {:>9.3?}", best(10, hashes));
    println!("one digest, 1 vCPU              {:>9.3?}", best(20, || inputs.digest()));
    let many = LaunchInputs { vcpus: 512, ..inputs.clone() };
    println!("one digest, 512 vCPUs           {:>9.3?}", best(20, || many.digest()));
    let table = |seed: &measure::snp::Seed| {
        let models = (0..6).map(|model| Vcpu { signature: CpuSignature(0x80_0f12 + (model << 16)), sev_features: 1 });
        models.flat_map(|vcpu| seed.digests(&vcpu).take(512).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    println!("512 vCPU counts x 6 models      {:>9.3?}", best(20, || inputs.seed().map(|seed| table(&seed))));
    let seed = inputs.seed()?;
    println!("the same, seed known            {:>9.3?}", best(20, || table(&seed)));
    let layout = firmware.sev_layout()?;
    let candidate =
        Candidate { name: "given", digest: seed::firmware_digest(&firmware)?, layout: &layout, is_named: true };
    let kernel = Kernel { kernel: Digest256::of(b"k"), initrd: Some(Digest256::of(b"i")), command_line: b"console" };
    let expected = Expected {
        firmware: &[candidate],
        kernel: Some(kernel),
        alternatives: Default::default(),
        vcpu,
        vcpus: 1,
        profile: &profile::QEMU_KVM,
        max_vcpus: 512,
    };
    println!("explain, nothing found          {:>9.3?}", best(3, || explain(Digest384::ZERO, &expected)));
    println!("MRTD                            {:>9.3?}", best(10, || mrtd(&firmware, PageOrder::SinglePass)));
    Ok(())
}
