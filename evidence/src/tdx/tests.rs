//! A real TDREPORT by its numbers, and the TD part of a real quote.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sha2::{Digest as _, Sha384};

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// A TDREPORT of type TDX, all else zero.
fn blank() -> Vec<u8> {
    let mut bytes = vec![0; TDREPORT_SIZE];
    bytes[0] = TYPE_TDX;
    bytes
}

/// The TDREPORT inside kinvolk/azure-cvm-tooling `az-cvm-vtpm/test/hcl-report-tdx.bin`: its TDINFO is zero but for XFAM and
/// MRTD, and the TDX module itself says what TDINFO hashes to.
#[test]
fn td_info_hashes_to_what_a_tdx_module_said() {
    let mut report = TdReport::parse(&blank()).unwrap();
    report.td_info.xfam = 0x0618e7.into();
    report.td_info.mrtd =
        hex("75f3acc2e1dfc3acf404d7eaa69a2eefcd0475a0dd6516ef5ba3cb83399c61b4aa1c638e3622bb650a514bfc6e858886")
            .try_into()
            .unwrap();
    let tee_info_hash =
        hex("afdfa33d952187cbaa6140a39f0920d0c659161060f280bc71236304a873c0655d1864cf5611d4e4d1c3330ae8b6ad5b");
    assert_eq!(Sha384::digest(report.td_info.as_bytes()).to_vec(), tee_info_hash);
}

/// The TD part of a quote body (Intel TDX DCAP quoting library API, TD report 1.0, offset 120 of the body) is the first 400
/// bytes of TDINFO. The expected values were read by confidential-containers/trustee.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
#[test]
fn td_info_reads_as_another_verifier_read_it() {
    let vectors = std::env::var_os("BULLION_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from);
    let Ok(quote) = std::fs::read(vectors.join("tdx/quotes/trustee_quote_4.dat")) else {
        eprintln!("skipped: no quote at {}", vectors.display());
        return;
    };
    let mut bytes = blank();
    bytes[512..912].copy_from_slice(&quote[48 + 120..48 + 520]);
    let info = TdReport::parse(&bytes).unwrap().td_info;
    assert_eq!(info.attributes.as_bytes(), hex("0100001000000000"));
    assert!(info.attributes().debug());
    assert_eq!(info.xfam.as_bytes(), hex("e742060000000000"));
    assert_eq!(info.xfam(), 0x0642e7);
    assert_eq!(
        info.mrtd.to_vec(),
        hex("705ee9381b8633a9fbe532b52345e8433343d2868959f57889d84ca377c395b689cac1599ccea1b7d420483a9ce5f031")
    );
    assert_eq!((info.mrconfigid, info.mrowner, info.mrownerconfig), ([0; 48], [0; 48], [0; 48]));
    assert_eq!(
        info.rtmr[0].to_vec(),
        hex("e940da7c2712d2790e2961e00484f4fa8e6f9eed71361655ae22699476b14f9e63867eb41edd4b480fef0c59f496b288")
    );
    assert_eq!(
        info.rtmr[1].to_vec(),
        hex("559cfcf42716ed6c40a48a73d5acb7da255435012f0a9f00fbe8c1c57612ede486a5684c4c9ff3ddf52315fcdca3a596")
    );
    assert_eq!((info.rtmr[2], info.rtmr[3]), ([0; 48], [0; 48]));
}

#[test]
fn other_lengths_and_types_are_refused() {
    assert_eq!(TdReport::parse(&[]), Err(TdReportError::Size(0)));
    assert_eq!(TdReport::parse(&blank()[1..]), Err(TdReportError::Size(1023)));
    assert_eq!(TdReport::parse(&[0; TDREPORT_SIZE]), Err(TdReportError::Type(0)));
}

proptest! {
    #[test]
    fn a_report_is_its_bytes(mut bytes in proptest::collection::vec(any::<u8>(), TDREPORT_SIZE)) {
        bytes[0] = TYPE_TDX;
        let report = TdReport::parse(&bytes).unwrap();
        prop_assert_eq!(report.as_bytes(), &bytes[..]);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2100)) {
        let _ = TdReport::parse(&bytes);
    }
}
