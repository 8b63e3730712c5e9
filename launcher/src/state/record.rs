//! `state.json`: what a supervisor says about its VM, and afterwards how it ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use spec::agent::{Identity, Measurements, Workload};
use spec::manifest::Class;
use spec::{PciAddress, Sha256Digest, Tee};

use super::{StateError, write_atomically, write_for_now};
use crate::gpu::mode::Mode;
use crate::qemu::Accelerator;

/// The file's name.
pub(super) const FILE_NAME: &str = "state.json";
/// The name of the last record in the directory that is kept.
pub(super) const LAST: &str = "last.json";

/// How far a VM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its inputs are being checked.
    Starting,
    /// QEMU runs; the guest has not said that it is ready.
    Running,
    /// The guest is ready.
    Ready,
    /// It was asked to stop.
    Stopping,
    /// QEMU has ended, and will be started again.
    Waiting,
    /// QEMU has ended.
    Exited,
}

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since the host booted (proc(5), `/proc/pid/stat` field 22).
    pub start_time: u64,
}

impl ProcessId {
    /// The process with this number now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name, in parentheses, and can hold anything.
        let start_time = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, start_time })
    }
}

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code of `bullion launch`.
    pub code: u8,
    /// How it ended, in one line.
    pub summary: String,
    /// The last lines of its console.
    pub last_words: Vec<String>,
    /// When, in seconds since 1970.
    pub ended_at: u64,
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format: 1.
    pub schema: u32,
    /// The VM's name.
    pub name: String,
    /// Its supervisor.
    pub supervisor: ProcessId,
    /// QEMU's process number, once it runs.
    pub qemu_pid: Option<u32>,
    /// When it was launched, in seconds since 1970.
    pub started_at: u64,
    /// How far it is.
    pub phase: Phase,
    /// Its TEE.
    pub tee: Tee,
    /// Whether the TEE is a simulation.
    pub simulated: bool,
    /// The image directory.
    pub image: PathBuf,
    /// SHA-256 of the image's manifest.
    pub manifest_sha256: Sha256Digest,
    /// How far the image may be trusted. Records of earlier versions do not say so.
    #[serde(default)]
    pub class: Option<Class>,
    /// What runs the guest, once that is decided.
    pub accelerator: Option<Accelerator>,
    /// How long the launch, or the restart, took until its guest might run.
    #[serde(default)]
    pub prepared_ms: Option<u64>,
    /// The mode of its GPUs, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_mode: Option<Mode>,
    /// Its GPUs and NVSwitches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<PciAddress>,
    /// How long the guest took to be ready, from when it was let run.
    pub ready_ms: Option<u64>,
    /// What the guest said about itself. Its own word, over a channel of the host: a convenience, never a proof.
    pub identity: Option<Identity>,
    /// The measurements the guest could read. Its own word as well.
    pub measurements: Option<Measurements>,
    /// How far its workload is, where it has one.
    #[serde(default)]
    pub workload: Option<Workload>,
    /// How many volumes it has.
    #[serde(default)]
    pub volumes: u32,
    /// How many PCI functions are passed to it.
    #[serde(default)]
    pub passed_devices: u32,
    /// How many seconds the guest may take to stop.
    pub stop_timeout_s: u64,
    /// Where the console is logged.
    pub console_log: PathBuf,
    /// How often it was started again by its supervisor.
    #[serde(default)]
    pub restarts: u32,
    /// How it ended before it was started again the last time.
    #[serde(default)]
    pub before: Option<Exit>,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
}

impl Record {
    /// Reads a record; `None` where there is none, or none that can be understood.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok().filter(|record: &Self| record.schema == 1)
    }

    /// Writes the record into the directory of a running VM.
    pub(crate) fn save_running(&self, directory: &Path) -> Result<(), StateError> {
        self.save(&directory.join(FILE_NAME), write_for_now)
    }

    /// Writes the record into the directory that is kept.
    pub(crate) fn save_last(&self, directory: &Path) -> Result<(), StateError> {
        self.save(&directory.join(LAST), write_atomically)
    }

    fn save(&self, path: &Path, write: fn(&Path, &[u8]) -> std::io::Result<()>) -> Result<(), StateError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| StateError::io("write", path)(error.into()))?;
        write(path, &bytes).map_err(StateError::io("write", path))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let me = i32::try_from(std::process::id()).unwrap();
        let found = ProcessId::of(me).unwrap();
        assert!(found.start_time > 0);
        assert_eq!(ProcessId::of(me), Some(found));
        assert!(ProcessId::of(1).unwrap().start_time <= found.start_time);
        assert_eq!(ProcessId::of(-1), None);
    }
}
