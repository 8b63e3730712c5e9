//! Finds where the root file system is: on a virtio disk of its own, with the serial number that `launch` gives it, or on the two
//! partitions that the measured root hash names (UAPI Discoverable Partitions Specification), on whatever disk.
//!
//! Names and partition tables are the host's, so neither proves anything: `verity` decides by the root hash, and the kernel
//! goes on deciding at every read. Two devices of one name are refused, because which of them is opened would be the
//! host's choice. The kernel reads a disk's partition table once, when the disk appears: what the host writes there later moves nothing.

use std::fs;
use std::path::Path;
use std::time::Instant;

use spec::agent::ROOT_DISK_SERIAL;
use spec::partitions::of_root_hash;

use crate::command_line::RootParameters;
use crate::disks::{self, Disk, DiskError};
use crate::uevent::partition_uuid;

/// Disks and partitions by their kernel names.
const BLOCK_DEVICES: &str = "/sys/class/block";

/// The devices of a root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootDevice {
    /// One disk: data, then superblock and tree.
    Disk(Disk),
    /// Two partitions.
    Partitions {
        /// The data.
        data: Disk,
        /// Superblock and tree.
        tree: Disk,
    },
}

impl RootDevice {
    /// The devices by themselves.
    pub(crate) fn devices(&self) -> Vec<&Disk> {
        match self {
            Self::Disk(disk) => vec![disk],
            Self::Partitions { data, tree } => vec![data, tree],
        }
    }
}

/// A root file system that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RootDeviceError {
    /// The disk cannot be told.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Neither is there.
    #[error(
        "no virtio disk with the serial number \"{ROOT_DISK_SERIAL}\" and no partitions {} after {seconds} s; found {}",
        .wanted.join(" and "), list(.found)
    )]
    Missing {
        /// The UUIDs of the partitions.
        wanted: [String; 2],
        /// How long the guest waited.
        seconds: u64,
        /// The block devices that are there.
        found: Vec<String>,
    },
    /// More than one partition has that UUID.
    #[error("the partitions {} all have the UUID {uuid}", .partitions.join(", "))]
    Ambiguous {
        /// The UUID.
        uuid: String,
        /// The partitions.
        partitions: Vec<String>,
    },
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "no block device".to_owned() } else { found.join(", ") }
}

/// The root file system's devices, waiting for them to appear.
pub(crate) fn wait_for(root: &RootParameters) -> Result<RootDevice, RootDeviceError> {
    let wanted = of_root_hash(&root.root_hash).map(|uuid| uuid.to_string());
    let deadline = Instant::now() + disks::PATIENCE;
    let devices = Path::new(BLOCK_DEVICES);
    loop {
        if let Some(disk) = disks::find(ROOT_DISK_SERIAL)? {
            return Ok(RootDevice::Disk(disk));
        }
        if let Some(partitions) = partitions(devices, &wanted)? {
            return Ok(partitions);
        }
        if Instant::now() >= deadline {
            let mut found = names(devices);
            found.sort();
            return Err(RootDeviceError::Missing { wanted, seconds: disks::PATIENCE.as_secs(), found });
        }
        std::thread::sleep(disks::INTERVAL);
    }
}

/// Both partitions, or `None` where one of them is not there yet.
fn partitions(devices: &Path, wanted: &[String; 2]) -> Result<Option<RootDevice>, RootDeviceError> {
    let [data, tree] = wanted.each_ref().map(|uuid| partition(devices, uuid));
    let (data, tree) = (data?, tree?);
    Ok(data.zip(tree).map(|(data, tree)| RootDevice::Partitions { data, tree }))
}

fn partition(devices: &Path, uuid: &str) -> Result<Option<Disk>, RootDeviceError> {
    let has_uuid = |name: &String| {
        let text = fs::read_to_string(devices.join(name).join("uevent")).unwrap_or_default();
        partition_uuid(&text) == Some(uuid)
    };
    let mut named: Vec<String> = names(devices).into_iter().filter(has_uuid).collect();
    named.sort();
    match named.as_slice() {
        [] => Ok(None),
        [name] => Ok(disks::size(devices, name).map(|bytes| Disk { name: name.clone(), bytes })),
        _ => Err(RootDeviceError::Ambiguous { uuid: uuid.to_owned(), partitions: named }),
    }
}

fn names(devices: &Path) -> Vec<String> {
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [&str; 2] = ["421c2ad6-63ac-cf91-ff1d-f21c3f5bd4b6", "3fcd5208-2a6e-0188-5fc0-3414befbb8bd"];

    fn devices(partitions: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, uuid) in partitions {
            let device = directory.path().join(name);
            fs::create_dir(&device).unwrap();
            fs::write(device.join("uevent"), format!("DEVTYPE=partition\nPARTUUID={uuid}\n")).unwrap();
            fs::write(device.join("size"), "8\n").unwrap();
        }
        directory
    }

    fn find(directory: &tempfile::TempDir) -> Result<Option<RootDevice>, RootDeviceError> {
        partitions(directory.path(), &WANTED.map(str::to_owned))
    }

    #[test]
    fn both_partitions_are_found_by_the_root_hash_on_any_disk() {
        let [root, tree] = WANTED;
        let directory =
            devices(&[("nvme0n1p3", tree), ("vda1", "46f2f941-1bcf-81f4-a2d9-c14aa2a9c0ba"), ("sda2", root)]);
        let disk = |name: &str| Disk { name: name.to_owned(), bytes: 4096 };
        assert_eq!(find(&directory), Ok(Some(RootDevice::Partitions { data: disk("sda2"), tree: disk("nvme0n1p3") })));
        for one in [root, tree] {
            assert_eq!(find(&devices(&[("vda2", one)])), Ok(None));
        }
        assert_eq!(partitions(&directory.path().join("absent"), &WANTED.map(str::to_owned)), Ok(None));
    }

    #[test]
    fn two_partitions_of_one_uuid_are_refused() {
        let [root, tree] = WANTED;
        for twin in WANTED {
            let directory = devices(&[("vda2", root), ("vda3", tree), ("vdb7", twin)]);
            let error = find(&directory).unwrap_err().to_string();
            assert!(error.contains("vdb7") && error.ends_with(&format!("have the UUID {twin}")), "{error}");
        }
    }
}
