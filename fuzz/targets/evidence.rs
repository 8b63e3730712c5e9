//! The SNP attestation report and the TDX TDREPORT as a guest reads them, of any size, and cut or filled to the right one;
//! and the TDX quote as others get it.
#![no_main]

use evidence::snp::AttestationReport;
use evidence::tdx::TdReport;
use evidence::tdx::quote::Quote;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    for size in [1184, 1024] {
        let mut exact = bytes.to_vec();
        exact.resize(size, 0);
        read(&exact);
    }
});

fn read(bytes: &[u8]) {
    if let Ok(report) = AttestationReport::parse(bytes) {
        let _ = (report.version(), report.policy(), report.processor_id(), report.mitigation_vectors());
    }
    let _ = TdReport::parse(bytes);
    if Quote::parse(bytes).is_ok() {
        assert!(Quote::is_quote(bytes));
    }
}
