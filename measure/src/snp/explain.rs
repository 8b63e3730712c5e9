//! Why a launch digest is not the expected one. There is only one digest and no log, so the inputs that people get wrong
//! are varied, alone and together, and what gives the digest that was found is named.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::cpu::{self, CpuSignature};
use super::features::{DEBUG_SWAP, SECURE_TSC, SNP_ACTIVE};
use super::hashes::KernelHashes;
use super::profile::{self, Profile};
use super::seed::{Seed, Vcpu};
use crate::command_line;
use crate::digest::{Digest256, Digest384};
use crate::firmware::SevLayout;

/// A firmware that may have been launched.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name in `firmware/pins.toml`.
    pub name: &'a str,
    /// The digest of its pages ([`super::seed::firmware_digest`]).
    pub digest: Digest384,
    /// Its sections.
    pub layout: &'a SevLayout,
    /// Whether it is expected, or somebody named it. Of another, only few inputs are varied with it: the vCPUs, and whether the
    /// kernel was measured. There are many such firmware images, and a search among them is to be as short.
    pub is_named: bool,
}

/// What is booted.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// SHA-256 of the kernel.
    pub kernel: Digest256,
    /// SHA-256 of the initrd.
    pub initrd: Option<Digest256>,
    /// The command line.
    pub command_line: &'a [u8],
}

/// Files and lines that may have been launched instead of the expected ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alternatives<'a> {
    /// Kernels: name and SHA-256.
    pub kernels: &'a [(&'a str, Digest256)],
    /// Initrds: name and SHA-256.
    pub initrds: &'a [(&'a str, Digest256)],
    /// Command lines.
    pub command_lines: &'a [&'a [u8]],
}

/// What was expected, and what else may have happened.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The expected firmware first, then others.
    pub firmware: &'a [Candidate<'a>],
    /// What is booted; `None` for `kernel-hashes=off`.
    pub kernel: Option<Kernel<'a>>,
    /// What may have been booted instead of the kernel.
    pub alternatives: Alternatives<'a>,
    /// What is measured of each vCPU.
    pub vcpu: Vcpu,
    /// How many vCPUs.
    pub vcpus: u32,
    /// What the VMM does differently.
    pub profile: &'a Profile,
    /// Up to how many vCPUs to search.
    pub max_vcpus: u32,
}

/// One input that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Another firmware, by name.
    Firmware(String),
    /// The kernel, initrd and command line were not measured.
    KernelHashesOff,
    /// Another kernel, by name.
    Kernel(String),
    /// Another initrd, by name.
    Initrd(String),
    /// There was no initrd.
    NoInitrd,
    /// Another command line.
    CommandLine {
        /// What is different about it.
        how: &'static str,
        /// The line that was measured.
        found: Vec<u8>,
    },
    /// Another VMM, or another generation of it.
    Profile(&'static str),
    /// Other SEV_FEATURES.
    SevFeatures(u64),
    /// Another CPU model.
    Cpu {
        /// Its name, where it is a model of QEMU.
        model: Option<&'static str>,
        /// Its signature.
        signature: CpuSignature,
    },
    /// Another number of vCPUs.
    Vcpus(u32),
}

/// What was launched, as differences from what was expected: none if it is as expected, `None` if nothing within reach
/// gives `found`. Of several answers the one with the fewest differences is given.
pub fn explain(found: Digest384, expected: &Expected<'_>) -> Option<Vec<Difference>> {
    let mut best: Option<Vec<Difference>> = None;
    for seed in seeds(expected) {
        for (vcpu, vcpu_differences) in vcpus(&expected.vcpu) {
            if !seed.is_named && vcpu_differences.len() > 1 {
                continue;
            }
            for (count, digest) in (1..=expected.max_vcpus).zip(seed.seed.digests(&vcpu)) {
                if digest != found {
                    continue;
                }
                let mut differences = seed.differences.clone();
                differences.extend(vcpu_differences.iter().cloned());
                differences.extend((count != expected.vcpus).then_some(Difference::Vcpus(count)));
                if best.as_ref().is_none_or(|best| differences.len() < best.len()) {
                    best = Some(differences);
                }
            }
        }
        if best.as_ref().is_some_and(|best| best.len() <= seed.differences.len()) {
            // Later seeds differ at least as much.
            break;
        }
    }
    best
}

struct SeedVariant {
    seed: Seed,
    differences: Vec<Difference>,
    is_named: bool,
}

