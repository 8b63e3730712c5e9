//! Which devices get a driver: those that every guest has, and those that the measured configuration speaks of. Nothing that
//! the host adds binds to a driver by itself, neither at the start nor while the guest runs.
//!
//! Drivers that are built into the kernel bind before the first process runs; what they hold and should not is taken away from
//! them. A refused device stays on its bus, where it can be seen, without a driver; the console names it. Numbers: PCI Code and
//! ID Assignment Specification; Virtual I/O Device (VIRTIO) 1.2, sections 4.1.2 and 5.

mod drives;
mod places;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spec::watchdog::{PVPANIC_MODULE, WATCHDOG_MODULE};

use crate::console;
use crate::failure::{Failure, OrFail as _, Stage};

pub(crate) use drives::{Drive, drives};

const SYSFS: &str = "/sys";
/// The buses whose devices the host chooses.
const BUSES: [&str; 2] = ["pci", "virtio"];
/// How many refused devices are named on the console.
const MAX_NAMED: usize = 16;

const NVIDIA_VENDOR: u32 = 0x10de;
const VIRTIO_VENDOR: u32 = 0x1af4;
/// Device numbers of transitional devices; what they are stands in the subsystem's number, and Linux looks there alone.
const VIRTIO_TRANSITIONAL: std::ops::RangeInclusive<u32> = 0x1000..=0x103f;
/// What the type of a modern device is added to.
const VIRTIO_MODERN: u32 = 0x1040;
const VIRTIO_NETWORK: u32 = 1;
const VIRTIO_BLOCK: u32 = 2;
const VIRTIO_CONSOLE: u32 = 3;

/// Base class and sub-class of non-volatile memory.
const NVME: u32 = 0x01_08;

/// Intel's 6300ESB watchdog, and QEMU's pvpanic (QEMU `docs/specs/pci-ids.rst`).
const WATCHDOG: (u32, u32) = (0x8086, 0x25ab);
const PVPANIC: (u32, u32) = (0x1b36, 0x0011);

/// What stands in every q35 machine beside its bridges, and gets no driver: SATA and SMBus controllers of the ICH9.
const CHIPSET: [(u32, u32); 2] = [(0x8086, 0x2922), (0x8086, 0x2930)];

/// What a device is to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A bridge, with the kernel's driver for ports.
    Bridge,
    /// A part of every machine that needs no driver.
    Chipset,
    /// A disk or the controller of one, or the ports of the agent.
    Needed,
    /// A network card, which the configuration must speak of.
    Network,
    /// A GPU or an NVSwitch, which the configuration must speak of (`gpus` counts them).
    Gpu,
    /// What the guest says by, which the configuration must speak of.
    Sign(Sign),
    /// Nothing that any configuration can speak of.
    Foreign,
}

/// A device by which a guest says how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// That it is well.
    Watchdog,
    /// That its kernel has panicked.
    Pvpanic,
}

impl Sign {
    /// The module that drives it.
    pub(crate) fn module(self) -> &'static str {
        match self {
            Self::Watchdog => WATCHDOG_MODULE,
            Self::Pvpanic => PVPANIC_MODULE,
        }
    }

    /// What its driver calls itself (Linux `drivers/watchdog/i6300esb.c`, `drivers/misc/pvpanic/pvpanic-pci.c`).
    fn driver(self) -> &'static str {
        match self {
            Self::Watchdog => "i6300ESB timer",
            Self::Pvpanic => "pvpanic-pci",
        }
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, (vendor, device)) = match self {
            Self::Watchdog => ("watchdog", WATCHDOG),
            Self::Pvpanic => ("pvpanic device", PVPANIC),
        };
        write!(f, "{name} ({vendor:04x}:{device:04x})")
    }
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Device {
    address: String,
    vendor: u32,
    device: u32,
    class: u32,
    /// The virtio device type that a driver takes it for; 0 where it is none.
    virtio: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:04x}:{:04x} class {:06x}", self.address, self.vendor, self.device, self.class)
    }
}

impl Device {
    /// Whether Linux's driver for non-volatile memory takes it: that goes by the class alone, whoever made it.
    fn is_nvme(&self) -> bool {
        self.class >> 8 == NVME
    }

    /// What its driver may be called where it is a part of the machine: bridges and the chipset say themselves that they are, by numbers and
    /// classes that the host makes up. `None` where others decide.
    fn may_have(&self) -> Option<&'static [&'static str]> {
        match self.part() {
            Part::Bridge => Some(&["pcieport"]),
            Part::Chipset => Some(&[]),
            _ => None,
        }
    }

    fn part(&self) -> Part {
        if CHIPSET.contains(&(self.vendor, self.device)) {
            return Part::Chipset;
        }
        match (self.vendor, self.device) {
            WATCHDOG => return Part::Sign(Sign::Watchdog),
            PVPANIC => return Part::Sign(Sign::Pvpanic),
            _ => {}
        }
        if self.vendor == VIRTIO_VENDOR {
            return match self.virtio {
                VIRTIO_BLOCK | VIRTIO_CONSOLE => Part::Needed,
                VIRTIO_NETWORK => Part::Network,
                _ => Part::Foreign,
            };
        }
        match self.class >> 8 {
            // Host, ISA and PCI-to-PCI bridges.
            0x06_00 | 0x06_01 | 0x06_04 => Part::Bridge,
            // A disk of the image may be one (`modules::is_wanted`).
            NVME => Part::Needed,
            // VGA and 3D controllers; bridges of the subclass "other", which NVSwitches are.
            0x03_00 | 0x03_02 | 0x06_80 if self.vendor == NVIDIA_VENDOR => Part::Gpu,
            _ => Part::Foreign,
        }
    }
}

