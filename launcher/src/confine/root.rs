//! The file system that QEMU sees: one in memory with what it needs bound into it under its own names, `/proc` with its own
//! processes only, and a `/dev` with the nodes it was given. Nothing of the host's root stays reachable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, chown, pivot_root};

use super::{Confinement, NOBODYS};

const NONE: Option<&str> = None;

/// Makes the root over the directory `root` and moves into it. `own_devices` says whether device nodes are made anew for the user that QEMU becomes;
/// they are bound otherwise.
pub(super) fn change(confinement: &Confinement, root: &Path, own_devices: bool) -> io::Result<()> {
    // What is mounted here must not show outside.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let hardened = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755,size=1m"))?;
    for path in &confinement.readable {
        bind(path, root, true)?;
    }
    for path in &confinement.writable {
        bind(path, root, false)?;
    }
    for path in &confinement.devices {
        if own_devices { make_device(path, root)? } else { bind(path, root, false)? }
    }
    // passt shuts itself up over it (`TMPDIR` of its isolation.c).
    fs::create_dir_all(root.join("tmp"))?;
    let proc = root.join("proc");
    fs::create_dir(&proc)?;
    mount(Some("proc"), &proc, Some("proc"), hardened | MsFlags::MS_NODEV, Some("subset=pid"))?;
    std::env::set_current_dir(root)?;
    // The old root lands below the new one, and is let go (pivot_root(2), "pivot_root(\".\", \".\")").
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(mount(NONE, "/", NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID, NONE)?)
}

/// The place of a path below the new root, with a file or directory there to mount on.
fn place(path: &Path, root: &Path, is_directory: bool) -> io::Result<PathBuf> {
    let place = root.join(path.strip_prefix("/").unwrap_or(path));
    if is_directory {
        fs::create_dir_all(&place)?;
    } else {
        place.parent().map_or(Ok(()), fs::create_dir_all)?;
        OpenOptions::new().write(true).create(true).truncate(false).open(&place).map(drop::<File>)?;
    }
    Ok(place)
}

fn bind(path: &Path, root: &Path, read_only: bool) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    // A link to a file stands for the file, wherever it is: /etc/resolv.conf of systemd-resolved.
    if found.is_symlink() && !path.is_file() {
        // Such as /lib of a merged /usr.
        let place = root.join(path.strip_prefix("/").unwrap_or(path));
        place.parent().map_or(Ok(()), fs::create_dir_all)?;
        return std::os::unix::fs::symlink(fs::read_link(path)?, place);
    }
    let place = place(path, root, found.is_dir())?;
    mount(Some(path), &place, NONE, MsFlags::MS_BIND, NONE)?;
    // A mount of another user namespace keeps the flags it has: they have to be named again (mount_namespaces(7)).
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID;
    let kept = statvfs(&place)?.flags();
    for (has, flag) in [
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
    ] {
        flags.set(flag, kept.contains(has));
    }
    flags.set(MsFlags::MS_RDONLY, read_only || kept.contains(FsFlags::ST_RDONLY));
    Ok(mount(NONE, &place, NONE, flags, NONE)?)
}

/// A node of the same device that belongs to QEMU's user: what the host's own lets others do does not matter then.
fn make_device(path: &Path, root: &Path) -> io::Result<()> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    if !found.file_type().is_char_device() {
        return Err(io::Error::from_raw_os_error(Errno::ENOTSUP as i32));
    }
    let place = root.join(path.strip_prefix("/").unwrap_or(path));
    place.parent().map_or(Ok(()), fs::create_dir_all)?;
    match mknod(&place, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, found.rdev()) {
        // A unit or a container whose devices are listed may not make one: then the host's own has to let others in.
        Err(Errno::EPERM) => bind(path, root, false),
        made => Ok(made.and_then(|()| chown(&place, Some(Uid::from_raw(NOBODYS)), Some(Gid::from_raw(NOBODYS))))?),
    }
}
