//! The quote that a TD gives to others: its measurements, and a signature that is **not** looked at here.
//!
//! Layout: Intel, "Intel TDX DCAP: Quote Generation Library and Quote Verification Library", appendix 3 (quote versions 4
//! and 5): a header of 48 bytes; in version 5 a body descriptor of 6; the TD report of TDX 1.0 (584 bytes) or 1.5 (648);
//! then the length of the signature data, and these.

use core::mem::{offset_of, size_of};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The size of a quote's header in bytes.
pub const HEADER_SIZE: usize = 48;
/// TEE_TYPE of a TD.
const TEE_TYPE_TDX: u32 = 0x81;
/// Body types of quote version 5.
const BODY_TDX_1_0: u16 = 2;
const BODY_TDX_1_5: u16 = 3;

/// Bytes that are not a TDX quote of a known version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// It ends too early.
    #[error("the TDX quote is cut off: it has {0} bytes")]
    CutOff(usize),
    /// The version is not one whose layout is known.
    #[error("the quote has version {0}, expected 4 or 5")]
    Version(u16),
    /// It is the quote of something else.
    #[error("the quote is of TEE type {0:#x}, expected 0x81 (TDX)")]
    TeeType(u32),
    /// The body is not that of a TD.
    #[error("the quote has a body of type {0}, expected 2 (TDX 1.0) or 3 (TDX 1.5)")]
    BodyType(u16),
}

/// The header.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    version: U16,
    attestation_key_type: U16,
    tee_type: U32,
    reserved: [u8; 4],
    qe_vendor_id: [u8; 16],
    user_data: [u8; 20],
}

/// The TD report of a quote: the fields that TDX 1.0 and 1.5 share.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct QuoteBody {
    /// TEE_TCB_SVN: the security versions of the TDX module.
    pub tee_tcb_svn: [u8; 16],
    /// MRSEAM: the measurement of the TDX module.
    pub mrseam: [u8; 48],
    /// MRSIGNERSEAM: who signed the module; zeros for Intel.
    pub mrsignerseam: [u8; 48],
    seamattributes: U64,
    tdattributes: U64,
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
    /// What the TD put in.
    pub report_data: [u8; 64],
}

const _: () = {
    assert!(size_of::<Header>() == HEADER_SIZE);
    assert!(size_of::<QuoteBody>() == 584);
    assert!(offset_of!(QuoteBody, tdattributes) == 120);
    assert!(offset_of!(QuoteBody, mrtd) == 136);
    assert!(offset_of!(QuoteBody, mrconfigid) == 184);
    assert!(offset_of!(QuoteBody, rtmr) == 328);
    assert!(offset_of!(QuoteBody, report_data) == 520);
};

/// A quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// VERSION: 4 or 5.
    pub version: u16,
    /// The TD report.
    pub body: QuoteBody,
}

impl Quote {
    /// Reads a quote. What follows the TD report, the signature above all, is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, QuoteError> {
        let cut_off = || QuoteError::CutOff(bytes.len());
        let (header, rest) = Header::read_from_prefix(bytes).map_err(|_| cut_off())?;
        let version = header.version.get();
        if !(4..=5).contains(&version) {
            return Err(QuoteError::Version(version));
        }
        if header.tee_type.get() != TEE_TYPE_TDX {
            return Err(QuoteError::TeeType(header.tee_type.get()));
        }
        let body = if version == 5 { descriptor(rest).ok_or_else(cut_off)?? } else { rest };
        let (body, _) = QuoteBody::read_from_prefix(body).map_err(|_| cut_off())?;
        Ok(Self { version, body })
    }

    /// Whether the bytes start as a quote of a TD does, of whatever version.
    pub fn is_quote(bytes: &[u8]) -> bool {
        Header::read_from_prefix(bytes)
            .is_ok_and(|(header, _)| (3..=6).contains(&header.version.get()) && header.tee_type.get() == TEE_TYPE_TDX)
    }
}

/// The body behind the descriptor of version 5; `None` where it is cut off.
fn descriptor(bytes: &[u8]) -> Option<Result<&[u8], QuoteError>> {
    let (body_type, rest) = U16::read_from_prefix(bytes).ok()?;
    let (size, rest) = U32::read_from_prefix(rest).ok()?;
    let least = match body_type.get() {
        BODY_TDX_1_0 => size_of::<QuoteBody>(),
        BODY_TDX_1_5 => 648,
        other => return Some(Err(QuoteError::BodyType(other))),
    };
    let size = usize::try_from(size.get()).ok().filter(|size| *size >= least)?;
    rest.get(..size).map(Ok)
}

impl QuoteBody {
    /// ATTRIBUTES of the TD.
    pub fn attributes(&self) -> super::TdAttributes {
        super::TdAttributes(self.tdattributes.get())
    }

    /// SEAMATTRIBUTES.
    pub fn seam_attributes(&self) -> u64 {
        self.seamattributes.get()
    }

    /// XFAM: the extended processor features that the TD may use.
    pub fn xfam(&self) -> u64 {
        self.xfam.get()
    }
}

#[cfg(test)]
mod tests;
