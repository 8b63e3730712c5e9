//! Which TEE the guest is in, and its own report.
//!
//! Neither answer can be turned into "none" by the host. SNP: `/sys/devices/system/cpu/sev` is made by Linux (6.11 and later)
//! where the SEV_STATUS register says SNP, and only the processor sets that; CPUID could come from the host. TDX: CPUID leaf
//! 21h says "IntelTDX    "; inside a TD the TDX module answers it, and Linux goes by it too. A host that fakes a TEE gets a
//! guest that stops because it has no report. Plain SEV and SEV-ES count as no TEE: they have no report either.

mod snp;
mod tdx;

use std::arch::x86_64::__cpuid_count;
use std::collections::BTreeMap;
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

/// CPUID leaf 21h in EBX, EDX, ECX of a TD (Intel 344425, "TDX enumeration").
const TDX_SIGNATURE: &[u8; 12] = b"IntelTDX    ";

/// The TEE that the guest runs in.
pub(crate) fn detect() -> Tee {
    let leaf = __cpuid_count(0x21, 0);
    choose(Path::new(SEV_DIRECTORY).is_dir(), [leaf.ebx, leaf.edx, leaf.ecx])
}

fn choose(sev_directory: bool, leaf_21h: [u32; 3]) -> Tee {
    if sev_directory {
        Tee::Snp
    } else if leaf_21h.map(u32::to_le_bytes).as_flattened() == TDX_SIGNATURE {
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
    fn the_processor_decides() {
        // EBX "Inte", EDX "lTDX", ECX "    ": Linux arch/x86/include/asm/shared/tdx.h.
        let tdx = [0x6574_6e49, 0x5844_546c, 0x2020_2020];
        assert_eq!(choose(false, tdx), Tee::Tdx);
        assert_eq!(choose(true, [0; 3]), Tee::Snp);
        assert_eq!(choose(false, [0; 3]), Tee::None);
        assert_eq!(choose(false, [tdx[0], tdx[2], tdx[1]]), Tee::None);
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
