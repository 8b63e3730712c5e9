//! The root that the script sees: a file system in memory with the tree's directories bound into it, `/proc`, a small `/dev`,
//! and `/build` with a copy of the inputs in sorted order. Nothing of the host's root stays reachable. `/proc` shows the script
//! its own processes, and nothing of the kernel.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::pivot_root;

use super::{BUILD, Plan, SandboxError};

/// Directories that are the sandbox's own, whatever the tree has there.
const OWN: [&str; 6] = ["build", "dev", "proc", "run", "sys", "tmp"];

/// The devices that a compiler may need; the host's nodes, bound.
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

/// Makes the root and moves into it. Everything in it is `owner`'s, if there is one, but what is bound.
pub(super) fn change(plan: &Plan, owner: Option<u32>) -> Result<(), SandboxError> {
    let root = plan.root.as_path();
    // What is mounted here must not show outside.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(SandboxError::inside("making private", Path::new("/")))?;
    memory(root, "mode=0755")?;
    bind_tree(&plan.tree, root)?;
    devices(root)?;
    for name in ["run", "tmp"] {
        create(&root.join(name), 0o1777)?;
    }
    create(&root.join("proc"), 0o555)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &root.join("proc"), Some("proc"), flags, Some("subset=pid,hidepid=2"))
        .map_err(SandboxError::inside("mounting", Path::new("/proc")))?;
    let build = root.join(BUILD.trim_start_matches('/'));
    create(&build, 0o755)?;
    copy(&plan.inputs, &build)?;
    for name in ["out", "home"] {
        create(&build.join(name), 0o755)?;
    }
    if let Some(owner) = owner {
        let device = fs::metadata(root).map_err(SandboxError::inside("reading", root))?.dev();
        give(root, owner, device)?;
    }
    // pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one for a moment.
    std::env::set_current_dir(root).map_err(SandboxError::inside("entering", root))?;
    pivot_root(".", ".").map_err(SandboxError::inside("moving the root to", root))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(SandboxError::inside("leaving", Path::new("/")))?;
    std::env::set_current_dir("/").map_err(SandboxError::inside("entering", Path::new("/")))
}

fn memory(at: &Path, options: &str) -> Result<(), SandboxError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))
        .map_err(SandboxError::inside("mounting a file system in memory on", at))
}

/// Binds the tree's directories, read-only, and repeats its links.
fn bind_tree(tree: &Path, root: &Path) -> Result<(), SandboxError> {
    for (name, path) in sorted(tree)? {
        if OWN.contains(&name.as_str()) {
            continue;
        }
        let to = root.join(&name);
        let kind = fs::symlink_metadata(&path).map_err(SandboxError::inside("reading", &path))?;
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(SandboxError::inside("reading", &path))?;
            std::os::unix::fs::symlink(target, &to).map_err(SandboxError::inside("linking", &to))?;
        } else if kind.is_dir() {
            create(&to, 0o755)?;
            bind(&path, &to)?;
            read_only(&to, MsFlags::MS_NODEV)?;
        }
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Result<(), SandboxError> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(SandboxError::inside("binding", from))
}

/// Restrictions of the mount below are locked in a user namespace (mount_namespaces(7)), so they are asked for again.
fn read_only(at: &Path, more: MsFlags) -> Result<(), SandboxError> {
    let found = statvfs(at).map_err(SandboxError::inside("reading", at))?.flags();
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | more;
    if found.contains(FsFlags::ST_NOEXEC) {
        flags |= MsFlags::MS_NOEXEC;
    }
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>).map_err(SandboxError::inside("binding read-only", at))
}

fn devices(root: &Path) -> Result<(), SandboxError> {
    let directory = root.join("dev");
    create(&directory, 0o755)?;
    for name in DEVICES {
        let to = directory.join(name);
        File::create(&to).map_err(SandboxError::inside("creating", &to))?;
        bind(&Path::new("/dev").join(name), &to)?;
        // The node is the host's: it can be written to all the same, but its mode and owner stay.
        read_only(&to, MsFlags::MS_NOEXEC)?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in links {
        let to = directory.join(name);
        std::os::unix::fs::symlink(target, &to).map_err(SandboxError::inside("linking", &to))?;
    }
    create(&directory.join("shm"), 0o1777)
}

/// Gives what is on this device, from `path` on, to a user and its group.
fn give(path: &Path, owner: u32, device: u64) -> Result<(), SandboxError> {
    let found = fs::symlink_metadata(path).map_err(SandboxError::inside("reading", path))?;
    if found.dev() != device {
        return Ok(());
    }
    lchown(path, Some(owner), Some(owner)).map_err(SandboxError::inside("giving away", path))?;
    if found.is_dir() {
        for (_, path) in sorted(path)? {
            give(&path, owner, device)?;
        }
    }
    Ok(())
}

fn create(path: &Path, mode: u32) -> Result<(), SandboxError> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(SandboxError::inside("creating", path))
}

fn sorted(directory: &Path) -> Result<Vec<(String, PathBuf)>, SandboxError> {
    let error = || SandboxError::inside::<io::Error>("listing", directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(error())? {
        let entry = entry.map_err(error())?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    found.sort();
    Ok(found)
}

/// Copies directories and files, in sorted order, with mode 0644 and time 0.
fn copy(from: &Path, to: &Path) -> Result<(), SandboxError> {
    for (name, path) in sorted(from)? {
        let target = to.join(&name);
        let error = |doing: &'static str| SandboxError::inside::<io::Error>(doing, &path);
        if fs::symlink_metadata(&path).map_err(error("reading"))?.is_dir() {
            create(&target, 0o755)?;
            copy(&path, &target)?;
            continue;
        }
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&target)?;
            io::copy(&mut File::open(&path)?, &mut file)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.set_modified(SystemTime::UNIX_EPOCH)
        };
        write().map_err(error("copying"))?;
    }
    Ok(())
}
