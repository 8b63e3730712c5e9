//! Real devices: found, mapped and reset through sysfs.
//!
//! The root of sysfs is a parameter, so that what is found can be tested on a tree of files. Resets are the kernel's own
//! (`reset_method`, `reset`): it saves and restores the configuration space, and refuses a bus reset that would hit
//! others.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spec::PciAddress;

use super::access::{AccessError, Function, ResetKind};
use super::product::{GPU_CLASSES, NVIDIA, NVSWITCH_CLASS, Product, product};
use bar::Bar;

mod bar;

/// Where sysfs is mounted.
pub const SYSFS: &str = "/sys";
/// Drivers that have a device in use. `vfio-pci` alone does not.
const DRIVERS_IN_USE: [&str; 3] = ["nvidia", "nouveau", "nova_core"];

/// A GPU or NVSwitch, as the kernel describes it without touching it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub address: PciAddress,
    /// PCI device number.
    pub device_id: u16,
    /// What it is, where the number is known.
    pub product: Option<Product>,
    /// The driver that is bound to it.
    pub driver: Option<String>,
    /// Its NUMA node, where it has one.
    pub numa_node: Option<u32>,
    /// Its IOMMU group, where there is an IOMMU.
    pub iommu_group: Option<u32>,
    /// The kernel's power state: `D0`, `D3hot`, `D3cold`.
    pub power_state: Option<String>,
    /// Who has it: a driver of the host, or a process with its VFIO descriptor open.
    pub held_by: Option<String>,
}

/// The NVIDIA GPUs and NVSwitches, by address.
pub fn find(sysfs: &Path, procfs: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(sysfs.join("bus/pci/devices"))? {
        let entry = entry?;
        let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(device) = describe(&entry.path(), procfs, address) {
            found.push(device);
        }
    }
    found.sort_by_key(|device| device.address);
    Ok(found)
}

fn describe(directory: &Path, procfs: &Path, address: PciAddress) -> Option<Found> {
    let number = |name: &str| u32::from_str_radix(attribute(directory, name)?.trim_start_matches("0x"), 16).ok();
    let class = u16::try_from(number("class")? >> 8).ok()?;
    if number("vendor")? != u32::from(NVIDIA) || !(GPU_CLASSES.contains(&class) || class == NVSWITCH_CLASS) {
        return None;
    }
    let device_id = u16::try_from(number("device")?).ok()?;
    let link = |name: &str| Some(fs::read_link(directory.join(name)).ok()?.file_name()?.to_str()?.to_owned());
    let driver = link("driver");
    let iommu_group = link("iommu_group").and_then(|group| group.parse().ok());
    Some(Found {
        address,
        device_id,
        product: product(device_id),
        held_by: holder(directory, procfs, driver.as_deref(), iommu_group),
        driver,
        numa_node: attribute(directory, "numa_node").and_then(|node| node.parse().ok()),
        iommu_group,
        power_state: attribute(directory, "power_state"),
    })
}

fn attribute(directory: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(directory.join(name)).ok()?.trim().to_owned())
}

/// Who has the device: an NVIDIA driver, or whoever has its VFIO device or group open.
fn holder(directory: &Path, procfs: &Path, driver: Option<&str>, group: Option<u32>) -> Option<String> {
    let driver = driver?;
    if DRIVERS_IN_USE.contains(&driver) {
        return Some(format!("the driver {driver}"));
    }
    if driver != "vfio-pci" {
        return None;
    }
    let mut files: Vec<PathBuf> = group.iter().map(|group| PathBuf::from(format!("/dev/vfio/{group}"))).collect();
    for entry in fs::read_dir(directory.join("vfio-dev")).into_iter().flatten().flatten() {
        files.push(Path::new("/dev/vfio/devices").join(entry.file_name()));
    }
    let process = process_with_open(procfs, &files)?;
    let name = attribute(&procfs.join(process.to_string()), "comm").unwrap_or_default();
    Some(format!("process {process} ({name})"))
}

