//! What `bullion-guest` and the host say to each other on the virtio-serial port: one JSON object a line.
//!
//! The guest speaks first, once, with an `Event`; then it answers each `Request` with one `Reply` that carries its `id`.
//! Nothing that the host asks here changes what the guest is: it may ask what the guest sees, and to power off.
//!
//! The guest forgets half a request when it sees that the host has closed the port, but a host that opens it again at once
//! may go unnoticed. So a host that connects to a running guest first sends an empty line, and passes over replies whose
//! `id` it did not use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::tee::Tee;

/// The name of the virtio-serial port.
pub const PORT_NAME: &str = "org.bullion.agent.0";
/// The prefix of the one console line by which the guest says that it stops, and why: `bullion-guest: FAILED STAGE: REASON`.
pub const CONSOLE_FAILED: &str = "bullion-guest: FAILED ";
/// The prefix of a console line that names a device without a driver: one that the guest was not told of.
pub const CONSOLE_REFUSED: &str = "bullion-guest: REFUSED DEVICE ";
/// The prefix of the one console line by which the guest says that it is ready.
pub const CONSOLE_READY: &str = "bullion-guest: READY ";
/// The longest line either side accepts, in bytes.
pub const MAX_LINE: usize = 64 << 10;
/// The longest line of output that is passed on, in bytes.
pub const MAX_OUTPUT_LINE: usize = 4096;
/// The serial number of the virtio disk that carries the root file system.
pub const ROOT_DISK_SERIAL: &str = "bullion-root";

/// A question from the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by the host, repeated in the reply.
    pub id: u64,
    /// What is asked.
    pub method: Method,
}

/// What the host may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Who the guest is: an `Identity`.
    Identity,
    /// The measurements the guest can read: a `Measurements`.
    Measurements,
    /// How long the kernel has been up: an `Uptime`.
    Uptime,
    /// Power off. The guest replies with `{}` first.
    PowerOff,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's `id`; 0 where the request could not be read.
    pub id: u64,
    /// The answer, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What the guest says unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The root file system is verified and mounted.
    Ready {
        /// Who the guest is.
        identity: Identity,
    },
    /// The guest stops because something did not verify or could not be set up.
    Failed {
        /// What it was doing: `modules`, `root-device`, `verity`, `mount`, `configuration`, ...
        stage: String,
        /// What went wrong, in one line.
        reason: String,
    },
    /// The workload has come to another state.
    Workload {
        /// The state.
        workload: Workload,
    },
    /// The workload printed a line, and the measured configuration gives its output to the host.
    Output {
        /// The line, without its end; cut where it is longer than `MAX_OUTPUT_LINE`.
        line: String,
    },
}

/// How far the workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Workload {
    /// Volumes are checked and images are unpacked.
    Preparing,
    /// It runs.
    Running {
        /// How often it has been started again.
        restarts: u32,
    },
    /// It has ended, and the guest powers off.
    Ended {
        /// Its exit code; 128 and more where a signal ended it.
        exit_code: u8,
        /// How often it had been started again.
        restarts: u32,
    },
}

/// Who the guest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The version of `bullion-guest`.
    pub guest_version: String,
    /// The kernel's release string.
    pub kernel_release: String,
    /// The dm-verity root hash that the kernel is enforcing.
    pub root_hash: Sha256Digest,
    /// The TEE that the guest sees itself in.
    pub tee: Tee,
    /// The host name it gave itself.
    pub hostname: String,
    /// The `[guest]` configuration it was given.
    pub configuration: Configuration,
    /// Milliseconds since the kernel started when this was said.
    pub uptime_ms: u64,
}

/// What became of the `[guest]` configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// What binds it.
    pub binding: Binding,
    /// SHA-256 of the tagged canonical JSON (the HOST_DATA value), where there is a configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Sha256Digest>,
}

/// What binds a guest to its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Binding {
    /// No configuration was given.
    Absent,
    /// The guest's own SNP report carries the digest in HOST_DATA.
    HostData,
    /// The guest's own TD report carries the digest in MRCONFIGID.
    Mrconfigid,
    /// There is no TEE, so nothing binds it: the host may have given any configuration.
    Unattested,
}

/// How long the kernel has been up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    /// Milliseconds since the kernel started.
    pub uptime_ms: u64,
}

/// What the guest can read of its own measurements. Said by the guest about itself over a channel of the host: a
/// convenience, never a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurements {
    /// The TEE they come from.
    pub tee: Tee,
    /// Register names as the vendor writes them (`MEASUREMENT`, `HOST_DATA`, `MRTD`, `RTMR0`, ...), values in hex.
    pub registers: BTreeMap<String, String>,
}
