//! The decision table, with reports that AMD's firmware made and a TDREPORT in the layout that a TDX module made.

use std::path::{Path, PathBuf};

use evidence::snp::AttestationReport;
use evidence::tdx::{TDREPORT_SIZE, TdReport};
use spec::Sha256Digest;

use super::*;

fn config() -> GuestConfig {
    GuestConfig { hostname: Some("web".to_owned()), ..GuestConfig::default() }
}

fn tdx(mrconfigid: [u8; 48]) -> OwnReport {
    let mut bytes = vec![0; TDREPORT_SIZE];
    bytes[0] = 0x81;
    bytes[576..624].copy_from_slice(&mrconfigid);
    OwnReport::Tdx(Box::new(TdReport::parse(&bytes).unwrap()))
}

/// A real report with its HOST_DATA replaced, or as it is.
fn snp(file: &str, host_data: Option<[u8; 32]>) -> Option<OwnReport> {
    let vectors = std::env::var_os("BULLION_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from);
    let Ok(mut bytes) = std::fs::read(vectors.join(file)) else {
        skipped(&format!("no report at {}", vectors.display()));
        return None;
    };
    if let Some(host_data) = host_data {
        bytes[0xc0..0xe0].copy_from_slice(&host_data);
    }
    Some(OwnReport::Snp(Box::new(AttestationReport::parse(&bytes).unwrap())))
}

#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(reason: &str) {
    eprintln!("skipped: {reason}");
}

#[test]
fn without_a_tee_nothing_binds_and_the_guest_says_so() {
    let absent = bind(None, &OwnReport::None).unwrap();
    assert_eq!(absent, Configuration { binding: Binding::Absent, digest: None });
    let given = bind(Some(&config()), &OwnReport::None).unwrap();
    assert_eq!(given.binding, Binding::Unattested);
    assert_eq!(given.digest, Some(config().host_data().unwrap()));
}

#[test]
fn host_data_decides_under_snp() {
    let shelf = "attest/snp/genoa_v5_report.bin";
    let Some(plain) = snp(shelf, Some([0; 32])) else { return };
    assert_eq!(bind(None, &plain).unwrap().binding, Binding::Absent);
    // A report of no configuration does not bind one, not even the empty one.
    assert!(matches!(bind(Some(&config()), &plain), Err(BindingError::Mismatch { field: "HOST_DATA", .. })));
    assert!(bind(Some(&GuestConfig::default()), &plain).is_err());

    let bound = snp(shelf, Some(*config().host_data().unwrap().as_bytes())).unwrap();
    let configuration = bind(Some(&config()), &bound).unwrap();
    assert_eq!(configuration.binding, Binding::HostData);
    assert_eq!(configuration.digest, Some(config().host_data().unwrap()));
    assert!(matches!(bind(None, &bound), Err(BindingError::Missing { field: "HOST_DATA", .. })));
    let other = GuestConfig { hostname: Some("wed".to_owned()), ..GuestConfig::default() };
    assert!(matches!(bind(Some(&other), &bound), Err(BindingError::Mismatch { field: "HOST_DATA", .. })));
}

#[test]
fn a_report_whose_host_data_someone_else_set_binds_nothing_of_ours() {
    let Some(foreign) = snp("attest/snp/dstack_report.bin", None) else { return };
    assert!(matches!(bind(None, &foreign), Err(BindingError::Missing { .. })));
    assert!(matches!(bind(Some(&config()), &foreign), Err(BindingError::Mismatch { .. })));
}

#[test]
fn mrconfigid_decides_under_tdx() {
    assert_eq!(bind(None, &tdx([0; 48])).unwrap().binding, Binding::Absent);
    assert!(matches!(bind(Some(&config()), &tdx([0; 48])), Err(BindingError::Mismatch { field: "MRCONFIGID", .. })));
    let bound = tdx(*config().mrconfigid().unwrap().as_bytes());
    let configuration = bind(Some(&config()), &bound).unwrap();
    assert_eq!(configuration.binding, Binding::Mrconfigid);
    // Reported is the SHA-256 value, one name for one configuration under every TEE.
    assert_eq!(configuration.digest, Some(config().host_data().unwrap()));
    assert!(matches!(bind(None, &bound), Err(BindingError::Missing { field: "MRCONFIGID", .. })));
    // The 32-byte digest padded to 48 bytes is not the 48-byte digest.
    let mut padded = [0; 48];
    padded[..32].copy_from_slice(config().host_data().unwrap().as_bytes());
    assert!(bind(Some(&config()), &tdx(padded)).is_err());
}

#[test]
fn the_message_has_both_digests() {
    let error = bind(Some(&config()), &tdx([0xab; 48])).unwrap_err().to_string();
    assert!(error.contains(&"ab".repeat(48)) && error.contains(&config().mrconfigid().unwrap().to_string()), "{error}");
    assert!(!error.contains(&Sha256Digest([0xab; 32]).to_string().to_uppercase()));
}
