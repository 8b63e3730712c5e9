//! The secondary-bus reset that VFIO does for whoever owns all functions it reaches (VFIO_DEVICE_PCI_HOT_RESET).
//!
//! It is the way that needs no more rights than passing the device does, and the kernel itself says which functions are
//! reached and refuses where one of them is another's. By iommufd and the device's own file where the kernel has them,
//! else by IOMMU groups (Linux `include/uapi/linux/vfio.h`).
#![allow(unsafe_code, reason = "ioctls of VFIO, whose structures end in arrays of a length that only the caller knows")]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{self, c_ulong};
use spec::PciAddress;

/// `_IO(VFIO_TYPE, VFIO_BASE + number)`: none of VFIO's requests carries a size.
const fn request(number: u32) -> c_ulong {
    (b';' as c_ulong) << 8 | (100 + number) as c_ulong
}

const SET_IOMMU: c_ulong = request(2);
const GROUP_SET_CONTAINER: c_ulong = request(4);
const GROUP_GET_DEVICE_FD: c_ulong = request(6);
const GET_HOT_RESET_INFO: c_ulong = request(12);
const HOT_RESET: c_ulong = request(13);
const BIND_IOMMUFD: c_ulong = request(18);
/// VFIO_TYPE1v2_IOMMU.
const TYPE1_V2: c_ulong = 3;
/// More functions than any bus has.
const MAX_FUNCTIONS: usize = 256;

/// `struct vfio_pci_dependent_device`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Dependent {
    group_or_device: u32,
    segment: u16,
    bus: u8,
    device_function: u8,
}

/// `struct vfio_pci_hot_reset_info` with room for all.
#[repr(C)]
struct Info {
    argsz: u32,
    flags: u32,
    count: u32,
    devices: [Dependent; MAX_FUNCTIONS],
}

/// `struct vfio_pci_hot_reset` with room for all.
#[repr(C)]
struct Reset {
    argsz: u32,
    flags: u32,
    count: u32,
    groups: [i32; MAX_FUNCTIONS],
}

/// `struct vfio_device_bind_iommufd`.
#[repr(C)]
struct Bind {
    argsz: u32,
    flags: u32,
    iommufd: i32,
    device: u32,
}

const _: () = assert!(size_of::<Dependent>() == 8 && size_of::<Bind>() == 16 && size_of::<Info>() == 12 + 8 * 256);

/// Why VFIO did not reset.
#[derive(Debug)]
pub(super) enum HotResetError {
    /// The device cannot be had through VFIO here; another way may be there.
    Unavailable(io::Error),
    /// The reset would reach functions that are not ours.
    Foreign(Vec<PciAddress>),
    /// The kernel refused.
    Failed(io::Error),
}

/// A device opened through VFIO, and what must stay open with it.
struct Opened {
    device: OwnedFd,
    /// The groups that prove ownership; empty where the device's own file does.
    groups: Vec<File>,
    _held: Vec<File>,
}

/// Resets the bus of `address`, if all that this reaches are `ours`.
pub(super) fn reset(sysfs: &Path, address: PciAddress, ours: &[PciAddress]) -> Result<(), HotResetError> {
    let directory = sysfs.join("bus/pci/devices");
    let opened = open(&directory, address, ours).map_err(|error| match error.raw_os_error() {
        // Somebody has it: no other way to reset it asks them.
        Some(libc::EBUSY) => HotResetError::Failed(error),
        _ => HotResetError::Unavailable(error),
    })?;
    let reached = reached(&opened.device).map_err(HotResetError::Failed)?;
    let foreign: Vec<_> = reached.into_iter().filter(|other| *other != address && !ours.contains(other)).collect();
    if !foreign.is_empty() {
        return Err(HotResetError::Foreign(foreign));
    }
    let mut request = Reset {
        argsz: 0,
        flags: 0,
        count: u32::try_from(opened.groups.len()).unwrap_or(0),
        groups: [0; MAX_FUNCTIONS],
    };
    request.argsz = 12 + 4 * request.count;
    for (place, group) in request.groups.iter_mut().zip(&opened.groups) {
        *place = group.as_raw_fd();
    }
    call(opened.device.as_raw_fd(), HOT_RESET, &raw mut request).map(drop).map_err(HotResetError::Failed)
}

