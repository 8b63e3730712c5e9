//! One change to the host: what it was before, how it is made, and how it is undone.
//!
//! A change is written down before it is made, and may have been stopped anywhere. So undoing looks at what is there, accepts
//! every state that making or undoing it passes through, and leaves alone what somebody else has made of it since.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use spec::{PciAddress, Sha256Digest};

use super::device::Device;
use super::files::PersistentFile;
use super::machine::{Machine, Rights};
use crate::gpu::sysfs::DRIVERS_IN_USE;

/// The driver that functions are passed by.
pub(super) const VFIO: &str = "vfio-pci";

/// A change, with what is needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Change {
    /// Modules were loaded.
    Module {
        /// The module that was asked for.
        name: String,
        /// All that were not there before, in the order they are loaded in: it is the last.
        added: Vec<String>,
        /// Parameters, `name=value`.
        parameters: Vec<String>,
    },
    /// A PCI function was given to vfio-pci.
    Bind {
        /// The function.
        address: PciAddress,
        /// The driver it had.
        driver: Option<String>,
        /// The driver it was told to have.
        driver_override: Option<String>,
    },
    /// Huge pages were set aside.
    HugePages {
        /// Where.
        pool: Pool,
        /// How many there were.
        before: u64,
        /// How many there are.
        after: u64,
    },
    /// A group may open a device.
    Grant {
        /// The device.
        device: Device,
        /// Who might open it before.
        before: Rights,
        /// Who may now.
        after: Rights,
    },
    /// A file was written that lasts.
    File {
        /// Which.
        file: PersistentFile,
        /// What it held; none where it was not there.
        before: Option<String>,
        /// The digest of what it holds now.
        after: Sha256Digest,
    },
}

/// The kernel's stock of huge pages of one size, on one NUMA node or on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// The node; none where the kernel chooses.
    pub node: Option<u32>,
    /// The size of a page.
    pub size_kib: u64,
}

/// What came of undoing a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undone {
    /// It is as it was before, or what was changed is no longer there.
    Done,
    /// Somebody else has changed it since: it was left so.
    Foreign(String),
    /// It is in use: it was left, and can be undone later.
    Busy(String),
    /// The system refused. It can be tried again.
    Failed(String),
}

impl Pool {
    /// The file with its number of pages.
    pub(super) fn file(self) -> String {
        let pool = format!("hugepages/hugepages-{}kB/nr_hugepages", self.size_kib);
        match self.node {
            Some(node) => format!("sys/devices/system/node/node{node}/{pool}"),
            None => format!("sys/kernel/mm/{pool}"),
        }
    }
}

/// The directory of a function in sysfs.
pub(super) fn directory(address: PciAddress) -> String {
    format!("sys/bus/pci/devices/{address}")
}

/// The driver a function was told to have; none where it was told none, which the kernel shows as `(null)`.
pub(super) fn driver_override(machine: &impl Machine, address: PciAddress) -> Option<String> {
    let told = machine.text(&format!("{}/driver_override", directory(address))).unwrap_or_default();
    Some(told).filter(|told| !told.is_empty() && told != "(null)")
}

fn driver(machine: &impl Machine, address: PciAddress) -> Option<String> {
    machine.link(&format!("{}/driver", directory(address)))
}

impl Change {
    /// Makes it.
    pub(super) fn make(&mut self, machine: &mut impl Machine) -> io::Result<()> {
        match self {
            Self::Module { name, parameters, .. } => machine.load(name, parameters),
            Self::Bind { address, driver, .. } => bind(machine, *address, driver.is_some()),
            Self::HugePages { pool, after, .. } => set_aside(machine, *pool, after),
            Self::Grant { device, after, .. } => {
                let node = device.node(machine).ok_or(io::ErrorKind::NotFound)?;
                machine.set_rights(&node, *after)
            }
            // The content is the caller's: the journal has no room for it.
            Self::File { .. } => Ok(()),
        }
    }