/// Stops that devices bind by themselves, and refuses those that no guest has. Comes before the first module is loaded.
pub(crate) fn close() -> Result<(), Failure> {
    let bus = Buses(Path::new(SYSFS));
    let refused = bus.close().or_fail(Stage::Devices)?;
    name(&refused);
    Ok(())
}

/// Lets drivers that were loaded since have the devices that every guest has.
pub(crate) fn bind() -> Result<(), Failure> {
    Buses(Path::new(SYSFS)).bind(|part| part == Part::Needed).or_fail(Stage::Devices)
}

/// Lets the network's driver have its card.
pub(crate) fn bind_network() -> Result<(), Failure> {
    Buses(Path::new(SYSFS)).bind(|part| part == Part::Network).or_fail(Stage::Devices)
}

/// Lets the driver of a device by which the guest says how it is have the first one, which must be there.
pub(crate) fn bind_sign(sign: Sign) -> Result<(), Failure> {
    match Buses(Path::new(SYSFS)).bind_first(sign).or_fail(Stage::Devices)? {
        Bound::Driven => Ok(()),
        Bound::NoDriver => {
            let reason =
                format_args!("no driver takes the {sign} of the configuration: the image has no {}", sign.module());
            Err(Failure::new(Stage::Devices, reason))
        }
        Bound::NoDevice => {
            Err(Failure::new(Stage::Devices, format_args!("the configuration names a {sign}: there is none")))
        }
    }
}

/// Runs `load` while PCI devices bind by themselves: NVIDIA's driver wants its GPUs the moment it comes, and is gone where it finds none.
/// What else has no driver by then gets none of a module that drives GPUs.
pub(crate) fn while_probing(load: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    Buses(Path::new(SYSFS)).while_probing(load)
}

/// What the configuration speaks of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    /// A network.
    pub(crate) network: bool,
    /// GPUs, which are counted elsewhere.
    pub(crate) gpus: bool,
    /// Devices by which it says how it is.
    pub(crate) signs: Vec<Sign>,
    /// The kernel names of the block devices that the root file system is on: non-volatile memory is for them, and for `drives`.
    pub(crate) root: Vec<String>,
    /// The drives that volumes are on.
    pub(crate) drives: Vec<Drive>,
}

/// Refuses what the configuration does not speak of: network cards behind the first or, without a network, all, and likewise watchdogs
/// and pvpanic devices; GPUs; the
/// disks of these kernel names; and non-volatile memory that neither the root file system nor a volume is on.
pub(crate) fn settle(declared: &Declared, disks: &[String]) -> Result<(), Failure> {
    let refused = Buses(Path::new(SYSFS)).settle(declared, disks).or_fail(Stage::Devices)?;
    name(&refused);
    Ok(())
}

fn name(refused: &[Device]) {
    refused.iter().take(MAX_NAMED).for_each(console::refused);
    if let Some(more) = refused.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        console::refused(&format_args!("and {more} more"));
    }
}

/// What goes wrong at a file of sysfs.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", .path.display())]
pub(crate) struct SysfsError {
    path: PathBuf,
    error: io::Error,
}

/// What came of offering a device to drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// A driver has it.
    Driven,
    /// It is there, and none has it.
    NoDriver,
    /// It is not there.
    NoDevice,
}

/// The buses below a sysfs.
struct Buses<'a>(&'a Path);

