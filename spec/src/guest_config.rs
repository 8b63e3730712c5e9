//! The `[guest]` part of `vm.toml`: what the guest must be able to prove it was given, and how it is tied to the launch.
//!
//! Its canonical JSON, behind a domain tag with a version, is hashed into SNP HOST_DATA (SHA-256, 32 bytes) and TDX
//! MRCONFIGID (SHA-384, 48 bytes). It reaches the guest on a small read-only disk, framed by `to_disk` and `from_disk`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canonical::{CanonicalError, to_canonical_bytes};
use crate::digest::{Sha256Digest, Sha384Digest};
use crate::gpus::Gpus;
use crate::network::Network;
use crate::volume::{self, GuestVolume};
use crate::watchdog::Watchdog;
use crate::workload::Workload;

/// What stands before the canonical JSON when it is hashed. A new version of the format gets a new tag.
pub const DOMAIN_TAG: &[u8] = b"bullion guest configuration v1\0";

/// The serial number of the virtio disk that carries the configuration.
pub const DISK_SERIAL: &str = "bullion-config";

/// The first eight bytes of that disk.
const DISK_MAGIC: &[u8; 8] = b"BULLIONC";
/// Disks are written in whole blocks of this many bytes.
const DISK_BLOCK: usize = 4096;
/// A configuration larger than this is refused on both sides.
pub const MAX_BYTES: usize = 1 << 20;

/// `[guest]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// The guest's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Environment of the workload. Public: it is reported to whoever asks the guest. Never put a secret here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// What the guest runs; without it, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// The address it gives its NIC; without it, a NIC stays as it is and nothing is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// The GPUs it must find; without it, nothing is said about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Gpus>,
    /// The watchdog that it feeds; without it, it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<Watchdog>,
    /// Whether it has a device by which its kernel tells QEMU of a panic (QEMU documentation, "PVPANIC DEVICE"): that there was one, and
    /// nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pvpanic: bool,
    /// Its volumes, in the order of their slots.
    #[serde(default, rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<GuestVolume>,
}

/// A configuration disk that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The disk does not start with the magic number.
    #[error("the configuration disk does not start with \"BULLIONC\"")]
    Magic,
    /// The length in the header is larger than the disk or the limit.
    #[error("the configuration disk says it holds {0} bytes, more than it has or than the limit of {MAX_BYTES}")]
    Length(u64),
    /// The content is not a configuration, or not in canonical form.
    #[error("the configuration is not canonical JSON of a known form: {0}")]
    Content(String),
}

