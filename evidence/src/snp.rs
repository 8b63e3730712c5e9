//! The SNP attestation report as the AMD secure processor writes it.
//!
//! Layout: AMD publication 56860, "SEV Secure Nested Paging Firmware ABI Specification", revision 1.58, table
//! ATTESTATION_REPORT. Versions 2, 3, 4 and 5 have one layout; later versions give meaning to bytes that were reserved. TCB
//! versions stay raw bytes because their layout depends on the processor, which a parser cannot know for version 2.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The size of a report in bytes.
pub const REPORT_SIZE: usize = 1184;

/// Bytes that are not an attestation report of a known version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The length is wrong.
    #[error("an SNP attestation report has {REPORT_SIZE} bytes, found {0}")]
    Size(usize),
    /// The version is not one whose layout is known.
    #[error("the SNP attestation report has version {0}, expected 2 to 5")]
    Version(u32),
}

/// The guest policy (GUEST_POLICY): what the guest's owner allowed the host to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// Bit 19: the host may debug the guest, which then has no secrets.
    pub fn debug(self) -> bool {
        self.0 >> 19 & 1 == 1
    }

    /// Bit 18: the guest may be tied to a migration agent.
    pub fn migrate_ma(self) -> bool {
        self.0 >> 18 & 1 == 1
    }

    /// Bit 16: simultaneous multithreading may be on.
    pub fn smt(self) -> bool {
        self.0 >> 16 & 1 == 1
    }
}

/// A TCB version (TCB_VERSION), raw: the meaning of its bytes depends on the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcbVersion(pub [u8; 8]);

/// A firmware version as the report spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FirmwareVersion {
    /// Build number.
    pub build: u8,
    /// Minor version.
    pub minor: u8,
    /// Major version.
    pub major: u8,
}

/// The processor's family, model and stepping (CPUID Fn0000_0001, combined).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ProcessorId {
    /// Combined family.
    pub family: u8,
    /// Combined model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

/// Launch and current mitigation vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MitigationVectors {
    /// LAUNCH_MIT_VECTOR: the mitigations in force when the guest was launched.
    pub launch: u64,
    /// CURRENT_MIT_VECTOR: the mitigations in force when the report was made.
    pub current: u64,
}

/// ATTESTATION_REPORT. Fields that exist only in later versions are reached through methods.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct AttestationReport {
    version: U32,
    guest_svn: U32,
    policy: U64,
    /// FAMILY_ID of the ID block.
    pub family_id: [u8; 16],
    /// IMAGE_ID of the ID block.
    pub image_id: [u8; 16],
    vmpl: U32,
    signature_algo: U32,
    /// CURRENT_TCB (PLATFORM_VERSION in older revisions).
    pub current_tcb: TcbVersion,
    platform_info: U64,
    flags: U32,
    reserved_4c: [u8; 4],
    /// What the guest put in.
    pub report_data: [u8; 64],
    /// The launch digest.
    pub measurement: [u8; 48],
    /// What the host put in at launch, before the guest ran.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the ID block, or zeros.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that certified the ID key, or zeros.
    pub author_key_digest: [u8; 48],
    /// Identifies this guest for as long as it runs.
    pub report_id: [u8; 32],
    /// The migration agent's REPORT_ID; all ones without one.
    pub report_id_ma: [u8; 32],
    /// REPORTED_TCB: the one that the signing key is derived from.
    pub reported_tcb: TcbVersion,
    processor_id: ProcessorId,
    reserved_18b: [u8; 21],
    /// The chip's identity, or zeros where it is masked.
    pub chip_id: [u8; 64],
    /// COMMITTED_TCB: the host cannot go below it.
    pub committed_tcb: TcbVersion,
    /// The running firmware.
    pub current_version: FirmwareVersion,
    reserved_1eb: u8,
    /// The firmware the host cannot go below.
    pub committed_version: FirmwareVersion,
    reserved_1ef: u8,
    /// CURRENT_TCB at the time of launch.
    pub launch_tcb: TcbVersion,
    launch_mit_vector: U64,
    current_mit_vector: U64,
    reserved_208: [u8; 152],
    /// ECDSA P-384 with SHA-384 over everything before it: R and S as 72-byte little-endian numbers, then zeros.
    pub signature: [u8; 512],
}

const _: () = {
    assert!(size_of::<AttestationReport>() == REPORT_SIZE);
    assert!(offset_of!(AttestationReport, policy) == 0x08);
    assert!(offset_of!(AttestationReport, vmpl) == 0x30);
    assert!(offset_of!(AttestationReport, platform_info) == 0x40);
    assert!(offset_of!(AttestationReport, report_data) == 0x50);
    assert!(offset_of!(AttestationReport, measurement) == 0x90);
    assert!(offset_of!(AttestationReport, host_data) == 0xc0);
    assert!(offset_of!(AttestationReport, id_key_digest) == 0xe0);
    assert!(offset_of!(AttestationReport, report_id) == 0x140);
    assert!(offset_of!(AttestationReport, reported_tcb) == 0x180);
    assert!(offset_of!(AttestationReport, processor_id) == 0x188);
    assert!(offset_of!(AttestationReport, chip_id) == 0x1a0);
    assert!(offset_of!(AttestationReport, committed_tcb) == 0x1e0);
    assert!(offset_of!(AttestationReport, launch_tcb) == 0x1f0);
    assert!(offset_of!(AttestationReport, launch_mit_vector) == 0x1f8);
    assert!(offset_of!(AttestationReport, signature) == 0x2a0);
};

impl AttestationReport {
    /// Reads a report of exactly `REPORT_SIZE` bytes. The signature is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let report = Self::read_from_bytes(bytes).map_err(|_| ReportError::Size(bytes.len()))?;
        match report.version() {
            2..=5 => Ok(report),
            other => Err(ReportError::Version(other)),
        }
    }

    /// VERSION: 2 to 5.
    pub fn version(&self) -> u32 {
        self.version.get()
    }

    /// GUEST_SVN of the ID block.
    pub fn guest_svn(&self) -> u32 {
        self.guest_svn.get()
    }

    /// POLICY.
    pub fn policy(&self) -> GuestPolicy {
        GuestPolicy(self.policy.get())
    }

    /// The VMPL that the report was asked for.
    pub fn vmpl(&self) -> u32 {
        self.vmpl.get()
    }

    /// SIGNATURE_ALGO: 1 is ECDSA P-384 with SHA-384.
    pub fn signature_algo(&self) -> u32 {
        self.signature_algo.get()
    }

    /// PLATFORM_INFO, raw.
    pub fn platform_info(&self) -> u64 {
        self.platform_info.get()
    }

    /// The bit field at offset 48h: AUTHOR_KEY_EN (0), MASK_CHIP_KEY (1), SIGNING_KEY (2 to 4).
    pub fn key_information(&self) -> u32 {
        self.flags.get()
    }

    /// Family, model and stepping; `None` before version 3.
    pub fn processor_id(&self) -> Option<ProcessorId> {
        (self.version() >= 3).then_some(self.processor_id)
    }

    /// The mitigation vectors; `None` before version 5.
    pub fn mitigation_vectors(&self) -> Option<MitigationVectors> {
        (self.version() >= 5)
            .then(|| MitigationVectors { launch: self.launch_mit_vector.get(), current: self.current_mit_vector.get() })
    }
}

#[cfg(test)]
mod tests;