impl Buses<'_> {
    /// Says whether devices of a bus bind by themselves; a bus that is not there has none.
    fn autoprobe(&self, bus: &str, on: bool) -> Result<(), SysfsError> {
        let path = self.0.join("bus").join(bus).join("drivers_autoprobe");
        match fs::write(&path, if on { "1" } else { "0" }) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|error| SysfsError { path, error }),
        }
    }

    fn while_probing(&self, load: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        self.autoprobe("pci", true).or_fail(Stage::Devices)?;
        let loaded = load();
        // Closed again whatever came of it.
        self.autoprobe("pci", false).or_fail(Stage::Devices)?;
        loaded
    }

    fn close(&self) -> Result<Vec<Device>, SysfsError> {
        BUSES.iter().try_for_each(|bus| self.autoprobe(bus, false))?;
        let mut refused = Vec::new();
        for device in self.devices()? {
            let is_refused = match device.may_have() {
                None => device.part() == Part::Foreign,
                Some(drivers) => self.driver(&device)?.is_some_and(|driver| !drivers.contains(&driver.as_str())),
            };
            refused.extend(is_refused.then_some(device));
        }
        refused.iter().try_for_each(|device| self.unbind(device))?;
        Ok(refused)
    }

    fn settle(&self, declared: &Declared, disks: &[String]) -> Result<Vec<Device>, SysfsError> {
        let devices = self.devices()?;
        let cards = devices.iter().filter(|device| device.part() == Part::Network).skip(usize::from(declared.network));
        let signs = [Sign::Watchdog, Sign::Pvpanic].into_iter().flat_map(|sign| {
            let first = usize::from(declared.signs.contains(&sign));
            devices.iter().filter(move |device| device.part() == Part::Sign(sign)).skip(first)
        });
        let gpus = devices.iter().filter(|device| device.part() == Part::Gpu && !declared.gpus);
        let (root, disks) = (self.below(&declared.root, &devices)?, self.below(disks, &devices)?);
        let is_declared = |device: &Device| declared.drives.iter().any(|drive| drive.is(device));
        let memory = devices.iter().filter(|d| d.is_nvme() && !root.contains(d) && !is_declared(d));
        let disks = devices.iter().filter(|device| disks.contains(device));
        let mut refused: Vec<Device> = cards.chain(signs).chain(gpus).chain(memory).chain(disks).cloned().collect();
        // A device may be two of these, by its numbers and by its class.
        refused.sort_by(|a, b| a.address.cmp(&b.address));
        refused.dedup();
        refused.iter().try_for_each(|device| self.unbind(device))?;
        Ok(refused)
    }

    /// All functions, by address.
    fn devices(&self) -> Result<Vec<Device>, SysfsError> {
        let directory = self.0.join("bus/pci/devices");
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| SysfsError { path: directory, error })?,
        };
        let mut devices: Vec<Device> =
            entries.flatten().map(|entry| read(&entry.path())).collect::<Result<_, SysfsError>>()?;
        devices.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(devices)
    }

    /// Takes the device away from its driver, if it has one.
    fn unbind(&self, device: &Device) -> Result<(), SysfsError> {
        let path = self.0.join("bus/pci/devices").join(&device.address).join("driver/unbind");
        match fs::write(&path, &device.address) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|error| SysfsError { path, error }),
        }
    }

    /// Offers the devices of some parts, and what is on the virtio bus behind them, to the drivers that are there.
    fn bind(&self, wanted: impl Fn(Part) -> bool) -> Result<(), SysfsError> {
        for device in self.devices()?.iter().filter(|device| wanted(device.part())) {
            self.probe("pci", &device.address)?;
            let directory = self.0.join("bus/pci/devices").join(&device.address);
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if let Some(name) = entry.file_name().to_str().filter(|name| is_virtio(name)) {
                    self.probe("virtio", name)?;
                }
            }
        }
        Ok(())
    }

    /// Offers the first device of its kind to the drivers that are there, and takes it from one that is not its own: a host can give a
    /// device of these numbers another class, by which others are found.
    fn bind_first(&self, sign: Sign) -> Result<Bound, SysfsError> {
        let devices = self.devices()?;
        let Some(device) = devices.iter().find(|device| device.part() == Part::Sign(sign)) else {
            return Ok(Bound::NoDevice);
        };
        self.probe("pci", &device.address)?;
        match self.driver(device)? {
            Some(driver) if driver == sign.driver() => Ok(Bound::Driven),
            Some(_) => self.unbind(device).map(|()| Bound::NoDriver),
            None => Ok(Bound::NoDriver),
        }
    }

    fn probe(&self, bus: &str, name: &str) -> Result<(), SysfsError> {
        let path = self.0.join("bus").join(bus).join("drivers_probe");
        match fs::write(&path, name) {
            // It has a driver, or none fits.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(()),
            result => result.map_err(|error| SysfsError { path, error }),
        }
    }

    /// The driver that a device has.
    fn driver(&self, device: &Device) -> Result<Option<String>, SysfsError> {
        let path = self.0.join("bus/pci/devices").join(&device.address).join("driver");
        match fs::read_link(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(link) => Ok(link.file_name().map(|name| name.to_string_lossy().into_owned())),
            Err(error) => Err(SysfsError { path, error }),
        }
    }
}

fn is_virtio(name: &str) -> bool {
    name.strip_prefix("virtio").is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}

fn read(directory: &Path) -> Result<Device, SysfsError> {
    let number = |name: &str| {
        let path = directory.join(name);
        let text = fs::read_to_string(&path);
        let number = text.and_then(|text| {
            let digits = text.trim_end().strip_prefix("0x").unwrap_or_default();
            u32::from_str_radix(digits, 16).map_err(io::Error::other)
        });
        number.map_err(|error| SysfsError { path, error })
    };
    let address = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (vendor, device, class) = (number("vendor")?, number("device")?, number("class")?);
    let virtio = match device {
        _ if vendor != VIRTIO_VENDOR => 0,
        transitional if VIRTIO_TRANSITIONAL.contains(&transitional) => number("subsystem_device")?,
        modern => modern.saturating_sub(VIRTIO_MODERN),
    };
    Ok(Device { address, vendor, device, class, virtio })
}

#[cfg(test)]
mod tests;