/// A process that has one of the files open. Only root sees those of others.
fn process_with_open(procfs: &Path, files: &[PathBuf]) -> Option<u32> {
    let processes = fs::read_dir(procfs).ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|process: &u32| {
        let descriptors = fs::read_dir(procfs.join(process.to_string()).join("fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| files.contains(&target))
    })
}

/// A device opened for reading and writing its registers.
#[derive(Debug)]
pub struct SysfsFunction {
    address: PciAddress,
    sysfs: PathBuf,
    directory: PathBuf,
    bar: Option<Bar>,
    started: Instant,
}

impl SysfsFunction {
    /// A device by its address. Its registers are mapped when they are first used, after it was woken.
    pub fn open(sysfs: &Path, address: PciAddress) -> Self {
        let directory = sysfs.join("bus/pci/devices").join(address.to_string());
        Self { address, sysfs: sysfs.to_owned(), directory, bar: None, started: Instant::now() }
    }

    fn error(&self, action: impl Into<String>, source: io::Error) -> AccessError {
        AccessError { address: self.address, action: action.into(), source }
    }

    fn bar(&mut self) -> Result<&Bar, AccessError> {
        if self.bar.is_none() {
            let path = self.directory.join("resource0");
            let bar = Bar::map(&path).map_err(|error| self.error(format!("cannot map {}", path.display()), error))?;
            self.bar = Some(bar);
        }
        self.bar.as_ref().ok_or_else(|| self.error("BAR 0 is not mapped", io::ErrorKind::NotFound.into()))
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), AccessError> {
        fs::write(path, text)
            .map_err(|error| self.error(format!("cannot write \"{text}\" to {}", path.display()), error))
    }

    /// Resets by one of the kernel's methods, and leaves the choice of methods as it was.
    fn reset_by(&self, method: &str) -> Result<(), AccessError> {
        let path = self.directory.join("reset_method");
        let before =
            fs::read_to_string(&path).map_err(|error| self.error(format!("cannot read {}", path.display()), error))?;
        self.write(&path, method)?;
        let done = self.write(&self.directory.join("reset"), "1");
        self.write(&path, before.trim())?;
        done
    }
}

impl Function for SysfsFunction {
    fn address(&self) -> PciAddress {
        self.address
    }

    fn read32(&mut self, offset: u32) -> Result<u32, AccessError> {
        let bar = self.bar()?;
        bar.read32(offset).map_err(|error| self.error(format!("cannot read register {offset:#x}"), error))
    }

    fn write32(&mut self, offset: u32, value: u32) -> Result<(), AccessError> {
        let bar = self.bar()?;
        bar.write32(offset, value).map_err(|error| self.error(format!("cannot write register {offset:#x}"), error))
    }

    fn config_read32(&mut self, offset: u16) -> Result<u32, AccessError> {
        let path = self.directory.join("config");
        let mut bytes = [0xff; 4];
        fs::File::open(&path)
            .and_then(|file| file.read_exact_at(&mut bytes, u64::from(offset)))
            .map_err(|error| self.error(format!("cannot read {offset:#x} of {}", path.display()), error))?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn pin_power(&mut self) -> Result<(), AccessError> {
        self.write(&self.directory.join("power/control"), "on")?;
        // Registers can be mapped only where memory access is enabled, which unbound devices do not have.
        let enable = self.directory.join("enable");
        match fs::read_to_string(&enable) {
            Ok(text) if text.trim() == "0" => self.write(&enable, "1"),
            _ => Ok(()),
        }
    }

    fn reset(&mut self, kind: ResetKind) -> Result<(), AccessError> {
        match kind {
            ResetKind::Function => self.reset_by("flr"),
            ResetKind::Bus => self.reset_by("bus"),
            ResetKind::Reenumerate => {
                self.bar = None;
                // A device that is off the bus cannot be reset any more; finding it again is what is left.
                let _ = self.reset_by("bus");
                self.write(&self.directory.join("remove"), "1")?;
                self.write(&self.sysfs.join("bus/pci/rescan"), "1")
            }
        }
    }

    fn bus_peers(&self) -> Vec<PciAddress> {
        let entries = fs::read_dir(self.sysfs.join("bus/pci/devices")).into_iter().flatten().flatten();
        let addresses = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<PciAddress>().ok());
        let mut peers: Vec<_> =
            addresses.filter(|other| *other != self.address && other.bus() == self.address.bus()).collect();
        peers.sort();
        peers
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}
