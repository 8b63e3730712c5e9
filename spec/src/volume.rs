//! Volumes: what the guest does with a disk (`[[guest.volume]]`, measured) and where the host takes it from
//! (`[[host.volume]]`, or `[[host.pci]]` for a drive that is passed whole; never measured). They meet by name; the guest finds
//! a virtio disk by the serial number made of it, and NVMe drives by their order.
//!
//! What is on a disk is the host's to choose. So an archive is believed only as far as its digest goes, and scratch is
//! written with a key that no other boot has.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::vm::{PciDevice, PciKind, is_name};

/// `[[guest.volume]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GuestVolume {
    /// Its name: up to 16 lower-case letters, digits and hyphens, starting with a letter.
    pub name: String,
    /// What it is for.
    #[serde(rename = "use")]
    pub purpose: Purpose,
    /// What it is on: a virtio disk unless this says otherwise.
    #[serde(default, skip_serializing_if = "Carrier::is_virtio")]
    pub on: Carrier,
    /// SHA-256 of an archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// The size of an archive in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Where a scratch volume is mounted: an absolute path below `/var`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
}

/// What a volume is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A container image as a tar file (OCI layout or `docker save`): checked against its digest, then given to podman.
    Archive,
    /// Room that lasts as long as one boot: encrypted with a random key, made into an ext4 file system, mounted.
    Scratch,
    /// Data that outlives a boot. Known, so that it is refused with a reason.
    Persistent,
}

/// What a volume is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// A virtio disk, which QEMU makes of a file or a block device.
    #[default]
    Virtio,
    /// An NVMe drive that is passed whole: of the controllers without the root file system, by PCI address, the first is of the
    /// first such volume, and there are as many as such volumes. Only scratch can be there.
    Nvme,
}

/// The module that drives NVMe drives in a guest.
pub const NVME_MODULE: &str = "nvme";

impl Carrier {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
    fn is_virtio(&self) -> bool {
        *self == Self::Virtio
    }
}

/// `[[host.volume]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HostVolume {
    /// The name of a guest's volume.
    pub name: String,
    /// A file, relative to the VM description, or a block device under a name that stays: `/dev/disk/by-...`,
    /// `/dev/mapper/...`.
    pub path: String,
    /// Whether a scratch volume may be on a disk that says it belongs to something else: a file system, a partition table.
    /// What is there is lost.
    #[serde(default)]
    pub dangerously_overwrite: bool,
}

/// The most volumes of a VM: each virtio disk has a PCI slot of its own.
pub const MAX_VOLUMES: usize = 8;
/// An archive is unpacked in the guest's memory or scratch: this is far more than either holds.
const MAX_ARCHIVE_BYTES: u64 = 1 << 40;

impl GuestVolume {
    /// The serial number of a virtio disk, at most 20 bytes, which is what virtio has room for; and what the guest calls the
    /// device that it makes.
    pub fn serial(&self) -> String {
        format!("vol-{}", self.name)
    }
}

/// The first thing that is wrong with the guest's volumes: the text to look for, and what to say of it.
pub(crate) fn guest_fault(guest: &[GuestVolume]) -> Option<(String, String)> {
    if guest.len() > MAX_VOLUMES {
        let message = format!("there are {} volumes: use at most {MAX_VOLUMES}", guest.len());
        return Some(("volume".to_owned(), message));
    }
    let mut names = BTreeSet::new();
    let mut mounts = BTreeSet::new();
    for volume in guest {
        let say = |message: String| Some((volume.name.clone(), message));
        if !is_name(&volume.name) || volume.name.len() > 16 {
            return say(format!(
                "\"{}\" cannot name a volume: use up to 16 lower-case letters, digits and hyphens, starting with a letter",
                volume.name
            ));
        }
        if !names.insert(&volume.name) {
            return say(format!("there are two volumes \"{}\"", volume.name));
        }
        if let Some(message) = volume.fault() {
            return say(message);
        }
        if let Some(mount) = volume.mount.as_ref().filter(|mount| !mounts.insert(*mount)) {
            return say(format!("two volumes are mounted on {mount}"));
        }
    }
    None
}

/// The first thing that is wrong with where the host takes the guest's volumes from.
pub(crate) fn host_fault(guest: &[GuestVolume], host: &[HostVolume], pci: &[PciDevice]) -> Option<(String, String)> {
    let on_disks = guest.iter().filter(|volume| volume.on == Carrier::Virtio);
    let nowhere = on_disks.into_iter().find(|volume| !host.iter().any(|host| host.name == volume.name));
    if let Some(GuestVolume { name, .. }) = nowhere {
        return Some((name.clone(), format!("volume \"{name}\" has no [[host.volume]] that says where it is")));
    }
    host.iter().find_map(|volume| volume.fault(host, guest)).or_else(|| drives_fault(guest, pci))
}

