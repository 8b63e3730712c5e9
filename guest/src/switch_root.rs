//! From the initrd to the verified root file system, in the order that util-linux `switch_root` uses.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::{chdir, chroot};

use crate::failure::{Failure, OrFail as _, Stage};
use crate::mounts::MOUNT_POINTS;

const NEW_ROOT: &str = "/sysroot";

/// Linux `include/uapi/linux/magic.h`.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Mounts the EROFS on `device` read-only, moves the kernel's file systems over, frees the initrd and makes it the root.
pub(crate) fn switch_root(device: &str) -> Result<(), Failure> {
    mount(Some(device), NEW_ROOT, Some("erofs"), MsFlags::MS_RDONLY | MsFlags::MS_NODEV, None::<&str>)
        .or_fail_doing(Stage::Mount, format_args!("mounting {device} as erofs"))?;
    for point in MOUNT_POINTS {
        let target = format!("{NEW_ROOT}{point}");
        if !Path::new(&target).is_dir() {
            let reason = format_args!("the root file system has no directory {point}");
            return Err(Failure::new(Stage::Mount, reason));
        }
        mount(Some(point), target.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .or_fail_doing(Stage::Mount, format_args!("moving {point}"))?;
    }
    free_initrd().or_fail_doing(Stage::Mount, "freeing the initrd")?;
    chdir(NEW_ROOT).or_fail_doing(Stage::Mount, "entering the root file system")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .or_fail_doing(Stage::Mount, "moving the root file system to /")?;
    chroot(".").or_fail_doing(Stage::Mount, "changing the root")?;
    chdir("/").or_fail_doing(Stage::Mount, "entering the new root")
}

/// Deletes what the initrd holds: it would stay in memory for as long as the guest runs. Refuses when `/` is anything but
/// the memory file system that the kernel unpacks an initrd into.
fn free_initrd() -> io::Result<()> {
    let kind: FsType = statfs("/")?.filesystem_type();
    if kind != RAMFS_MAGIC && kind != TMPFS_MAGIC {
        return Err(io::Error::other("/ is not the initrd"));
    }
    let device = fs::metadata("/")?.dev();
    for entry in fs::read_dir("/")? {
        delete(&entry?, device)?;
    }
    Ok(())
}

/// Deletes an entry and what is below it, but nothing of another file system.
fn delete(entry: &DirEntry, device: u64) -> io::Result<()> {
    let metadata = entry.metadata()?;
    if metadata.dev() != device {
        return Ok(());
    }
    if !metadata.is_dir() {
        return fs::remove_file(entry.path());
    }
    for below in fs::read_dir(entry.path())? {
        delete(&below?, device)?;
    }
    fs::remove_dir(entry.path())
}
