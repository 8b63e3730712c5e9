//! Which PCI function a block device is on, by where sysfs has it: the one way from a kernel's name for a disk to what is admitted.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Buses, Device, SysfsError};

/// Where sysfs has disks with several controllers.
const NVME_SUBSYSTEMS: &str = "virtual/nvme-subsystem";

impl Buses<'_> {
    /// The directories that a block device is at. Where the kernel gathers all ways to a disk (`CONFIG_NVME_MULTIPATH`), it is
    /// below none of its controllers but below a virtual subsystem, which links to them.
    fn places(&self, name: &str) -> Result<Vec<PathBuf>, SysfsError> {
        let canonical = |path: PathBuf| fs::canonicalize(&path).map_err(|error| SysfsError { path, error });
        let place = canonical(self.0.join("class/block").join(name))?;
        let is_subsystem = |path: &&Path| path.parent().is_some_and(|above| above.ends_with(NVME_SUBSYSTEMS));
        let Some(subsystem) = place.ancestors().find(is_subsystem) else { return Ok(vec![place]) };
        let entries = fs::read_dir(subsystem).map_err(|error| SysfsError { path: subsystem.to_owned(), error })?;
        entries.flatten().map(|entry| canonical(entry.path())).collect()
    }

    /// The functions that these block devices are on: of each place, the nearest above it.
    pub(super) fn below<'d>(&self, names: &[String], devices: &'d [Device]) -> Result<Vec<&'d Device>, SysfsError> {
        let mut found = Vec::new();
        for place in names.iter().map(|name| self.places(name)).collect::<Result<Vec<_>, _>>()?.concat() {
            let above = place.components().rev().filter_map(|part| part.as_os_str().to_str());
            let mut above = above.filter_map(|name| devices.iter().find(|device| device.address == name));
            found.extend(above.next());
        }
        Ok(found)
    }
}
