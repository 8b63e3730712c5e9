//! Opens devices with one target through the device mapper's ioctls: no external tool, no library.
//!
//! ABI: Linux `include/uapi/linux/dm-ioctl.h`, interface version 4; structures here are copies of that header, their sizes
//! checked by the compiler.
#![allow(
    unsafe_code,
    reason = "the device mapper has no interface but ioctls on structures that the kernel reads and writes"
)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use zerocopy::{Immutable, IntoBytes};

use crate::failure::{Failure, OrFail as _, Stage};

/// `/dev/mapper/control`, which devtmpfs makes when `dm_mod` is loaded.
const CONTROL: &str = "/dev/mapper/control";
/// DM_READONLY_FLAG: the only way dm-verity may be opened.
const READ_ONLY: u32 = 1;
/// Room for the target's parameters and the NUL that ends them: hash, salt and device names need at most 800 bytes.
const PARAMETERS: usize = 1024;

/// `struct dm_ioctl`.
#[derive(Clone, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_target_spec`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct TargetSpec {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
}

/// What DM_TABLE_LOAD takes for one target.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Table {
    header: Header,
    target: TargetSpec,
    parameters: [u8; PARAMETERS],
}

const _: () = {
    assert!(size_of::<Header>() == 312);
    assert!(size_of::<TargetSpec>() == 40);
    assert!(size_of::<Table>() == 312 + 40 + PARAMETERS);
};

nix::ioctl_readwrite!(dm_version, 0xfd, 0, Header);
nix::ioctl_readwrite!(dm_dev_create, 0xfd, 3, Header);
nix::ioctl_readwrite!(dm_dev_suspend, 0xfd, 6, Header);
// The request number of DM_TABLE_LOAD carries the size of the header alone.
nix::ioctl_readwrite!(dm_table_load, 0xfd, 9, Header);

impl Header {
    fn new(device: &str, size: usize, flags: u32) -> Self {
        let mut name = [0; 128];
        // The last byte stays NUL.
        name.iter_mut().zip(device.bytes().take(127)).for_each(|(slot, byte)| *slot = byte);
        Self {
            // The oldest interface that knows all that is used here; the kernel refuses only another major version.
            version: [4, 0, 0],
            data_size: u32::try_from(size).unwrap_or(0),
            data_start: 312,
            target_count: 0,
            open_count: 0,
            flags,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name,
            uuid: [0; 129],
            data: [0; 7],
        }
    }
}

/// A device with one target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// What the device is called in `/sys/block/dm-N/dm/name`.
    pub(crate) name: &'a str,
    /// The target's type: `verity`, `crypt`.
    pub(crate) kind: &'a str,
    /// Whether nobody may write to it.
    pub(crate) read_only: bool,
    /// Its length in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// The target's parameters. They can be read back in the guest, so they hold no key.
    pub(crate) parameters: &'a str,
}

/// Creates the device and returns its node.
pub(crate) fn open(target: &Target<'_>, stage: Stage) -> Result<String, Failure> {
    let control = OpenOptions::new().read(true).write(true).open(CONTROL).or_fail_doing(stage, CONTROL)?;
    let header = || Header::new(target.name, size_of::<Header>(), 0);
    let call = |name: &str, ioctl: &dyn Fn(i32, *mut Header) -> nix::Result<i32>| {
        let mut header = header();
        ioctl(control.as_raw_fd(), &raw mut header).or_fail_doing(stage, format_args!("{name} of {}", target.name))?;
        Ok::<_, Failure>(header)
    };
    // SAFETY: the kernel reads and writes at most `data_size` bytes, which is the size of the header given.
    call("DM_VERSION", &|fd, header| unsafe { dm_version(fd, header) })?;
    // SAFETY: as above.
    let created = call("DM_DEV_CREATE", &|fd, header| unsafe { dm_dev_create(fd, header) })?;
    load_table(&control, target, stage)?;
    // Without the suspend flag this resumes: the table becomes live. SAFETY: as above.
    call("DM_DEV_SUSPEND", &|fd, header| unsafe { dm_dev_suspend(fd, header) })?;
    node(created.dev, stage)
}