    /// Undoes it. `finished` says whether making it was seen to end.
    pub(super) fn undo(&self, machine: &mut impl Machine, finished: bool) -> io::Result<Undone> {
        match self {
            Self::Module { added, .. } => unload(machine, added),
            Self::Bind { address, driver, driver_override } => {
                unbind(machine, *address, driver.as_deref(), driver_override.as_deref())
            }
            Self::HugePages { pool, before, after } => give_back(machine, *pool, (*before, *after), finished),
            Self::Grant { device, before, after } => take_back(machine, device, *before, *after),
            Self::File { file, before, after } => put_back(machine, *file, before.as_deref(), *after),
        }
    }
}

fn bind(machine: &mut impl Machine, address: PciAddress, is_driven: bool) -> io::Result<()> {
    let directory = directory(address);
    machine.write(&format!("{directory}/driver_override"), VFIO)?;
    if is_driven {
        machine.write(&format!("{directory}/driver/unbind"), &address.to_string())?;
    }
    machine.write("sys/bus/pci/drivers_probe", &address.to_string())?;
    match driver(machine, address) {
        Some(driver) if driver == VFIO => Ok(()),
        found => Err(io::Error::other(format!(
            "the kernel gave it to {} instead of vfio-pci",
            found.as_deref().unwrap_or("nobody")
        ))),
    }
}

fn unbind(
    machine: &mut impl Machine,
    address: PciAddress,
    before: Option<&str>,
    told_before: Option<&str>,
) -> io::Result<Undone> {
    let directory = directory(address);
    if machine.text(&format!("{directory}/vendor")).is_err() {
        // It was taken out, and with it all that was changed.
        return Ok(Undone::Done);
    }
    let (told, now) = (driver_override(machine, address), driver(machine, address));
    let is_ours = now.as_deref() == Some(VFIO) && before != Some(VFIO);
    if is_ours && let Some(holder) = vfio_user(machine, address) {
        return Ok(Undone::Busy(format!("{holder} has it open")));
    }
    // A driver override of somebody else is an order that stands; so is a driver that is neither the old one nor ours.
    if told.as_deref().is_some_and(|told| told != VFIO && Some(told) != told_before) {
        return Ok(Undone::Foreign(format!("its driver_override is now {}", told.unwrap_or_default())));
    }
    if told.as_deref() != told_before {
        // An empty line clears it (Linux Documentation/ABI/testing/sysfs-bus-pci).
        machine.write(&format!("{directory}/driver_override"), told_before.unwrap_or("\n"))?;
    }
    if is_ours {
        machine.write(&format!("{directory}/driver/unbind"), &address.to_string())?;
    } else if let Some(driver) = now {
        return Ok(match before {
            Some(before) if before == driver => Undone::Done,
            _ => Undone::Foreign(format!("{driver} drives it now")),
        });
    }
    let Some(before) = before else { return Ok(Undone::Done) };
    machine.write("sys/bus/pci/drivers_probe", &address.to_string())?;
    if driver(machine, address).is_none() {
        machine.write(&format!("sys/bus/pci/drivers/{before}/bind"), &address.to_string())?;
    }
    Ok(match driver(machine, address) {
        Some(driver) if driver == before => Undone::Done,
        found => Undone::Foreign(format!("{} drives it now", found.as_deref().unwrap_or("nobody"))),
    })
}

/// A process that has a function open by VFIO.
pub(super) fn vfio_user(machine: &impl Machine, address: PciAddress) -> Option<String> {
    let group = machine.link(&format!("{}/iommu_group", directory(address)));
    let group = group.map(|group| format!("/dev/vfio/{group}"));
    let device = machine.names(&format!("{}/vfio-dev", directory(address))).into_iter().next();
    let device = device.map(|device| format!("/dev/vfio/devices/{device}"));
    let files: Vec<_> = [group, device].into_iter().flatten().collect();
    machine.process_with(&|path| files.iter().any(|file| Path::new(file) == path))
}

/// A process that uses the host's own driver of an accelerator, which would wait for it for ever.
pub(super) fn driver_user(machine: &impl Machine, driver: &str) -> Option<String> {
    let prefixes: &[&str] = match DRIVERS_IN_USE.contains(&driver) {
        true if driver == "nvidia" => &["/dev/nvidia"],
        true => &["/dev/dri/"],
        false => return None,
    };
    machine.process_with(&|path| prefixes.iter().any(|prefix| path.to_string_lossy().starts_with(prefix)))
}

