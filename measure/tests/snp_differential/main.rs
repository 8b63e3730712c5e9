//! Launch digests of generated inputs, against two programs that others wrote: crate `sev` 8.0.0 in this process, and
//! `sev-snp-measure` 0.0.13 in one other.
//!
//! The inputs are the same in every run. `BULLION_DIFFERENTIAL_CASES` asks for more of them. What the programs are known to
//! get wrong is in `defects.rs`, each with its reason, and is seen there to be still so; the generator leaves it out.

#[path = "../shelf/mod.rs"]
mod shelf;

mod defects;
mod generator;
mod judges;

use std::cell::RefCell;
use std::path::Path;

use generator::{Case, case, image, odd, trimmed};
use judges::{SIGNATURES, SevSnpMeasure, crate_sev, write_files};
use measure::Digest256;
use measure::firmware::Firmware;
use measure::snp::{CpuSignature, KernelHashes, LaunchInputs, Profile, Vcpu, profile, sev};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

/// What the VMMs of [`judges::VMMS`] do.
const PROFILES: [Profile; 3] = [profile::QEMU_KVM, profile::EC2, profile::GCE_MILAN];

fn kernel_hashes(case: &Case) -> Option<KernelHashes> {
    let (kernel, initrd, line) = case.kernel.as_ref()?;
    let initrd = initrd.as_deref().map(Digest256::of);
    Some(KernelHashes::new(Digest256::of(kernel), initrd, line.as_bytes()).unwrap())
}

fn vcpu(case: &Case) -> Vcpu {
    Vcpu { signature: CpuSignature(case.signature), sev_features: case.sev_features }
}

/// Our digest; what we refuse is an error here.
fn ours(case: &Case, image: &[u8]) -> String {
    let digest = Firmware::parse(image).map_err(|error| error.to_string()).and_then(|firmware| {
        let inputs = LaunchInputs {
            firmware: &firmware,
            kernel_hashes: kernel_hashes(case),
            vcpu: vcpu(case),
            vcpus: case.vcpus,
            profile: PROFILES[case.vmm],
        };
        let digest = inputs.digest().map_err(|error| error.to_string())?;
        assert_eq!(inputs.steps().unwrap().last().unwrap().digest, digest);
        Ok(digest)
    });
    digest.map_or_else(|error| format!("error: {error}"), |digest| digest.to_string())
}

/// `cases` of them, or as many as the environment asks for, the same in every run.
fn run(cases: u32, any: impl Strategy<Value = Case>, check: impl Fn(&Case, &[u8], &Path)) {
    let asked = std::env::var("BULLION_DIFFERENTIAL_CASES").ok();
    let cases = asked.map_or(cases, |cases| cases.parse().expect("BULLION_DIFFERENTIAL_CASES is no number"));
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let folder = tempfile::tempdir().unwrap();
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
        .run(&any, |case| {
            let image = image(&case);
            write_files(&case, &image, folder.path());
            check(&case, &image, folder.path());
            Ok(())
        })
        .unwrap();
}

/// QEMU only: the crate has another EC2, and no GCE.
#[test]
fn agrees_with_crate_sev() {
    let signatures = (0..SIGNATURES.len()).prop_map(|index| SIGNATURES[index].0);
    let any = case(trimmed(), signatures).prop_map(|case| Case { vmm: 0, ..case });
    run(2000, any, |case, image, folder| assert_eq!(ours(case, image), crate_sev(case, folder)));
}

/// Any command line, any signature, and three VMMs.
#[test]
fn agrees_with_sev_snp_measure() {
    let Some(judge) = SevSnpMeasure::start().map(RefCell::new) else { return };
    run(1500, case(odd(), any::<u32>()), |case, image, folder| {
        assert_eq!(ours(case, image), judge.borrow_mut().ask("snp", case, folder));
    });
}

/// The digests of SEV and SEV-ES guests, for which crate `sev` needs OpenSSL. The other program has the FPU state that KVM
/// gives to guests of the newer VM type, and no SEV_FEATURES.
#[test]
fn agrees_with_sev_snp_measure_on_sev_and_sev_es() {
    let Some(judge) = SevSnpMeasure::start().map(RefCell::new) else { return };
    let any = case(odd(), any::<u32>()).prop_map(|case| Case { vmm: 0, ..case });
    run(500, any, |case, image, folder| {
        let firmware = Firmware::parse(image).unwrap();
        let (hashes, vcpu) = (kernel_hashes(case), vcpu(case));
        let es = sev::es_launch_digest(&firmware, hashes.as_ref(), &vcpu, case.vcpus, &profile::QEMU_KVM).unwrap();
        assert_eq!(es.to_string(), judge.borrow_mut().ask("seves", case, folder));
        let plain = sev::launch_digest(&firmware, hashes.as_ref()).unwrap();
        assert_eq!(plain.to_string(), judge.borrow_mut().ask("sev", case, folder));
    });
}