/// All seeds, those with fewer differences first. Combinations that no launch could carry out are left out.
fn seeds(expected: &Expected<'_>) -> Vec<SeedVariant> {
    let mut variants = Vec::new();
    for (index, firmware) in expected.firmware.iter().enumerate() {
        for (hashes, kernel_differences) in kernels(expected.kernel.as_ref(), &expected.alternatives) {
            let is_near = matches!(kernel_differences[..], [] | [Difference::KernelHashesOff]);
            if !firmware.is_named && !is_near {
                continue;
            }
            let others = [&profile::QEMU_KVM, &profile::QEMU_KVM_NO_FPU_SYNC].into_iter();
            let others = others.filter(|other| firmware.is_named && *other != expected.profile);
            for other in core::iter::once(expected.profile).chain(others) {
                let Ok(seed) = Seed::new(firmware.digest, firmware.layout, hashes.as_ref(), other) else { continue };
                let mut differences = Vec::new();
                differences.extend((index != 0).then(|| Difference::Firmware(firmware.name.into())));
                differences.extend(kernel_differences.iter().cloned());
                differences.extend((other != expected.profile).then_some(Difference::Profile(other.name)));
                variants.push(SeedVariant { seed, differences, is_named: firmware.is_named });
            }
        }
    }
    variants.sort_by_key(|variant| variant.differences.len());
    variants
}

/// The kernel as expected, and what else may have been measured.
fn kernels(kernel: Option<&Kernel<'_>>, others: &Alternatives<'_>) -> Vec<(Option<KernelHashes>, Vec<Difference>)> {
    let Some(expected) = kernel else { return Vec::from([(None, Vec::new())]) };
    let mut variants = Vec::from([(None, Vec::from([Difference::KernelHashesOff]))]);
    let mut lines = command_line::variants(expected.command_line);
    lines.extend(others.command_lines.iter().map(|line| (Some("as another line"), (*line).into())));
    let mut kernels = Vec::from([(expected.kernel, None)]);
    kernels.extend(others.kernels.iter().map(|(name, digest)| (*digest, Some(Difference::Kernel((*name).into())))));
    let mut initrds = Vec::from([(expected.initrd, None)]);
    initrds.extend(expected.initrd.is_some().then_some((None, Some(Difference::NoInitrd))));
    let named = |(name, digest): &(&str, Digest256)| (Some(*digest), Some(Difference::Initrd((*name).into())));
    initrds.extend(others.initrds.iter().map(named));
    for (kernel, other_kernel) in &kernels {
        for (initrd, other_initrd) in &initrds {
            for (how, line) in &lines {
                let Ok(hashes) = KernelHashes::new(*kernel, *initrd, line) else { continue };
                let mut differences: Vec<_> = other_kernel.iter().chain(other_initrd).cloned().collect();
                differences.extend(how.map(|how| Difference::CommandLine { how, found: line.to_vec() }));
                variants.push((Some(hashes), differences));
            }
        }
    }
    variants
}

/// The vCPU as expected, and the CPU models and features that hosts are known to launch.
fn vcpus(expected: &Vcpu) -> Vec<(Vcpu, Vec<Difference>)> {
    let features = [SNP_ACTIVE, SNP_ACTIVE | DEBUG_SWAP, SNP_ACTIVE | SECURE_TSC, SNP_ACTIVE | DEBUG_SWAP | SECURE_TSC];
    let others = cpu::known().map(|(name, signature)| (Some(name), signature));
    let mut variants: Vec<(Vcpu, Vec<Difference>)> = Vec::new();
    for (model, signature) in core::iter::once((None, expected.signature)).chain(others) {
        for sev_features in core::iter::once(expected.sev_features).chain(features) {
            let vcpu = Vcpu { signature, sev_features };
            if variants.iter().any(|(known, _)| *known == vcpu) {
                continue;
            }
            let mut differences = Vec::new();
            let is_other = signature != expected.signature;
            differences.extend(is_other.then_some(Difference::Cpu { model, signature }));
            let other_features = sev_features != expected.sev_features;
            differences.extend(other_features.then_some(Difference::SevFeatures(sev_features)));
            variants.push((vcpu, differences));
        }
    }
    variants
}

impl core::fmt::Display for Difference {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let text = match self {
            Self::Firmware(name) => format!("the firmware is {name}"),
            Self::KernelHashesOff => "kernel, initrd and command line were not measured (kernel-hashes=off)".into(),
            Self::Kernel(name) => format!("the kernel is {name}"),
            Self::Initrd(name) => format!("the initrd is {name}"),
            Self::NoInitrd => "there was no initrd".into(),
            Self::CommandLine { how, found } => {
                format!("the command line was measured {how}: {:?}", String::from_utf8_lossy(found))
            }
            Self::Profile(name) => format!("the VMM launches vCPUs as {name} does"),
            Self::SevFeatures(features) => format!("SEV_FEATURES are {features:#x}"),
            Self::Cpu { model: Some(model), signature } => format!("the CPU model is {model} ({signature})"),
            Self::Cpu { model: None, signature } => format!("the CPU signature is {signature}"),
            Self::Vcpus(1) => "there is 1 vCPU".into(),
            Self::Vcpus(count) => format!("there are {count} vCPUs"),
        };
        f.write_str(&text)
    }
}
