//! The NVMe drives that volumes are on: as many controllers as the configuration names, told apart by their PCI addresses in ascending
//! order, and the one namespace of each.
//!
//! Which drive the host puts where is its own choice, and so is what is on it: whoever uses one trusts neither.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::{Buses, Device, SYSFS, SysfsError};
use crate::disks::{self, Disk};
use crate::failure::{Failure, OrFail as _, Stage};

/// What the kernel's driver goes by: base class, sub-class and the interface of NVM Express.
const NVM_EXPRESS: u32 = 0x01_08_02;
/// What that driver calls itself (Linux `drivers/nvme/host/pci.c`).
const DRIVER: &str = "nvme";

/// A controller that a volume is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drive {
    address: String,
}

/// A drive that cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    /// sysfs cannot be read.
    #[error(transparent)]
    Sysfs(#[from] SysfsError),
    /// There are more or fewer than volumes.
    #[error(
        "there are {} NVMe controllers beside those of the root file system{}, the configuration has volumes on {expected}",
        .found.len(), listed(.found)
    )]
    Count {
        /// The addresses of the controllers.
        found: Vec<String>,
        /// How many volumes are on one.
        expected: usize,
    },
    /// The kernel's driver does not have it.
    #[error("the NVMe controller {address} has {}, expected \"{DRIVER}\"", driver(.found.as_deref()))]
    Driver {
        /// Its address.
        address: String,
        /// The driver that has it.
        found: Option<String>,
    },
    /// No namespace appeared.
    #[error("the NVMe controller {address} shows no namespace after {seconds} s")]
    Empty {
        /// Its address.
        address: String,
        /// How long the guest waited.
        seconds: u64,
    },
    /// It is a way to another controller's disk, too, so that two volumes could be on one.
    #[error(
        "the namespace {name} of the NVMe controller {address} is another controller's too, expected one of its own"
    )]
    Shared {
        /// Its address.
        address: String,
        /// The kernel name of the namespace.
        name: String,
    },
    /// There are several, and nothing says which is meant.
    #[error("the NVMe controller {address} has the namespaces {}, expected one", .found.join(", "))]
    Several {
        /// Its address.
        address: String,
        /// Their kernel names.
        found: Vec<String>,
    },
}

fn listed(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(" ({})", found.join(", ")) }
}

fn driver(found: Option<&str>) -> String {
    found.map_or("no driver".to_owned(), |name| format!("the driver \"{name}\""))
}

/// The drives of `count` volumes: all NVMe controllers that the root file system is not on (`root`: the kernel names of its block
/// devices), of which there must be as many, in ascending order of their addresses. Where `count` is 0, nothing is looked at.
pub(crate) fn drives(count: usize, root: &[String]) -> Result<Vec<Drive>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    Buses(Path::new(SYSFS)).drives(count, root).or_fail(Stage::Devices)
}

impl Drive {
    pub(super) fn is(&self, device: &Device) -> bool {
        self.address == device.address
    }

    /// Its namespace, waiting for it to appear.
    pub(crate) fn wait_for_namespace(&self) -> Result<Disk, DriveError> {
        let deadline = Instant::now() + disks::PATIENCE;
        loop {
            if let Some(disk) = Buses(Path::new(SYSFS)).namespace(self)? {
                return Ok(disk);
            }
            if Instant::now() >= deadline {
                return Err(DriveError::Empty { address: self.address.clone(), seconds: disks::PATIENCE.as_secs() });
            }
            std::thread::sleep(disks::INTERVAL);
        }
    }
}

impl Buses<'_> {
    pub(super) fn drives(&self, expected: usize, root: &[String]) -> Result<Vec<Drive>, DriveError> {
        let devices = self.devices()?;
        let root = self.below(root, &devices)?;
        let drives: Vec<&Device> =
            devices.iter().filter(|device| device.class == NVM_EXPRESS && !root.contains(device)).collect();
        if drives.len() != expected {
            let found = drives.into_iter().map(|device| device.address.clone()).collect();
            return Err(DriveError::Count { found, expected });
        }
        for device in &drives {
            let found = self.driver(device)?;
            if found.as_deref() != Some(DRIVER) {
                return Err(DriveError::Driver { address: device.address.clone(), found });
            }
        }
        Ok(drives.into_iter().map(|device| Drive { address: device.address.clone() }).collect())
    }

    /// The drive's namespace; `None` where none is there yet, or its size is not known yet.
    fn namespace(&self, drive: &Drive) -> Result<Option<Disk>, DriveError> {
        let devices = self.devices()?;
        let block = self.0.join("class/block");
        let entries = fs::read_dir(&block).into_iter().flatten().flatten();
        let mut found = Vec::new();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            // With several ways to a disk each way is a device too, which is hidden. One that is gone by now is none.
            let is_whole = !block.join(&name).join("partition").exists();
            let is_hidden = fs::read_to_string(block.join(&name).join("hidden")).is_ok_and(|text| text.trim() == "1");
            if !name.starts_with(DRIVER) || !is_whole || is_hidden {
                continue;
            }
            let on = match self.below(std::slice::from_ref(&name), &devices) {
                Err(gone) if gone.error.kind() == std::io::ErrorKind::NotFound => continue,
                on => on?,
            };
            if !on.iter().any(|device| drive.is(device)) {
                continue;
            }
            if !on.iter().all(|device| drive.is(device)) {
                return Err(DriveError::Shared { address: drive.address.clone(), name });
            }
            found.push(name);
        }
        found.sort();
        match found.as_slice() {
            [] => Ok(None),
            [name] => {
                Ok(disks::size(&block, name).filter(|bytes| *bytes > 0).map(|bytes| Disk { name: name.clone(), bytes }))
            }
            _ => Err(DriveError::Several { address: drive.address.clone(), found }),
        }
    }
}

#[cfg(test)]
mod tests;