/// The first thing that is wrong with the drives that are passed whole for volumes. The guest tells them by their order alone, so
/// it must be the same here and there, and no other drive may come between them.
fn drives_fault(guest: &[GuestVolume], pci: &[PciDevice]) -> Option<(String, String)> {
    let wanted: Vec<&str> =
        guest.iter().filter(|volume| volume.on == Carrier::Nvme).map(|volume| volume.name.as_str()).collect();
    let given: Vec<&str> = pci.iter().filter_map(|device| device.volume.as_deref()).collect();
    let say = |name: &str, message: String| Some((name.to_owned(), message));
    if let Some(name) = given.iter().find(|name| !wanted.contains(name)) {
        return say(name, format!("[[host.pci]] is for volume \"{name}\", which [guest] does not have on = \"nvme\""));
    }
    for name in &wanted {
        match given.iter().filter(|given| *given == name).count() {
            0 => {
                let message = format!("volume \"{name}\" is on an NVMe drive: no [[host.pci]] has volume = \"{name}\"");
                return say(name, message);
            }
            1 => {}
            _ => return say(name, format!("there are two [[host.pci]] for volume \"{name}\"")),
        }
    }
    if given != wanted {
        let message = format!(
            "the guest tells NVMe drives by their order: put the [[host.pci]] of the volumes in that of [guest], {}",
            wanted.join(", ")
        );
        return say(given.first()?, message);
    }
    let other = pci.iter().find(|device| device.kind == Some(PciKind::Nvme) && device.volume.is_none());
    let message =
        "the guest takes every NVMe drive for that of a volume: say which volume this one is for, or leave it out";
    other.filter(|_| !wanted.is_empty()).and_then(|_| say("pci", message.to_owned()))
}

impl GuestVolume {
    fn fault(&self) -> Option<String> {
        let name = &self.name;
        let archive = self.sha256.is_some() || self.size_bytes.is_some();
        match self.purpose {
            Purpose::Persistent => Some(format!(
                "volume \"{name}\" is persistent: there is nobody yet to keep its key; use \"archive\" or \"scratch\""
            )),
            Purpose::Archive if self.on != Carrier::Virtio => {
                Some(format!("archive \"{name}\" is on a virtio disk, which the host fills: leave `on` out"))
            }
            Purpose::Archive if self.mount.is_some() => {
                Some(format!("archive \"{name}\" is not mounted: leave mount out"))
            }
            Purpose::Archive => match (self.sha256, self.size_bytes) {
                (Some(_), Some(1..=MAX_ARCHIVE_BYTES)) => None,
                _ => Some(format!("archive \"{name}\" needs sha256, and size_bytes from 1 to 2^40")),
            },
            Purpose::Scratch if archive => {
                Some(format!("scratch \"{name}\" has no content to check: leave sha256 and size_bytes out"))
            }
            Purpose::Scratch if !self.mount.as_deref().is_some_and(is_mount) => Some(format!(
                "scratch \"{name}\" needs mount: an absolute path below /var, such as \"/var/lib/containers\""
            )),
            Purpose::Scratch => None,
        }
    }
}

/// Whether `path` is a clean absolute path below `/var`.
pub fn is_mount(path: &str) -> bool {
    path.len() <= 200
        && path.strip_prefix("/var/").is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
        && path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/._-".contains(&c))
}

impl HostVolume {
    fn fault(&self, all: &[HostVolume], guest: &[GuestVolume]) -> Option<(String, String)> {
        let HostVolume { name, path, .. } = self;
        let say = |message: String| Some((path.clone(), message));
        let Some(wanted) = guest.iter().find(|guest| guest.name == *name) else {
            return Some((name.clone(), format!("[[host.volume]] names \"{name}\", which [guest] does not have")));
        };
        if wanted.on == Carrier::Nvme {
            let message =
                format!("volume \"{name}\" is on an NVMe drive: say volume = \"{name}\" in its [[host.pci]] instead");
            return say(message);
        }
        if path.is_empty() || path.contains('\0') {
            return Some((name.clone(), format!("the path of volume \"{name}\" is not one")));
        }
        if path.starts_with("/dev/") && !["/dev/disk/by-", "/dev/mapper/"].iter().any(|good| path.starts_with(good)) {
            return say(format!("{path} can be another disk after the next start: use its name below /dev/disk/by-id"));
        }
        if self.dangerously_overwrite && wanted.purpose != Purpose::Scratch {
            return say(format!("volume \"{name}\" is never written: leave dangerously_overwrite out"));
        }
        let again = all.iter().filter(|other| other.name == *name).count() > 1;
        again.then(|| (name.clone(), format!("there are two [[host.volume]] for \"{name}\"")))
    }
}
