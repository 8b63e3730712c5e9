//! A file of evidence, known by its content: an event log, a TDX quote or TDREPORT, an SNP report. Nothing here verifies a
//! signature: what is read is a claim.

use std::path::{Path, PathBuf};

use evidence::snp::{AttestationReport, REPORT_SIZE};
use evidence::tdx::quote::{Quote, QuoteBody};
use evidence::tdx::{TDREPORT_SIZE, TdInfo, TdReport};
use measure::Digest384;
use measure::eventlog::EventLog;
use spec::Outcome;

use crate::failure::Failure;
use crate::inputs;
use crate::weigh::unusable;

/// Larger than any log: firmware sets aside 64 KiB to 1 MiB.
pub(crate) const MAX_BYTES: u64 = 64 << 20;
/// What to do with the table that people take for the log.
pub(crate) const CCEL_TABLE: &str =
    "this is the ACPI table that says where the log is; the log itself is /sys/firmware/acpi/tables/data/CCEL";

/// A file of evidence.
pub(crate) struct EvidenceFile {
    /// Where it was read.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) content: Content,
}

/// What a file of evidence is.
pub(crate) enum Content {
    /// An event log, as bytes.
    EventLog(Vec<u8>),
    /// The measurements in a quote or a TDREPORT.
    Tdx(Box<TdMeasurement>),
    /// An SNP attestation report.
    Snp(Box<AttestationReport>),
}

/// What a TD is, as its quote or TDREPORT says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TdMeasurement {
    /// `TDX quote` or `TDREPORT`.
    pub(crate) kind: &'static str,
    /// MRTD.
    pub(crate) mrtd: Digest384,
    /// RTMR0 to RTMR3.
    pub(crate) rtmr: [Digest384; 4],
    /// MRCONFIGID.
    pub(crate) mrconfigid: [u8; 48],
    /// ATTRIBUTES.
    pub(crate) attributes: u64,
    /// XFAM.
    pub(crate) xfam: u64,
    /// MROWNER and MROWNERCONFIG.
    pub(crate) owner: [[u8; 48]; 2],
}

impl EvidenceFile {
    /// Reads a file and finds out what it is.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = inputs::read_file(path, MAX_BYTES, "evidence")?;
        let content = content(bytes.clone())
            .or_else(|failure| unhex(&bytes).map_or(Err(failure), content))
            .map_err(|failure| at(path, failure))?;
        Ok(Self { path: path.to_owned(), content })
    }

    /// What people call it.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.content {
            Content::EventLog(_) => "event log",
            Content::Tdx(measurement) => measurement.kind,
            Content::Snp(_) => "SNP report",
        }
    }
}

fn at(path: &Path, mut failure: Failure) -> Failure {
    if let Some(first) = failure.messages.first_mut() {
        *first = format!("{}: {first}", path.display());
    }
    failure
}

fn content(bytes: Vec<u8>) -> Result<Content, Failure> {
    let refused = |error: &dyn std::error::Error| Failure::new(Outcome::InputMismatch, error.to_string());
    if Quote::is_quote(&bytes) {
        let quote = Quote::parse(&bytes).map_err(|error| refused(&error))?;
        return Ok(Content::Tdx(Box::new(TdMeasurement::of_quote(&quote.body))));
    }
    if bytes.len() == TDREPORT_SIZE && bytes.first() == Some(&0x81) {
        let report = TdReport::parse(&bytes).map_err(|error| refused(&error))?;
        return Ok(Content::Tdx(Box::new(TdMeasurement::of_info(&report.td_info))));
    }
    if bytes.len() == REPORT_SIZE {
        let report = AttestationReport::parse(&bytes).map_err(|error| refused(&error))?;
        return Ok(Content::Snp(Box::new(report)));
    }
    match EventLog::parse_lenient(&bytes) {
        Ok(_) => Ok(Content::EventLog(bytes)),
        Err(_) if bytes.starts_with(b"CCEL") => {
            Err(Failure::new(Outcome::InputMismatch, "this is no event log").with_hint(CCEL_TABLE))
        }
        Err(error) => {
            let size = bytes.len();
            let message = format!(
                "{size} bytes that are neither an event log ({error}), nor a TDX quote, nor an SNP report of {REPORT_SIZE} bytes"
            );
            Err(Failure::new(Outcome::InputMismatch, message))
        }
    }
}

/// The bytes behind a text of hex digits, as tools print quotes and reports; `None` for anything else.
fn unhex(bytes: &[u8]) -> Option<Vec<u8>> {
    let digits: String = std::str::from_utf8(bytes).ok()?.split_ascii_whitespace().collect();
    spec::digest::decode_hex(&digits).filter(|bytes| !bytes.is_empty())
}

impl TdMeasurement {
    fn of_quote(body: &QuoteBody) -> Self {
        Self {
            kind: "TDX quote",
            mrtd: Digest384(body.mrtd),
            rtmr: body.rtmr.map(Digest384),
            mrconfigid: body.mrconfigid,
            attributes: body.attributes().0,
            xfam: body.xfam(),
            owner: [body.mrowner, body.mrownerconfig],
        }
    }

    fn of_info(info: &TdInfo) -> Self {
        Self {
            kind: "TDREPORT",
            mrtd: Digest384(info.mrtd),
            rtmr: info.rtmr.map(Digest384),
            mrconfigid: info.mrconfigid,
            attributes: info.attributes().0,
            xfam: info.xfam(),
            owner: [info.mrowner, info.mrownerconfig],
        }
    }
}

/// An event log read leniently, and what a strict reading refuses of it.
pub(crate) fn lenient<'a>(path: &Path, bytes: &'a [u8]) -> Result<(EventLog<'a>, Option<String>), Failure> {
    let (log, stopped) = EventLog::parse_lenient(bytes).map_err(|error| unusable(path, &error))?;
    Ok((log, stopped.map(|error| error.to_string())))
}
