//! The TDREPORT as the TDX module gives it to a TD: TDG.MR.REPORT, Linux `TDX_CMD_GET_REPORT0`.
//!
//! Layout: Intel 344425, "Intel TDX Module ABI Reference Specification", tables REPORTMACSTRUCT, TEE_TCB_INFO_STRUCT and
//! TDINFO_STRUCT. The MAC is checked by the processor (ENCLU EVERIFYREPORT2) on the same machine only, never here. A quote
//! has another layout ([`quote`]).

pub mod quote;

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The size of a TDREPORT in bytes.
pub const TDREPORT_SIZE: usize = 1024;

/// REPORTTYPE.TYPE of a TD.
const TYPE_TDX: u8 = 0x81;

/// Bytes that are not a TDREPORT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TdReportError {
    /// The length is wrong.
    #[error("a TDREPORT has {TDREPORT_SIZE} bytes, found {0}")]
    Size(usize),
    /// It is the report of something else.
    #[error("the report has type {0:#04x}, expected 0x81 (TDX)")]
    Type(u8),
}

/// TD attributes (ATTRIBUTES).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TdAttributes(pub u64);

impl TdAttributes {
    /// Bit 0: the TD can be debugged, and has no secrets.
    pub fn debug(self) -> bool {
        self.0 & 1 == 1
    }
}

/// REPORTTYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReportType {
    /// What was reported on: 0x81 is a TD.
    pub type_: u8,
    /// Subtype: 0.
    pub subtype: u8,
    /// Version of the structures that follow.
    pub version: u8,
    reserved: u8,
}

/// REPORTMACSTRUCT: the part that the MAC covers.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ReportMac {
    /// What was reported on.
    pub report_type: ReportType,
    reserved_4: [u8; 12],
    /// The processor's security version.
    pub cpusvn: [u8; 16],
    /// SHA-384 of TEE_TCB_INFO.
    pub tee_tcb_info_hash: [u8; 48],
    /// SHA-384 of TDINFO.
    pub tee_info_hash: [u8; 48],
    /// What the TD put in.
    pub report_data: [u8; 64],
    reserved_192: [u8; 32],
    /// HMAC-SHA-256 under a key that never leaves the processor.
    pub mac: [u8; 32],
}

/// TDINFO: what the TD is.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TdInfo {
    attributes: U64,
    xfam: U64,
    /// The measurement of the TD's initial content.
    pub mrtd: [u8; 48],
    /// What the host put in at creation: configuration.
    pub mrconfigid: [u8; 48],
    /// What the host put in at creation: owner.
    pub mrowner: [u8; 48],
    /// What the host put in at creation: the owner's configuration.
    pub mrownerconfig: [u8; 48],
    /// The run-time measurement registers.
    pub rtmr: [[u8; 48]; 4],
    /// The hash of the service TDs that are bound to this one, or zeros.
    pub servtd_hash: [u8; 48],
    extension: [u8; 64],
}

/// TDREPORT_STRUCT.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TdReport {
    /// What the MAC covers.
    pub report_mac: ReportMac,
    /// TEE_TCB_INFO, raw: it describes the TDX module, which a guest need not know.
    pub tee_tcb_info: [u8; 239],
    reserved_495: [u8; 17],
    /// What the TD is.
    pub td_info: TdInfo,
}

const _: () = {
    assert!(size_of::<ReportMac>() == 256);
    assert!(size_of::<TdInfo>() == 512);
    assert!(size_of::<TdReport>() == TDREPORT_SIZE);
    assert!(offset_of!(ReportMac, report_data) == 128);
    assert!(offset_of!(ReportMac, mac) == 224);
    assert!(offset_of!(TdReport, td_info) == 512);
    assert!(offset_of!(TdInfo, mrtd) == 16);
    assert!(offset_of!(TdInfo, mrconfigid) == 64);
    assert!(offset_of!(TdInfo, mrownerconfig) == 160);
    assert!(offset_of!(TdInfo, rtmr) == 208);
    assert!(offset_of!(TdInfo, servtd_hash) == 400);
};

impl TdReport {
    /// Reads a TDREPORT of exactly `TDREPORT_SIZE` bytes. The MAC is not checked, nor the hashes that it covers.
    pub fn parse(bytes: &[u8]) -> Result<Self, TdReportError> {
        let report = Self::read_from_bytes(bytes).map_err(|_| TdReportError::Size(bytes.len()))?;
        match report.report_mac.report_type.type_ {
            TYPE_TDX => Ok(report),
            other => Err(TdReportError::Type(other)),
        }
    }
}

impl TdInfo {
    /// ATTRIBUTES.
    pub fn attributes(&self) -> TdAttributes {
        TdAttributes(self.attributes.get())
    }

    /// XFAM: the extended processor features that the TD may use.
    pub fn xfam(&self) -> u64 {
        self.xfam.get()
    }
}

#[cfg(test)]
mod tests;
