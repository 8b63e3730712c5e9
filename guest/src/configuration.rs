//! The `[guest]` configuration: read from its disk, and believed only as far as the guest's own report goes.
//!
//! Under a TEE the launch put a digest into the report before the guest ran. A configuration with another digest, one that
//! is missing although the report speaks of one, and one that the report does not speak of, all stop the boot.

use std::fs::File;
use std::io::Read as _;

use spec::agent::{Binding, Configuration};
use spec::canonical::CanonicalError;
use spec::digest::encode_hex;
use spec::guest_config::{DISK_SERIAL, GuestConfig, MAX_BYTES};

use crate::disks;
use crate::failure::{Failure, OrFail as _, Stage};
use crate::tee::OwnReport;

/// Header and padding to a whole block come on top of the JSON.
const MAX_DISK: u64 = MAX_BYTES as u64 + 4096;

/// A configuration that the guest must not accept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindingError {
    /// The report speaks of a configuration, and there is none.
    #[error("there is no configuration disk, but {field} of the guest's report is {expected}")]
    Missing {
        /// The report's field.
        field: &'static str,
        /// Its value.
        expected: String,
    },
    /// The report speaks of another configuration, or of none.
    #[error("the configuration hashes to {found}, expected {expected} by {field} of the guest's report")]
    Mismatch {
        /// The report's field.
        field: &'static str,
        /// Its value.
        expected: String,
        /// The digest of the configuration.
        found: String,
    },
    /// The configuration cannot be hashed.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

/// Reads the configuration disk, if there is one.
pub(crate) fn read() -> Result<Option<GuestConfig>, Failure> {
    let Some(disk) = disks::find(DISK_SERIAL).or_fail(Stage::Configuration)? else { return Ok(None) };
    let node = disk.node();
    let mut bytes = Vec::new();
    // Read once: the host may answer a second read differently.
    File::open(&node)
        .and_then(|file| file.take(MAX_DISK).read_to_end(&mut bytes))
        .or_fail_doing(Stage::Configuration, format_args!("reading {}", node.display()))?;
    GuestConfig::from_disk(&bytes).map(Some).or_fail(Stage::Configuration)
}

/// Decides whether the guest may run with `config`, and what binds it.
pub(crate) fn bind(config: Option<&GuestConfig>, report: &OwnReport) -> Result<Configuration, BindingError> {
    let (binding, field, expected) = match report {
        OwnReport::None => return unattested(config),
        OwnReport::Snp(report) => (Binding::HostData, "HOST_DATA", report.host_data.as_slice()),
        OwnReport::Tdx(report) => (Binding::Mrconfigid, "MRCONFIGID", report.td_info.mrconfigid.as_slice()),
    };
    let Some(config) = config else {
        return if expected.iter().all(|byte| *byte == 0) {
            Ok(Configuration { binding: Binding::Absent, digest: None })
        } else {
            Err(BindingError::Missing { field, expected: encode_hex(expected) })
        };
    };
    let found = match report {
        OwnReport::Tdx(_) => config.mrconfigid()?.as_bytes().to_vec(),
        _ => config.host_data()?.as_bytes().to_vec(),
    };
    if found != expected {
        return Err(BindingError::Mismatch { field, expected: encode_hex(expected), found: encode_hex(&found) });
    }
    Ok(Configuration { binding, digest: Some(config.host_data()?) })
}

fn unattested(config: Option<&GuestConfig>) -> Result<Configuration, BindingError> {
    let digest = config.map(GuestConfig::host_data).transpose()?;
    let binding = if digest.is_some() { Binding::Unattested } else { Binding::Absent };
    Ok(Configuration { binding, digest })
}

#[cfg(test)]
mod tests;
