//! Real reports of four processor generations, read by us and by the `sev` crate.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sev::parser::ByteParser as _;

use super::*;

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn vectors() -> Option<PathBuf> {
    let directory = std::env::var_os("BULLION_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from);
    if directory.is_dir() {
        return Some(directory);
    }
    eprintln!("skipped: no vectors at {}", directory.display());
    None
}

/// Every file on the shelf that holds a report: raw, as hex text, or behind the 32-byte header of an Azure HCL report.
fn shelf(vectors: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut reports = Vec::new();
    for folder in ["snp/reports", "attest/snp", "dstack/snp"] {
        for entry in std::fs::read_dir(vectors.join(folder)).into_iter().flatten().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let report = match bytes.len() {
                REPORT_SIZE => bytes,
                2368 => (0..REPORT_SIZE)
                    .map(|i| u8::from_str_radix(std::str::from_utf8(&bytes[2 * i..2 * i + 2]).unwrap(), 16).unwrap())
                    .collect(),
                2600 if bytes.starts_with(b"HCLA") => bytes[32..32 + REPORT_SIZE].to_vec(),
                _ => continue,
            };
            reports.push((entry.path(), report));
        }
    }
    reports
}

#[test]
fn every_report_of_the_shelf_reads_as_the_sev_crate_reads_it() {
    let Some(vectors) = vectors() else { return };
    let reports = shelf(&vectors);
    assert!(reports.len() >= 7, "only {} reports found", reports.len());
    let mut versions = std::collections::BTreeSet::new();
    for (path, bytes) in reports {
        let ours = AttestationReport::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let theirs = sev::firmware::guest::AttestationReport::from_bytes(&bytes).unwrap();
        compare(&ours, &theirs);
        assert_eq!(ours.as_bytes(), bytes, "{}", path.display());
        versions.insert(ours.version());
    }
    assert!(versions.contains(&2) && versions.contains(&3) && versions.contains(&5), "{versions:?}");
}

fn compare(ours: &AttestationReport, theirs: &sev::firmware::guest::AttestationReport) {
    assert_eq!(ours.version(), theirs.version);
    assert_eq!(ours.guest_svn(), theirs.guest_svn);
    assert_eq!(ours.policy().0, u64::from(theirs.policy));
    assert_eq!(ours.policy().debug(), theirs.policy.debug_allowed());
    assert_eq!(ours.policy().smt(), theirs.policy.smt_allowed());
    assert_eq!(ours.policy().migrate_ma(), theirs.policy.migrate_ma_allowed());
    assert_eq!(ours.family_id, theirs.family_id);
    assert_eq!(ours.image_id, theirs.image_id);
    assert_eq!(ours.vmpl(), theirs.vmpl);
    assert_eq!(ours.signature_algo(), theirs.sig_algo);
    assert_eq!(ours.platform_info(), u64::from(theirs.plat_info));
    assert_eq!(ours.key_information(), u32::from(theirs.key_info));
    assert_eq!(ours.report_data, theirs.report_data);
    assert_eq!(ours.measurement, theirs.measurement);
    assert_eq!(ours.host_data, theirs.host_data);
    assert_eq!(ours.id_key_digest, theirs.id_key_digest);
    assert_eq!(ours.author_key_digest, theirs.author_key_digest);
    assert_eq!(ours.report_id, theirs.report_id);
    assert_eq!(ours.report_id_ma, theirs.report_id_ma);
    assert_eq!(ours.chip_id, theirs.chip_id);
    assert_eq!(ours.processor_id().map(|id| id.family), theirs.cpuid_fam_id);
    assert_eq!(ours.processor_id().map(|id| id.model), theirs.cpuid_mod_id);
    assert_eq!(ours.processor_id().map(|id| id.stepping), theirs.cpuid_step);
    assert_eq!(ours.mitigation_vectors().map(|vectors| vectors.launch), theirs.launch_mit_vector);
    assert_eq!(ours.mitigation_vectors().map(|vectors| vectors.current), theirs.current_mit_vector);
    assert_eq!(ours.current_version.major, theirs.current.major);
    assert_eq!(ours.current_version.minor, theirs.current.minor);
    assert_eq!(ours.current_version.build, theirs.current.build);
    assert_eq!(ours.committed_version.build, theirs.committed.build);
    // The bootloader SVN is at byte 0 on every generation before Turin, the microcode SVN at byte 7 on all of them.
    assert_eq!(ours.reported_tcb.0[7], theirs.reported_tcb.microcode);
    assert_eq!(ours.committed_tcb.0[7], theirs.committed_tcb.microcode);
    assert_eq!(ours.launch_tcb.0[7], theirs.launch_tcb.microcode);
    assert_eq!(ours.current_tcb.0[7], theirs.current_tcb.microcode);
    assert_eq!(ours.signature[..72], *theirs.signature.r());
    assert_eq!(ours.signature[72..144], *theirs.signature.s());
}

#[test]
fn other_lengths_and_versions_are_refused() {
    assert_eq!(AttestationReport::parse(&[]), Err(ReportError::Size(0)));
    assert_eq!(AttestationReport::parse(&[2; REPORT_SIZE + 1]), Err(ReportError::Size(REPORT_SIZE + 1)));
    for version in [0u32, 1, 6, u32::MAX] {
        let mut bytes = [0; REPORT_SIZE];
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        assert_eq!(AttestationReport::parse(&bytes), Err(ReportError::Version(version)));
    }
}

proptest! {
    #[test]
    fn a_report_is_its_bytes(mut bytes in proptest::collection::vec(any::<u8>(), REPORT_SIZE), version in 2u8..=5) {
        bytes[..4].copy_from_slice(&[version, 0, 0, 0]);
        let report = AttestationReport::parse(&bytes).unwrap();
        prop_assert_eq!(report.as_bytes(), &bytes[..]);
        prop_assert_eq!(report.processor_id().is_some(), version >= 3);
        prop_assert_eq!(report.mitigation_vectors().is_some(), version >= 5);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2400)) {
        let _ = AttestationReport::parse(&bytes);
    }
}
