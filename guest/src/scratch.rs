//! Scratch volumes: a random key, dm-crypt without a header, a fresh file system, a mount.
//!
//! The key is made here at each boot, handed to the kernel through a keyring and wiped; it is on no command line, in no
//! table and in no file, and nothing outlives the boot that could open the disk again. What the host put on the disk is
//! never looked at. Parameters: attestation of volumes has nothing to negotiate, so they are fixed (Linux
//! Documentation/admin-guide/device-mapper/dm-crypt.rst).

use std::fs::File;
use std::io::{self, Read as _};

use nix::mount::{MsFlags, mount};
use spec::volume::GuestVolume;
use zeroize::Zeroizing;

use crate::children::{Children, Program};
use crate::device_mapper::{self, Target};
use crate::disks::Disk;
use crate::failure::{Failure, OrFail as _, Stage};
use crate::{keyring, writable};

/// AES-256 in XTS mode has two keys of 256 bits.
const KEY_BYTES: usize = 64;
/// dm-crypt's sectors, in the 512-byte sectors of the device mapper.
const SECTORS_PER_BLOCK: u64 = 8;
/// Less than this is no room for a file system.
const MIN_BYTES: u64 = 16 << 20;
/// Makes the file system. There is no journal: nobody reads it after a crash.
const MAKE: [&str; 11] = [
    "/usr/sbin/mke2fs",
    "-q",
    "-F",
    "-t",
    "ext4",
    "-b",
    "4096",
    "-O",
    "^has_journal",
    "-E",
    "nodiscard,lazy_itable_init=1",
];

/// Opens the volume on `disk` and mounts it.
pub(crate) fn open(volume: &GuestVolume, disk: &Disk, mount_point: &str, children: &Children) -> Result<(), Failure> {
    let device = encrypt(volume, disk)?;
    let make = Program::new(MAKE.into_iter().chain([device.as_str()]));
    children.run(&make).or_fail(Stage::Volume)?;
    writable::make(mount_point)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    mount(Some(device.as_str()), mount_point, Some("ext4"), flags, None::<&str>)
        .or_fail_doing(Stage::Volume, format_args!("mounting volume \"{}\" on {mount_point}", volume.name))
}

/// Puts dm-crypt over the disk and returns the node of what is below it in the clear.
fn encrypt(volume: &GuestVolume, disk: &Disk) -> Result<String, Failure> {
    let name = &volume.name;
    if disk.bytes < MIN_BYTES {
        let reason = format_args!("volume \"{name}\" has {} bytes, expected at least {MIN_BYTES}", disk.bytes);
        return Err(Failure::new(Stage::Volume, reason));
    }
    let description = format!("bullion:{name}");
    let key = random_key().or_fail_doing(Stage::Volume, "making a key")?;
    let held = keyring::hold(&description, key.as_slice()).or_fail_doing(Stage::Volume, "giving the kernel a key")?;
    drop(key);
    let (sectors, parameters) = table(disk, &description);
    let target = Target { name: &volume.serial(), kind: "crypt", read_only: false, sectors, parameters: &parameters };
    let opened = device_mapper::open(&target, Stage::Volume);
    // dm-crypt has a copy of its own by now; the keyring's is for nobody.
    keyring::forget(held).or_fail_doing(Stage::Volume, "taking a key back")?;
    opened
}

fn random_key() -> io::Result<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    // Blocks until the kernel's generator is seeded, as getrandom(2) does (Linux 5.6 and later).
    File::open("/dev/random")?.read_exact(key.as_mut_slice())?;
    Ok(key)
}

/// Length in sectors, and parameters: whole blocks only, IVs counted in 512-byte sectors, no queues between the file system
/// and the cipher.
fn table(disk: &Disk, description: &str) -> (u64, String) {
    let sectors = disk.bytes / 512 / SECTORS_PER_BLOCK * SECTORS_PER_BLOCK;
    let parameters = format!(
        "aes-xts-plain64 :{KEY_BYTES}:logon:{description} 0 {} 0 3 sector_size:4096 no_read_workqueue no_write_workqueue",
        disk.node().display()
    );
    (sectors, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_whole_blocks_and_no_key() {
        let disk = Disk { name: "vdc".to_owned(), bytes: (16 << 20) + 512 };
        let (sectors, parameters) = table(&disk, "bullion:tmp");
        assert_eq!(sectors, 32768);
        assert_eq!(
            parameters,
            "aes-xts-plain64 :64:logon:bullion:tmp 0 /dev/vdc 0 3 sector_size:4096 no_read_workqueue no_write_workqueue"
        );
        let keys = [random_key().unwrap(), random_key().unwrap()];
        assert_ne!(keys[0], keys[1]);
        assert!(keys.iter().all(|key| key.iter().any(|byte| *byte != 0)));
    }
}
