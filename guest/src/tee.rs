//! Which TEE the guest is in, and its own report.
//!
//! The kernel is asked, not the CPUID instruction: under SNP the answer to CPUID can come from the host where the kernel's
//! comes from the SEV_STATUS register, which only the processor sets. `/sys/devices/system/cpu/sev` is made by Linux (6.11
//! and later) in SNP guests only. For TDX the kernel's answer is the `tdx_guest` flag of `/proc/cpuinfo`, from CPUID leaf
//! 21h, which the TDX module answers itself. Plain SEV and SEV-ES count as no TEE: they have no report.

mod snp;
mod tdx;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use evidence::snp::AttestationReport;
use evidence::tdx::TdReport;
use spec::Tee;
use spec::agent::Measurements;
use spec::digest::encode_hex;

/// The guest's own report. It comes from the kernel's driver over a channel that the host cannot write to, so here a parsed
/// report is an authentic one.
#[derive(Clone, Debug)]
pub(crate) enum OwnReport {
    /// There is no TEE.
    None,
    /// SEV-SNP.
    Snp(Box<AttestationReport>),
    /// TDX.
    Tdx(Box<TdReport>),
}

/// A report that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnReportError {
    /// The driver's device cannot be opened.
    #[error("{device}: {error}")]
    Device {
        /// The device.
        device: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// The driver refused.
    #[error("{request} on {device}: {detail}")]
    Refused {
        /// The ioctl.
        request: &'static str,
        /// The device.
        device: &'static str,
        /// The error number, or what the firmware said.
        detail: String,
    },
    /// The answer is not an SNP report.
    #[error(transparent)]
    Snp(#[from] evidence::snp::ReportError),
    /// The answer is not a TDREPORT.
    #[error(transparent)]
    Tdx(#[from] evidence::tdx::TdReportError),
}

const SEV_DIRECTORY: &str = "/sys/devices/system/cpu/sev";

/// The TEE that the kernel says it runs in.
pub(crate) fn detect() -> Tee {
    let cpuinfo = File::open("/proc/cpuinfo").map(BufReader::new);
    // One processor's flags are enough, and reading all of them takes time.
    let flags = cpuinfo
        .into_iter()
        .flat_map(|lines| lines.lines().map_while(Result::ok))
        .find(|line| line.starts_with("flags"));
    choose(Path::new(SEV_DIRECTORY).is_dir(), flags.as_deref().unwrap_or_default())
}

fn choose(sev_directory: bool, cpu_flags: &str) -> Tee {
    if sev_directory {
        Tee::Snp
    } else if cpu_flags.split_ascii_whitespace().any(|flag| flag == "tdx_guest") {
        Tee::Tdx
    } else {
        Tee::None
    }
}

/// Asks the TEE for a report with all-zero report data.
pub(crate) fn own_report(tee: Tee) -> Result<OwnReport, OwnReportError> {
    match tee {
        Tee::None => Ok(OwnReport::None),
        Tee::Snp => Ok(OwnReport::Snp(Box::new(snp::report()?))),
        Tee::Tdx => Ok(OwnReport::Tdx(Box::new(tdx::report()?))),
    }
}

impl OwnReport {
    /// The registers under the vendors' names.
    pub(crate) fn measurements(&self) -> Measurements {
        let (tee, registers) = match self {
            Self::None => (Tee::None, BTreeMap::new()),
            Self::Snp(report) => (Tee::Snp, snp_registers(report)),
            Self::Tdx(report) => (Tee::Tdx, tdx_registers(report)),
        };
        Measurements { tee, registers }
    }
}

fn snp_registers(report: &AttestationReport) -> BTreeMap<String, String> {
    named([
        ("MEASUREMENT", report.measurement.as_slice()),
        ("HOST_DATA", &report.host_data),
        ("ID_KEY_DIGEST", &report.id_key_digest),
        ("AUTHOR_KEY_DIGEST", &report.author_key_digest),
        // As the number that QEMU and the vendor's tables write, not as bytes in memory.
        ("POLICY", &report.policy().0.to_be_bytes()),
        ("VMPL", &report.vmpl().to_be_bytes()),
    ])
}

fn tdx_registers(report: &TdReport) -> BTreeMap<String, String> {
    let info = &report.td_info;
    let [rtmr0, rtmr1, rtmr2, rtmr3] = &info.rtmr;
    named([
        ("MRTD", info.mrtd.as_slice()),
        ("RTMR0", rtmr0),
        ("RTMR1", rtmr1),
        ("RTMR2", rtmr2),
        ("RTMR3", rtmr3),
        ("MRCONFIGID", &info.mrconfigid),
        ("MROWNER", &info.mrowner),
        ("MROWNERCONFIG", &info.mrownerconfig),
        ("ATTRIBUTES", &info.attributes().0.to_be_bytes()),
        ("XFAM", &info.xfam().to_be_bytes()),
    ])
}

fn named<const N: usize>(registers: [(&str, &[u8]); N]) -> BTreeMap<String, String> {
    registers.into_iter().map(|(name, value)| (name.to_owned(), encode_hex(value))).collect()
}

#[cfg(test)]
mod tests {
    use evidence::tdx::TDREPORT_SIZE;

    use super::*;

    #[test]
    fn the_kernels_word_decides() {
        assert_eq!(choose(true, ""), Tee::Snp);
        assert_eq!(choose(false, "flags\t\t: fpu vmmcall tdx_guest fsgsbase"), Tee::Tdx);
        // A host can put these into CPUID of an ordinary guest, and SEV without SNP has them.
        assert_eq!(choose(false, "flags\t\t: fpu sev sev_es sev_snp hypervisor"), Tee::None);
        assert_eq!(choose(false, "flags\t\t: fpu tdx_guest_x"), Tee::None);
    }

    #[test]
    fn registers_have_the_vendors_names_and_places() {
        let mut bytes = vec![0; TDREPORT_SIZE];
        bytes[0] = 0x81;
        bytes[512] = 1;
        bytes[528] = 0xaa;
        bytes[512 + 208 + 3 * 48] = 0xbb;
        let report = OwnReport::Tdx(Box::new(TdReport::parse(&bytes).unwrap()));
        let measurements = report.measurements();
        assert_eq!(measurements.registers["MRTD"], format!("aa{}", "00".repeat(47)));
        assert_eq!(measurements.registers["RTMR3"], format!("bb{}", "00".repeat(47)));
        assert_eq!(measurements.registers["ATTRIBUTES"], "0000000000000001");
        assert_eq!(measurements.registers.len(), 10);
        assert!(OwnReport::None.measurements().registers.is_empty());
    }
}
