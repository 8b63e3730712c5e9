//! The report: one JSON object that says what was launched and what it measured, written when the launch ends, well or not.
//!
//! Numbers that are bit masks or addresses are strings `0x...`; digests and identifiers are lower-case hex without a prefix.

use std::fs::{File, rename};
use std::io::Write as _;
use std::path::Path;

use serde::{Serialize, Serializer};

use crate::firmware::File as FwCfgFile;
use crate::pages::PageRun;
use crate::quote::Answer;
use crate::{snp, tdx};

/// The format's version.
const SCHEMA: u32 = 1;

/// The report on one launch.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    /// The format's version: 1.
    pub(crate) schema: u32,
    /// Always true: no digest in here comes from a TEE.
    pub(crate) simulated: bool,
    /// Which launch of this QEMU process this is, from 1; a guest reset makes another.
    pub(crate) launch: u32,
    /// Why the launch failed; null where it did not.
    pub(crate) failed: Option<&'a str>,
    /// The status of the secure processor or the TDX module, where that is what refused.
    #[serde(serialize_with = "as_optional_number")]
    pub(crate) firmware_status: Option<u64>,
    /// How many vCPUs the launch has.
    pub(crate) vcpus: usize,
    /// The runs of pages in the order in which they were measured.
    pub(crate) pages: &'a [PageRun],
    /// What firmware would have read by fw_cfg, in the order in which it was read; null where nobody asked for it.
    pub(crate) fw_cfg: Option<&'a [FwCfgFile]>,
    /// What came of asking for a quote; null where nobody asked for it.
    pub(crate) quote: Option<&'a Answer>,
    /// What belongs to one TEE.
    #[serde(flatten)]
    pub(crate) tee: Tee<'a>,
}

/// What belongs to one TEE.
#[derive(Debug, Serialize)]
#[serde(tag = "tee", rename_all = "lowercase")]
pub(crate) enum Tee<'a> {
    /// SEV-SNP.
    Snp(&'a snp::Facts),
    /// TDX.
    Tdx(&'a tdx::Facts),
}

impl<'a> Report<'a> {
    /// A report on a launch that has not failed.
    pub(crate) fn new(launch: u32, vcpus: usize, pages: &'a [PageRun], tee: Tee<'a>) -> Self {
        Self {
            schema: SCHEMA,
            simulated: true,
            launch,
            failed: None,
            firmware_status: None,
            vcpus,
            pages,
            fw_cfg: None,
            quote: None,
            tee,
        }
    }

    /// Writes the report in place of `path`: the file there is either the old or the whole new one.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let name = path.file_name().ok_or(std::io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let written = File::create(&temporary)
            .and_then(|mut file| {
                let mut text = serde_json::to_vec_pretty(self)?;
                text.push(b'\n');
                file.write_all(&text)?;
                file.sync_all()
            })
            .and_then(|()| rename(&temporary, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written
    }
}

/// Serializes a bit mask or an address.
pub(crate) fn as_number<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

/// Serializes a bit mask or an address that may be absent.
pub(crate) fn as_optional_number<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => as_number(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// Serializes bytes.
pub(crate) fn as_hex<const N: usize, S: Serializer>(value: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(value))
}

/// Serializes bytes that may be absent.
pub(crate) fn as_optional_hex<const N: usize, S: Serializer>(
    value: &Option<[u8; N]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => as_hex(value, serializer),
        None => serializer.serialize_none(),
    }
}
