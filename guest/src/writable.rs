//! What a workload may write to: all of it in memory, over a root that stays read-only.
//!
//! `/etc` and `/var` are overlays on the verified root; `/var/lib/containers` is a file system of its own, because podman
//! puts overlays on it, and an overlay is no place for another. Scratch volumes are mounted over it afterwards.

use std::fs;

use nix::mount::{MsFlags, mount};

use crate::failure::{Failure, OrFail as _, Stage};

/// Where this program keeps what it hands to others.
pub(crate) const RUN: &str = "/run/bullion";
/// Where the upper halves of the overlays are.
const UPPER: &str = "/run/bullion/writable";
/// Where podman keeps images and containers.
pub(crate) const CONTAINERS: &str = "/var/lib/containers";

/// Makes the places writable.
pub(crate) fn prepare() -> Result<(), Failure> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let quiet = plain | MsFlags::MS_NOEXEC;
    make(UPPER)?;
    attach("tmpfs", UPPER, "tmpfs", plain, Some("mode=0755"))?;
    for (point, name) in [("/etc", "etc"), ("/var", "var")] {
        let (upper, work) = (format!("{UPPER}/{name}"), format!("{UPPER}/{name}.work"));
        make(&upper)?;
        make(&work)?;
        let options = format!("lowerdir={point},upperdir={upper},workdir={work}");
        attach("overlay", point, "overlay", plain, Some(&options))?;
    }
    attach("tmpfs", "/tmp", "tmpfs", plain, Some("mode=1777"))?;
    make(CONTAINERS)?;
    attach("tmpfs", CONTAINERS, "tmpfs", plain, Some("mode=0755,size=75%"))?;
    for directory in ["/dev/pts", "/dev/shm"] {
        make(directory)?;
    }
    attach("devpts", "/dev/pts", "devpts", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=0620,ptmxmode=0666"))?;
    attach("tmpfs", "/dev/shm", "tmpfs", quiet, Some("mode=1777"))?;
    attach("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, None)
}

/// Makes a directory with what is above it.
pub(crate) fn make(path: &str) -> Result<(), Failure> {
    fs::create_dir_all(path).or_fail_doing(Stage::Workload, format_args!("making {path}"))
}

fn attach(source: &str, point: &str, kind: &str, flags: MsFlags, options: Option<&str>) -> Result<(), Failure> {
    mount(Some(source), point, Some(kind), flags, options)
        .or_fail_doing(Stage::Workload, format_args!("mounting {kind} on {point}"))
}
