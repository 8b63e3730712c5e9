//! Real devices: found, mapped and reset through sysfs.
//!
//! The root of sysfs is a parameter, so that what is found can be tested on a tree of files. Resets are the kernel's own
//! (VFIO's, or `reset_method` and `reset`): it saves and restores the configuration space, and refuses a bus reset that
//! would hit others.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use spec::{Diagnostic, Outcome, PciAddress};

use super::access::{AccessError, Function, ResetKind};
use super::hot_reset::{self, HotResetError};
use super::product::{GPU_CLASSES, NVIDIA, NVSWITCH_CLASS, Product, product};
use super::resizable::BarSize;
use bar::Bar;

mod bar;

/// Where sysfs is mounted.
pub const SYSFS: &str = "/sys";
/// Where procfs is mounted.
pub const PROCFS: &str = "/proc";
/// Drivers that have a device in use. `vfio-pci` alone does not.
pub(crate) const DRIVERS_IN_USE: [&str; 3] = ["nvidia", "nouveau", "nova_core"];

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
        product: product(device_id, number("subsystem_device").and_then(|number| u16::try_from(number).ok())),
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
pub(crate) fn holder(directory: &Path, procfs: &Path, driver: Option<&str>, group: Option<u32>) -> Option<String> {
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
    let process = process_with_open(procfs, &|path| files.iter().any(|file| file == path))?;
    let name = attribute(&procfs.join(process.to_string()), "comm").unwrap_or_default();
    Some(format!("process {process} ({name})"))
}

/// A process that has a file open whose path `wanted` accepts. Only root sees those of others.
pub(crate) fn process_with_open(procfs: &Path, wanted: &dyn Fn(&Path) -> bool) -> Option<u32> {
    let processes = fs::read_dir(procfs).ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|process: &u32| {
        let descriptors = fs::read_dir(procfs.join(process.to_string()).join("fd")).into_iter().flatten().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| wanted(&target))
    })
}

/// The right to change a device: held by one process of Bullion at a time, gone with it.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "closing the descriptor lets go")] Flock<fs::File>);

impl Claim {
    /// Takes the device. The lock is on its directory in sysfs, so nothing is left behind.
    pub fn take(sysfs: &Path, address: PciAddress) -> Result<Self, ClaimError> {
        let path = sysfs.join("bus/pci/devices").join(address.to_string());
        let failed = |source: io::Error| ClaimError::Failed { address, source };
        let directory = fs::File::open(&path).map_err(failed)?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Err(ClaimError::Taken { address }),
            Err((_, error)) => Err(failed(error.into())),
        }
    }
}

/// Why a device could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process of Bullion is at work on it.
    #[error("{address} is in use or being changed by another process of bullion")]
    Taken {
        /// The device.
        address: PciAddress,
    },
    /// The system refused.
    #[error("cannot lock {address} in sysfs")]
    Failed {
        /// The device.
        address: PciAddress,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Diagnostic for ClaimError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }

    fn hint(&self) -> Option<String> {
        matches!(self, Self::Taken { .. })
            .then(|| "`bullion ps` lists the VMs; else wait for it, or see who it is with `fuser` on the device's directory in sysfs".to_owned())
    }
}

/// A device opened for reading and writing its registers.
#[derive(Debug)]
pub struct SysfsFunction {
    address: PciAddress,
    sysfs: PathBuf,
    directory: PathBuf,
    bar: Option<Bar>,
    started: Instant,
    /// Functions that a bus reset may reach besides this one.
    company: Vec<PciAddress>,
}

impl SysfsFunction {
    /// A device by its address. Its registers are mapped when they are first used, after it was woken.
    pub fn open(sysfs: &Path, address: PciAddress) -> Self {
        let directory = sysfs.join("bus/pci/devices").join(address.to_string());
        Self { address, sysfs: sysfs.to_owned(), directory, bar: None, started: Instant::now(), company: Vec::new() }
    }

    /// Lets a bus reset of this device reach these functions too: whoever resets it owns them as well.
    pub fn with_company(self, company: &[PciAddress]) -> Self {
        let others = company.iter().filter(|other| **other != self.address);
        Self { company: others.copied().collect(), ..self }
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

    /// Enables the device's memory, without which its registers read all ones. Functions without a driver are enabled by
    /// the kernel; it refuses that for those with one, and `vfio-pci` leaves its devices disabled while nobody uses them.
    fn enable_memory(&mut self) -> Result<(), AccessError> {
        const COMMAND: u16 = 0x04;
        const MEMORY: u32 = 1 << 1;
        let is_enabled = |function: &mut Self| Ok::<_, AccessError>(function.config_read32(COMMAND)? & MEMORY != 0);
        if is_enabled(self)? {
            return Ok(());
        }
        let by_kernel = fs::write(self.directory.join("enable"), "1");
        if by_kernel.is_ok() && is_enabled(self)? {
            return Ok(());
        }
        let command = (self.config_read32(COMMAND)? | MEMORY) & 0xffff;
        let path = self.directory.join("config");
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(&command.to_le_bytes()[..2], u64::from(COMMAND)))
            .map_err(|error| self.error(format!("cannot enable its memory by {}", path.display()), error))
    }

