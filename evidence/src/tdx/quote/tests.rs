//! Real quotes, by the values that others read from them.
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn vector(path: &str) -> Option<Vec<u8>> {
    let vectors = std::env::var_os("BULLION_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from);
    let found = std::fs::read(vectors.join(path)).ok();
    if found.is_none() {
        eprintln!("skipped: no {path} at {}", vectors.display());
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The quotes of the vectors, by version; some by what their MRTD starts with, which others have published: the first is of a
/// firmware whose MRTD other calculators give. The evidence of oak wraps a quote and is not read.
#[test]
fn quotes_of_both_versions_are_read() {
    for (path, version, mrtd) in [
        ("tdx/quotes/quote_v5_sample.dat", 5, "7348651a34b2d2d3"),
        ("tdx/quotes/trustee_quote_4.dat", 4, "705ee9381b8633a9"),
        ("tdx/quotes/trustee_quote_5.dat", 5, ""),
        ("tdx/quotes/trustee_quote_6.dat", 4, ""),
        ("tdx/quotes/dcap-qvl_tdx_quote.bin", 4, "91eb2b44d141d4ec"),
        ("tdx/quotes/entropy_known_pck_quote_1.dat", 4, ""),
        ("tdx/quotes/entropy_v4_quote.dat", 4, ""),
        ("tdx/quotes/flashbots_dcap.bin", 4, ""),
        ("tdx/quotes/flashbots_gcp.bin", 4, ""),
        ("tdx/quotes/tdx_prod_quote_SPR_E4.dat", 4, ""),
        ("tdx/quotes/cvmtool_tdx.report", 4, ""),
        ("tdx/pairs/gce-cos113/quote.bin", 4, ""),
        ("tdx/pairs/cc-trusted-grub/quote.bin", 4, ""),
        ("dstack/dcap-qvl/tdx_quote", 4, ""),
        ("dstack/dcap-qvl/tdx_quote_outdated", 5, ""),
        ("dstack/kms/kms-tdx_quote.bin", 4, ""),
        ("dstack/tdx/ra-tls-tdx_quote.bin", 4, "91eb2b44d141d4ec"),
    ] {
        let Some(bytes) = vector(path) else { return };
        assert!(Quote::is_quote(&bytes), "{path}");
        let quote = Quote::parse(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(quote.version, version, "{path}");
        assert!(hex(&quote.body.mrtd).starts_with(mrtd), "{path}: {}", hex(&quote.body.mrtd));
    }
}

/// Read by confidential-containers/trustee from the same quote.
#[test]
fn fields_are_where_another_verifier_reads_them() {
    let Some(bytes) = vector("tdx/quotes/trustee_quote_4.dat") else { return };
    let body = Quote::parse(&bytes).unwrap().body;
    assert!(body.attributes().debug());
    assert_eq!(body.xfam(), 0x0642e7);
    assert!(hex(&body.rtmr[0]).starts_with("e940da7c2712d279"));
    assert!(hex(&body.rtmr[1]).starts_with("559cfcf42716ed6c"));
    assert_eq!((body.rtmr[2], body.rtmr[3]), ([0; 48], [0; 48]));
    assert_eq!((body.mrconfigid, body.mrowner, body.mrownerconfig), ([0; 48], [0; 48], [0; 48]));
}

#[test]
fn what_is_no_quote_of_a_td_is_refused() {
    let Some(bytes) = vector("tdx/quotes/quote_v5_sample.dat") else { return };
    let changed = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Quote::parse(&bytes)
    };
    assert_eq!(changed(0, 3), Err(QuoteError::Version(3)));
    assert_eq!(changed(4, 0), Err(QuoteError::TeeType(0)));
    assert_eq!(changed(48, 1), Err(QuoteError::BodyType(1)));
    // A descriptor that is shorter than a body, or longer than the quote.
    assert!(matches!(changed(51, 0), Err(QuoteError::CutOff(_))));
    assert!(matches!(changed(53, 1), Err(QuoteError::CutOff(_))));
    for length in [0, 47, 48, 53, 54, 54 + 583] {
        assert_eq!(Quote::parse(&bytes[..length]), Err(QuoteError::CutOff(length)));
    }
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(
        version in 0..8_u8, body_type in 0..5_u8, size: u32, mut bytes in proptest::collection::vec(any::<u8>(), 60..900),
    ) {
        bytes[..8].copy_from_slice(&[version, 0, 2, 0, 0x81, 0, 0, 0]);
        bytes[48..50].copy_from_slice(&[body_type, 0]);
        bytes[50..54].copy_from_slice(&(size % 1000).to_le_bytes());
        let _ = Quote::parse(&bytes);
    }
}