fn load_table(control: &File, target: &Target<'_>, stage: Stage) -> Result<(), Failure> {
    let mut table = table(target).ok_or_else(|| Failure::new(stage, "the target's parameters are too long"))?;
    // SAFETY: the pointer is to the whole of `table`, whose size is in `data_size`; the header is its first field.
    unsafe { dm_table_load(control.as_raw_fd(), (&raw mut table).cast()) }
        .or_fail_doing(stage, format_args!("DM_TABLE_LOAD of \"{} {}\"", target.kind, target.parameters))?;
    Ok(())
}

/// The table as the kernel reads it; `None` where it has no room for the target.
fn table(target: &Target<'_>) -> Option<Table> {
    let flags = if target.read_only { READ_ONLY } else { 0 };
    let mut table = Table {
        header: Header { target_count: 1, ..Header::new(target.name, size_of::<Table>(), flags) },
        target: TargetSpec { sector_start: 0, length: target.sectors, status: 0, next: 0, target_type: [0; 16] },
        parameters: [0; PARAMETERS],
    };
    let fits = target.kind.len() < table.target.target_type.len() && target.parameters.len() < PARAMETERS;
    table.target.target_type.iter_mut().zip(target.kind.bytes()).for_each(|(slot, byte)| *slot = byte);
    table.parameters.iter_mut().zip(target.parameters.bytes()).for_each(|(slot, byte)| *slot = byte);
    fits.then_some(table)
}

/// The device's node. devtmpfs makes it; a kernel that is slow to is not waited for.
fn node(device: u64, stage: Stage) -> Result<String, Failure> {
    let (major, minor) = decode_device(device);
    let path = format!("/dev/dm-{minor}");
    if !Path::new(&path).exists() {
        mknod(path.as_str(), SFlag::S_IFBLK, Mode::S_IRUSR, makedev(major, minor)).or_fail_doing(stage, &path)?;
    }
    Ok(path)
}

/// Major and minor number out of the kernel's `huge_encode_dev` (`include/linux/kdev_t.h`).
fn decode_device(device: u64) -> (u64, u64) {
    (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_decoded_as_the_kernel_encodes_them() {
        // huge_encode_dev: (minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12).
        for (major, minor) in [(254u64, 0u64), (254, 255), (253, 256), (1, 0xfffff)] {
            let encoded = minor & 0xff | major << 8 | (minor & !0xff) << 12;
            assert_eq!(decode_device(encoded), (major, minor));
        }
    }

    #[test]
    fn a_table_has_its_fields_where_the_kernel_looks() {
        let verity = Target {
            name: "bullion-root",
            kind: "verity",
            read_only: true,
            sectors: 296,
            parameters: "1 /dev/vda /dev/vda 4096",
        };
        let table = table(&verity).unwrap();
        let bytes = table.as_bytes();
        assert_eq!(bytes[..12], [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[12..16], 1376u32.to_le_bytes());
        assert_eq!(bytes[16..20], 312u32.to_le_bytes());
        assert_eq!(bytes[20..24], 1u32.to_le_bytes());
        assert_eq!(bytes[28..32], READ_ONLY.to_le_bytes());
        assert_eq!(&bytes[48..61], b"bullion-root\0");
        assert_eq!(bytes[320..328], 296u64.to_le_bytes());
        assert_eq!(&bytes[336..343], b"verity\0");
        assert_eq!(&bytes[352..377], b"1 /dev/vda /dev/vda 4096\0");
        assert_eq!(super::table(&Target { read_only: false, ..verity }).unwrap().header.flags, 0);
        assert!(super::table(&Target { parameters: &"x".repeat(PARAMETERS), ..verity }).is_none());
    }
}