fn open(directory: &Path, address: PciAddress, ours: &[PciAddress]) -> io::Result<Opened> {
    let cdev = fs::read_dir(directory.join(address.to_string()).join("vfio-dev"))
        .ok()
        .and_then(|mut entries| entries.next()?.ok())
        .map(|entry| Path::new("/dev/vfio/devices").join(entry.file_name()));
    match cdev.and_then(|cdev| Some((read_write(&cdev).ok()?, read_write(Path::new("/dev/iommu")).ok()?))) {
        Some((device, iommufd)) => by_iommufd(device, iommufd),
        None => by_group(directory, address, ours),
    }
}

fn read_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn by_iommufd(device: File, iommufd: File) -> io::Result<Opened> {
    let mut bind = Bind { argsz: 16, flags: 0, iommufd: iommufd.as_raw_fd(), device: 0 };
    call(device.as_raw_fd(), BIND_IOMMUFD, &raw mut bind)?;
    Ok(Opened { device: device.into(), groups: Vec::new(), _held: vec![iommufd] })
}

/// The group of the device, and those of all others that are ours: whoever has the groups may reset what is in them.
fn by_group(directory: &Path, address: PciAddress, ours: &[PciAddress]) -> io::Result<Opened> {
    let number = |address: PciAddress| {
        let link = fs::read_link(directory.join(address.to_string()).join("iommu_group"))?;
        link.file_name().map(std::ffi::OsStr::to_owned).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    };
    let container = read_write(Path::new("/dev/vfio/vfio"))?;
    let bus = |other: &&PciAddress| other.bus() == address.bus() && **other != address;
    let mut names = vec![number(address)?];
    for other in ours.iter().filter(bus) {
        let name = number(*other)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut groups = Vec::new();
    for name in names {
        let group = read_write(&Path::new("/dev/vfio").join(name))?;
        let mut descriptor = container.as_raw_fd();
        call(group.as_raw_fd(), GROUP_SET_CONTAINER, &raw mut descriptor)?;
        groups.push(group);
    }
    // SAFETY: VFIO_SET_IOMMU takes a number, no pointer.
    Errno::result(unsafe { libc::ioctl(container.as_raw_fd(), SET_IOMMU, TYPE1_V2) })?;
    let name = CString::new(address.to_string()).map_err(io::Error::other)?;
    let first = groups.first().map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: the request reads a string that ends in NUL and lives until the call is over.
    let device = Errno::result(unsafe { libc::ioctl(first, GROUP_GET_DEVICE_FD, name.as_ptr()) })?;
    // SAFETY: the kernel has just made this descriptor for this process, and nobody else knows it.
    let device = unsafe { OwnedFd::from_raw_fd(device) };
    Ok(Opened { device, groups, _held: vec![container] })
}

/// The functions that the reset would reach, as the kernel says.
fn reached(device: &OwnedFd) -> io::Result<Vec<PciAddress>> {
    let mut info = Info { argsz: 0, flags: 0, count: 0, devices: [Dependent::default(); MAX_FUNCTIONS] };
    info.argsz = u32::try_from(size_of::<Info>()).unwrap_or(0);
    call(device.as_raw_fd(), GET_HOT_RESET_INFO, &raw mut info)?;
    let count = usize::try_from(info.count).unwrap_or(MAX_FUNCTIONS);
    let address = |found: &Dependent| {
        let (device, function) = (found.device_function >> 3, found.device_function & 7);
        format!("{:04x}:{:02x}:{device:02x}.{function}", found.segment, found.bus).parse().ok()
    };
    Ok(info.devices.iter().take(count).filter_map(address).collect())
}

fn call<T>(descriptor: RawFd, request: c_ulong, argument: *mut T) -> io::Result<i32> {
    // SAFETY: every caller passes the structure that belongs to its request, whose `argsz` is within it, and the pointer
    // is to a value that lives until the call is over.
    Ok(Errno::result(unsafe { libc::ioctl(descriptor, request, argument) })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers as the kernel's header gives them (`printf("%#lx", VFIO_DEVICE_PCI_HOT_RESET)`).
    #[test]
    fn requests_are_those_of_the_kernel() {
        assert_eq!([GET_HOT_RESET_INFO, HOT_RESET, BIND_IOMMUFD], [0x3b70, 0x3b71, 0x3b76]);
        assert_eq!([SET_IOMMU, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD], [0x3b66, 0x3b68, 0x3b6a]);
    }

    #[test]
    fn a_device_without_vfio_is_left_to_other_ways() {
        let root = tempfile::tempdir().unwrap();
        let address: PciAddress = "0000:01:00.0".parse().unwrap();
        assert!(matches!(reset(root.path(), address, &[]), Err(HotResetError::Unavailable(_))));
    }
}