fn unload(machine: &mut impl Machine, added: &[String]) -> io::Result<Undone> {
    for module in added.iter().rev() {
        let directory = format!("sys/module/{module}");
        let Ok(users) = machine.text(&format!("{directory}/refcnt")) else { continue };
        let holders = machine.names(&format!("{directory}/holders"));
        let bound = bound_functions(machine, module);
        if let Some(users) = users_of(&users, &holders, &bound) {
            return Ok(Undone::Busy(format!("module {module} is used by {users}")));
        }
        machine.unload(module)?;
    }
    Ok(Undone::Done)
}

fn users_of(count: &str, holders: &[String], bound: &[String]) -> Option<String> {
    // The kernel would let go of a driver's devices with the driver.
    match (holders, bound, count) {
        ([], [], "0") => None,
        ([], [], _) => Some("a process or the kernel".to_owned()),
        _ => Some([holders, bound].concat().join(", ")),
    }
}

/// The functions that the drivers of a module have.
fn bound_functions(machine: &impl Machine, module: &str) -> Vec<String> {
    let drivers = machine.names(&format!("sys/module/{module}/drivers"));
    let drivers = drivers.iter().filter_map(|driver| driver.strip_prefix("pci:"));
    let functions = drivers.flat_map(|driver| machine.names(&format!("sys/bus/pci/drivers/{driver}")));
    functions.filter(|name| name.parse::<PciAddress>().is_ok()).collect()
}

fn set_aside(machine: &mut impl Machine, pool: Pool, after: &mut u64) -> io::Result<()> {
    let wanted = *after;
    machine.write(&pool.file(), &wanted.to_string())?;
    *after = number(machine, &pool.file())?;
    match *after < wanted {
        true => Err(io::Error::other(format!("memory is too fragmented: there are {after} of {wanted} pages"))),
        false => Ok(()),
    }
}

fn give_back(
    machine: &mut impl Machine,
    pool: Pool,
    (before, after): (u64, u64),
    finished: bool,
) -> io::Result<Undone> {
    let Ok(now) = number(machine, &pool.file()) else { return Ok(Undone::Done) };
    // Where it was stopped on its way, the kernel may have found a part of them.
    let ours = now == after || !finished && (before.min(after)..=before.max(after)).contains(&now);
    if now == before {
        return Ok(Undone::Done);
    }
    if !ours {
        return Ok(Undone::Foreign(format!("there are {now} pages now")));
    }
    machine.write(&pool.file(), &before.to_string())?;
    Ok(match number(machine, &pool.file())? {
        now if now == before => Undone::Done,
        now => Undone::Busy(format!("{} pages are in use", now.saturating_sub(before))),
    })
}

fn number(machine: &impl Machine, path: &str) -> io::Result<u64> {
    machine.text(path)?.parse().map_err(io::Error::other)
}

fn take_back(machine: &mut impl Machine, device: &Device, before: Rights, after: Rights) -> io::Result<Undone> {
    let Some((node, now)) = device.node(machine).and_then(|node| Some((node.clone(), machine.rights(&node).ok()?)))
    else {
        return Ok(Undone::Done);
    };
    // Group and mode are changed one after the other.
    let between = Rights { group: after.group, mode: before.mode };
    let back = Rights { group: before.group, mode: after.mode };
    if now == before {
        return Ok(Undone::Done);
    }
    if ![after, between, back].contains(&now) {
        return Ok(Undone::Foreign(format!("it has group {} and mode {:o} now", now.group, now.mode)));
    }
    machine.set_rights(&node, before)?;
    Ok(Undone::Done)
}

fn put_back(
    machine: &mut impl Machine,
    file: PersistentFile,
    before: Option<&str>,
    after: Sha256Digest,
) -> io::Result<Undone> {
    let path = file.path();
    let now = machine.read(path);
    match (now, before) {
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::Done),
        (Err(error), _) => Err(error),
        (Ok(now), Some(before)) if now == before => Ok(Undone::Done),
        (Ok(now), _) if Sha256Digest::of(now.as_bytes()) != after => {
            Ok(Undone::Foreign("somebody has edited it".to_owned()))
        }
        (Ok(_), Some(before)) => machine.put(path, before).map(|()| Undone::Done),
        (Ok(_), None) => machine.remove(path).map(|()| Undone::Done),
    }
}