impl GuestConfig {
    /// The canonical JSON.
    pub fn canonical_bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        to_canonical_bytes(self)
    }

    /// The first thing that no guest could do: the text to look for in a file, and what to say of it. The host asks before
    /// it launches, the guest before it acts.
    pub fn fault(&self) -> Option<(String, String)> {
        if let Some(fault) = self.workload.as_ref().and_then(Workload::fault) {
            return Some(fault);
        }
        if let Some(fault) = self.network.as_ref().and_then(Network::fault) {
            return Some(fault);
        }
        if let Some(fault) = self.gpus.as_ref().and_then(Gpus::fault) {
            return Some(fault);
        }
        if let Some(fault) = self.watchdog.as_ref().and_then(Watchdog::fault) {
            return Some(fault);
        }
        if self.network.is_none() && self.workload.as_ref().is_some_and(|workload| !workload.publish.is_empty()) {
            let message = "a port is published on the guest's network, and there is none: say [guest.network]";
            return Some(("publish".to_owned(), message.to_owned()));
        }
        volume::guest_fault(&self.volumes)
    }

    /// Whether the guest has more to do than to be there.
    pub fn asks_for_something(&self) -> bool {
        self.workload.is_some() || !self.volumes.is_empty() || self.network.is_some()
    }

    /// The value for SNP HOST_DATA.
    pub fn host_data(&self) -> Result<Sha256Digest, CanonicalError> {
        Ok(Sha256Digest::of(&tagged(&self.canonical_bytes()?)))
    }

    /// The value for TDX MRCONFIGID.
    pub fn mrconfigid(&self) -> Result<Sha384Digest, CanonicalError> {
        Ok(Sha384Digest::of(&tagged(&self.canonical_bytes()?)))
    }

    /// The content of the configuration disk: magic, length (u64, little-endian), canonical JSON, zeros to a whole block.
    pub fn to_disk(&self) -> Result<Vec<u8>, CanonicalError> {
        let json = self.canonical_bytes()?;
        let mut disk = DISK_MAGIC.to_vec();
        disk.extend_from_slice(&u64::try_from(json.len()).unwrap_or(u64::MAX).to_le_bytes());
        disk.extend_from_slice(&json);
        disk.resize(disk.len().next_multiple_of(DISK_BLOCK), 0);
        Ok(disk)
    }

    /// Reads a configuration disk. Only the canonical form is accepted, so that one digest has one meaning.
    pub fn from_disk(disk: &[u8]) -> Result<Self, DiskError> {
        let rest = disk.strip_prefix(DISK_MAGIC).ok_or(DiskError::Magic)?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or(DiskError::Magic)?;
        let length = u64::from_le_bytes(*length);
        let json = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_BYTES)
            .and_then(|length| rest.get(..length))
            .ok_or(DiskError::Length(length))?;
        let config: Self = serde_json::from_slice(json).map_err(|error| DiskError::Content(error.to_string()))?;
        match config.canonical_bytes() {
            Ok(canonical) if canonical == json => Ok(config),
            _ => Err(DiskError::Content("it is not in canonical form".to_owned())),
        }
    }
}

fn tagged(json: &[u8]) -> Vec<u8> {
    [DOMAIN_TAG, json].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_disk_gives_back_its_configuration(hostname in proptest::option::of("[a-z]{1,20}"), environment in proptest::collection::btree_map("[A-Z]{1,8}", ".{0,40}", 0..8)) {
            let config = GuestConfig { hostname, environment, ..GuestConfig::default() };
            prop_assert_eq!(GuestConfig::from_disk(&config.to_disk().unwrap()).unwrap(), config);
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = GuestConfig::from_disk(&bytes);
            let mut framed = DISK_MAGIC.to_vec();
            framed.extend(bytes);
            let _ = GuestConfig::from_disk(&framed);
        }
    }

    #[test]
    fn only_the_canonical_form_is_accepted() {
        let json = b"{ \"hostname\": \"a\" }";
        let mut disk = DISK_MAGIC.to_vec();
        disk.extend_from_slice(&(json.len() as u64).to_le_bytes());
        disk.extend_from_slice(json);
        assert!(matches!(GuestConfig::from_disk(&disk), Err(DiskError::Content(_))));
        disk[8] = 0xff;
        assert_eq!(GuestConfig::from_disk(&disk), Err(DiskError::Length(255)));
    }

    #[test]
    fn the_binding_digests_are_fixed() {
        // Computed independently: printf 'bullion guest configuration v1\0{}' | sha256sum (and sha384sum).
        let config = GuestConfig::default();
        assert_eq!(config.canonical_bytes().unwrap(), b"{}");
        assert_eq!(config.host_data().unwrap().to_string(), HOST_DATA_OF_EMPTY);
        assert_eq!(config.mrconfigid().unwrap().to_string(), MRCONFIGID_OF_EMPTY);
    }

    const HOST_DATA_OF_EMPTY: &str = "71d22fbc48f55883adbaa2eb9f71870e4374930eb91a310bd1eca0dfb2bbfc78";
    const MRCONFIGID_OF_EMPTY: &str =
        "1217015b10a0352f92f47ad9b45fc81337839a303b8eae766d02bbb67514941be73492fb63d330a1d3a3a2c32d5d05ce";
}
