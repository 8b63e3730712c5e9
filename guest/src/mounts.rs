//! The kernel's own file systems, mounted before anything else.

use nix::mount::{MsFlags, mount};

use crate::failure::{Failure, OrFail as _, Stage};

/// Where they are mounted, first in the initrd; `switch_root` moves them.
pub(crate) const MOUNT_POINTS: [&str; 4] = ["/proc", "/sys", "/dev", "/run"];

/// Mounts proc, sysfs, devtmpfs and a tmpfs. Nothing below them may carry a device, a set-user-ID bit or a program, but
/// for the devices of devtmpfs.
pub(crate) fn mount_kernel_filesystems() -> Result<(), Failure> {
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let [proc, sys, dev, run] = MOUNT_POINTS;
    for (kind, target, flags, options) in [
        ("proc", proc, plain, None),
        ("sysfs", sys, plain, None),
        ("devtmpfs", dev, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some("mode=0755")),
        ("tmpfs", run, plain, Some("mode=0755")),
    ] {
        mount(Some(kind), target, Some(kind), flags, options)
            .or_fail_doing(Stage::Start, format_args!("mounting {kind} on {target}"))?;
    }
    Ok(())
}