    /// A secondary-bus reset that reaches this device and its company, and nobody else: by VFIO, which itself says what is
    /// reached; else by the kernel's own method, which refuses where the device is not alone; else by the bridge above.
    fn reset_bus(&self) -> Result<(), AccessError> {
        let foreign = |peers: &[PciAddress]| {
            let names: Vec<_> = peers.iter().map(PciAddress::to_string).collect();
            let reason = format!("it would also reset {}", names.join(", "));
            self.error("a secondary-bus reset is refused", io::Error::other(reason))
        };
        let unavailable = match hot_reset::reset(&self.sysfs, self.address, &self.company) {
            Ok(()) => return Ok(()),
            Err(HotResetError::Foreign(peers)) => return Err(foreign(&peers)),
            Err(HotResetError::Failed(error)) => return Err(self.error("VFIO refuses a secondary-bus reset", error)),
            Err(HotResetError::Unavailable(error)) => error,
        };
        let peers = self.peers_on_bus();
        if peers.is_empty() {
            return self.reset_by("bus");
        }
        let strangers: Vec<_> = peers.into_iter().filter(|peer| !self.company.contains(peer)).collect();
        if !strangers.is_empty() {
            return Err(foreign(&strangers));
        }
        let own = fs::canonicalize(&self.directory)
            .map_err(|error| self.error(format!("cannot follow {}", self.directory.display()), error))?;
        self.write(&own.with_file_name("reset_subordinate"), "1").map_err(|error| {
            let action = format!("{}, and it cannot be reset by VFIO either ({unavailable})", error.action);
            AccessError { action, ..error }
        })
    }

    /// All other functions on the bus.
    fn peers_on_bus(&self) -> Vec<PciAddress> {
        let entries = fs::read_dir(self.sysfs.join("bus/pci/devices")).into_iter().flatten().flatten();
        let addresses = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<PciAddress>().ok());
        let mut peers: Vec<_> =
            addresses.filter(|other| *other != self.address && other.bus() == self.address.bus()).collect();
        peers.sort();
        peers
    }

    /// Resets by one of the kernel's methods, and leaves the choice of methods as it was.
    fn reset_by(&self, method: &str) -> Result<(), AccessError> {
        let path = self.directory.join("reset_method");
        let before =
            fs::read_to_string(&path).map_err(|error| self.error(format!("cannot read {}", path.display()), error))?;
        self.write(&path, method)?;
        let done = self.write(&self.directory.join("reset"), "1");
        // The kernel lists the methods that it saw when it found the function; with others on the bus that it found later, it takes
        // its own list no more, and makes a new one.
        if self.write(&path, before.trim()).is_err() {
            self.write(&path, "default")?;
        }
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
        self.enable_memory()
    }

    fn reset(&mut self, kind: ResetKind) -> Result<(), AccessError> {
        match kind {
            ResetKind::Function => self.reset_by("flr"),
            ResetKind::Bus => {
                // A driver that takes the device for itself, as VFIO does here, takes it out of all mappings: a register
                // that is read by an old one would end this process (Linux `revoke_iomem`).
                self.bar = None;
                self.reset_bus()
            }
            ResetKind::Reenumerate => {
                self.bar = None;
                // A device that is off the bus cannot be reset any more; finding it again is what is left.
                let _ = self.reset_bus();
                self.write(&self.directory.join("remove"), "1")?;
                self.write(&self.sysfs.join("bus/pci/rescan"), "1")
            }
        }
    }

    fn resize_bar(&mut self, bar: u8, size: BarSize) -> Result<(), AccessError> {
        // The kernel takes the files of all BARs away, and may give each another place.
        self.bar = None;
        let address = self.address.to_string();
        let driver = fs::read_link(self.directory.join("driver")).ok();
        let driver =
            driver.as_deref().and_then(Path::file_name).map(|name| self.sysfs.join("bus/pci/drivers").join(name));
        if let Some(driver) = &driver {
            self.write(&driver.join("unbind"), &address)?;
        }
        let resized = self.write(&self.directory.join(format!("resource{bar}_resize")), &size.0.to_string());
        // Whoever had it has it again, whatever came of it.
        if let Some(driver) = &driver {
            self.write(&driver.join("bind"), &address)?;
        }
        resized
    }

    fn bus_peers(&self) -> Vec<PciAddress> {
        self.peers_on_bus().into_iter().filter(|peer| !self.company.contains(peer)).collect()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

#[cfg(test)]
mod tests;
