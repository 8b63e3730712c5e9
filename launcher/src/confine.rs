//! The place QEMU runs in: processes, files, network and names of its own, without a right that it does not need.
//!
//! A guest that gets the better of QEMU finds a file system with QEMU's own files (read-only), a few devices, and the
//! descriptors it was given; it sees no process of the host and reaches no network that it was not given. What is shown is
//! decided by `Confinement::of`, a value; `enter` makes it so between fork and exec, in a process of one thread. QEMU is the
//! first process of its PID namespace, so between it and its supervisor is one that only waits (`wait`).

mod enter;
mod rights;
mod root;
mod wait;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use enter::{Entered, Entrance};

/// The user and group that QEMU runs as where root launches: between systemd's dynamic users and `nobody`, so nobody's.
pub(crate) const NOBODYS: u32 = 65_532;

/// What QEMU sees of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// Files and directories that are there under their own names, read-only.
    pub readable: Vec<PathBuf>,
    /// Directories that are there under their own names, to be written to.
    pub writable: Vec<PathBuf>,
    /// Devices below `/dev`.
    pub devices: Vec<PathBuf>,
    /// Whether it has the host's network.
    pub host_network: bool,
    /// Whether it becomes a user of its own where root launches. A simulator has to write where its supervisor reads.
    pub other_user: bool,
    /// Groups that the user of its own is in.
    pub groups: Vec<u32>,
    /// Whether it may lock memory without a limit, as passed devices need.
    pub lock_memory: bool,
}

/// Devices that every program may need.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

impl Confinement {
    /// A place with nothing of the host but the files that the program is made of.
    pub fn new(readable: Vec<PathBuf>) -> Self {
        Self {
            readable,
            writable: Vec::new(),
            devices: DEVICES.map(PathBuf::from).to_vec(),
            host_network: false,
            other_user: true,
            groups: Vec::new(),
            lock_memory: false,
        }
    }

    /// For a program that speaks for a guest's NIC: it makes connections as the host does, and answers the guest's questions for names.
    pub(crate) fn speaks_for_guest(&mut self) {
        self.host_network = true;
        self.readable.extend(["/etc/resolv.conf", "/etc/hosts"].map(PathBuf::from));
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
        f.write_str(if self.host_network { "the host's network" } else { "no network" })?;
        let devices: Vec<_> = self
            .devices
            .iter()
            .filter(|path| DEVICES.iter().all(|usual| path.as_path() != Path::new(usual)))
            .cloned()
            .collect();
        for (what, paths) in [("reads", &self.readable), ("writes", &self.writable), ("opens", &devices)] {
            if !paths.is_empty() {
                write!(f, ", {what} {}", list(paths))?;
            }
        }
        for group in &self.groups {
            write!(f, ", in group {group}")?;
        }
        f.write_str(if self.other_user { ", another user where root launches" } else { ", this user" })
    }
}
