//! `vm.toml`: which image to run, in what shape, with what configuration, on this host.
//!
//! The top-level keys are the shape (what is measured), `[guest]` is what the guest must be able to prove it was given,
//! `[host]` is where it happens to run. The parts never mix: nothing in `[host]` may change a measurement.

mod lifecycle;
mod limits;
mod network;
mod placement;
mod policy;
mod topology;

use serde::{Deserialize, Serialize};

use crate::guest_config::{GuestConfig, MAX_BYTES};
use crate::size::Size;
use crate::tee::Tee;
use crate::text::{SyntaxError, from_toml};
use crate::volume::{self, HostVolume};

pub use lifecycle::{LogTerms, Restart, RestartPolicy};
pub use limits::Limits;
pub use network::{Forward, MAX_NICS, Nic, Protocol, Vsock};
pub use placement::{MAX_PCI, PciDevice, PciKind};
pub use policy::{SnpPolicy, TdxAttributes};
pub use topology::Topology;

/// A VM description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// The version of this format: 1.
    pub schema: u32,
    /// The VM's name, unique on the host: lower-case letters, digits and hyphens, at most 48.
    pub name: String,
    /// The image directory, relative to this file.
    pub image: String,
    /// The TEE to launch in.
    pub tee: Tee,
    /// What the guest starts from.
    #[serde(default, skip_serializing_if = "Boot::is_kernel")]
    pub boot: Boot,
    /// How many vCPUs.
    #[serde(default = "one")]
    pub vcpus: u32,
    /// How they are arranged. Default: cores of one socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<Topology>,
    /// Guest memory, a whole number of MiB.
    pub memory: Size,
    /// The CPU model as QEMU names it. Default: `EPYC-v4` for SNP, `host` for TDX, `max` without a TEE.
    pub cpu: Option<String>,
    /// What SEV-SNP is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snp: Option<SnpPolicy>,
    /// What TDX is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tdx: Option<TdxAttributes>,
    /// What the guest must be able to prove it was given.
    #[serde(default)]
    pub guest: GuestConfig,
    /// Where it happens to run.
    #[serde(default)]
    pub host: Host,
}

/// What a guest starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// The image's kernel and initrd, which QEMU gives to firmware.
    #[default]
    Kernel,
    /// The image's disk, which firmware starts. Not of SEV-SNP, whose launch digest covers no disk.
    Disk,
}

impl Boot {
    fn is_kernel(&self) -> bool {
        *self == Self::Kernel
    }
}

/// `[host]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Which accelerator to use without a TEE.
    #[serde(default)]
    pub accelerator: Accelerator,
    /// How many seconds the guest may take to say that it is ready (default 120).
    pub ready_timeout_s: Option<u64>,
    /// How many seconds a stopping guest gets before it is killed (default 10).
    pub stop_timeout_s: Option<u64>,
    /// How many seconds a guest that was ready may leave the host's questions unanswered before it is ended. Default: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_s: Option<u64>,
    /// Whether it is started again when it has ended. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// How much of its logs is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogTerms>,
    /// The most that QEMU takes of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Where the guest's volumes are.
    #[serde(default, rename = "volume", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<HostVolume>,
    /// Networks.
    #[serde(default, rename = "nic", skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
    /// A socket between host and guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock: Option<Vsock>,
    /// PCI devices that are passed to the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pci: Vec<PciDevice>,
    /// The size of the huge pages that memory is made of, `2MiB` or `1GiB`. In a TEE only what is shared with the host is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<Size>,
    /// The NUMA node that all memory comes from, and on whose processors all vCPUs run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Several such nodes, for a guest that has as many itself: each gets an even part of memory and vCPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numa_nodes: Vec<u32>,
}

impl Host {
    /// The host's NUMA nodes that the guest is bound to; none where it is bound to none.
    pub fn nodes(&self) -> Vec<u32> {
        self.numa_node.into_iter().chain(self.numa_nodes.iter().copied()).collect()
    }

    /// The vCPUs of each of these nodes: the first, and the one after the last.
    pub fn node_vcpus(&self, vcpus: u32) -> Vec<(u32, u32)> {
        let count = u32::try_from(self.nodes().len()).unwrap_or(u32::MAX);
        (0..count).map(|number| (vcpus * number / count, vcpus * (number + 1) / count)).collect()
    }
}

/// Which accelerator runs a guest without a TEE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM where it can run the guest, else TCG, saying so.
    #[default]
    Auto,
    /// KVM only.
    Kvm,
    /// TCG only: slow, works everywhere.
    Tcg,
}

fn one() -> u32 {
    1
}

/// Whether `name` can name an image or a VM.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=48).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

/// Most vCPUs of a guest.
pub const MAX_VCPUS: u32 = 512;
/// Longest `ready_timeout_s` and `stop_timeout_s`: a day. What is meant to wait for longer waits for ever.
pub const MAX_TIMEOUT_S: u64 = 86_400;

impl Vm {
    /// How the vCPUs are arranged: as the description says, else with a socket for each NUMA node of the guest.
    pub fn arrangement(&self) -> Topology {
        let sockets = u32::try_from(self.host.numa_nodes.len()).unwrap_or(u32::MAX).max(1);
        self.topology.unwrap_or(Topology { sockets, ..Topology::default() })
    }

    /// Reads and checks a VM description; `file` is used in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, SyntaxError> {
        let vm: Self = from_toml(file, text)?;
        let refuse = |key: &str, message: String| Err(SyntaxError::at(file, text, key, message));
        if vm.schema != 1 {
            return refuse("schema", format!("schema {} is not known: this program reads schema 1", vm.schema));
        }
        if !is_name(&vm.name) {
            return refuse(
                "name",
                format!(
                    "\"{}\" cannot name a VM: use up to 48 lower-case letters, digits and hyphens, starting with a letter",
                    vm.name
                ),
            );
        }
        if vm.image.is_empty() {
            return refuse("image", "image is empty: name an image directory".to_owned());
        }
        if !(1..=MAX_VCPUS).contains(&vm.vcpus) {
            return refuse("vcpus", format!("vcpus is {}: use 1 to {MAX_VCPUS}", vm.vcpus));
        }
        if let Some(topology) = vm.topology.filter(|topology| topology.cores(vm.vcpus).is_none()) {
            let Topology { sockets, threads } = topology;
            return refuse(
                "topology",
                format!("{} vCPUs cannot be {sockets} sockets of cores with {threads} threads each", vm.vcpus),
            );
        }
        if vm.memory.whole_mib().is_none_or(|mib| mib < 128) {
            return refuse("memory", format!("memory is {}: use a whole number of MiB, at least 128MiB", vm.memory));
        }
        if let Some(cpu) = vm
            .cpu
            .as_deref()
            .filter(|cpu| cpu.is_empty() || !cpu.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._".contains(&c)))
        {
            return refuse("cpu", format!("\"{cpu}\" is not a CPU model as QEMU names it"));
        }
        if vm.tee == Tee::Tdx && vm.cpu.as_deref().is_some_and(|cpu| cpu != "host") {
            return refuse("cpu", "TDX guests run on the host's CPU model only: leave cpu out".to_owned());
        }
        if vm.tee == Tee::Snp && vm.boot == Boot::Disk {
            let message = "a SEV-SNP launch digest covers the kernel that QEMU is given, and no disk: leave boot out";
            return refuse("boot", message.to_owned());
        }
        if vm.tee != Tee::None && vm.host.accelerator != Accelerator::Auto {
            return refuse("accelerator", format!("a {} guest needs KVM: leave accelerator out", vm.tee));
        }
        if let Some(key) = vm.policy_of_another_tee() {
            return refuse(key, format!("[{key}] says nothing about a guest with tee = \"{}\": leave it out", vm.tee));
        }
        let host = &vm.host;
        let fault = network::fault(&host.nics)
            .or_else(|| network::vsock_fault(host.vsock))
            .or_else(|| lifecycle::fault(host.restart, host.log, host.watchdog_s))
            .or_else(|| limits::fault(host.limits, vm.memory, vm.vcpus))
            .or_else(|| placement::fault(&host.pci))
            .or_else(|| placement::memory_fault(host, vm.memory))
            .or_else(|| placement::nodes_fault(&vm));
        if let Some((key, message)) = fault {
            return refuse(key, message);
        }
        let timeouts = [
            ("ready_timeout_s", vm.host.ready_timeout_s),
            ("stop_timeout_s", vm.host.stop_timeout_s),
            ("watchdog_s", vm.host.watchdog_s),
        ];
        for (key, seconds) in timeouts {
            if let Some(seconds) = seconds.filter(|seconds| *seconds > MAX_TIMEOUT_S) {
                return refuse(key, format!("{key} is {seconds}: use at most {MAX_TIMEOUT_S}, which is a day"));
            }
        }
        if let Some(hostname) = vm.guest.hostname.as_deref().filter(|name| !is_hostname(name)) {
            return refuse(
                "hostname",
                format!("\"{hostname}\" is not a host name: use up to 63 letters, digits and hyphens"),
            );
        }
        let size = vm.guest.canonical_bytes().map_or(usize::MAX, |json| json.len());
        if size > MAX_BYTES {
            return refuse("guest", format!("[guest] is {size} bytes of canonical JSON: the limit is {MAX_BYTES}"));
        }
        if let Some((key, _)) = vm.guest.environment.iter().find(|(_, value)| value.contains('\0')) {
            return refuse(key, format!("the value of \"{key}\" has a NUL character"));
        }
        if let Some(key) = vm.guest.environment.keys().find(|key| !is_variable(key)) {
            return refuse(key, format!("\"{key}\" is not the name of an environment variable"));
        }
        if vm.guest.network.is_some() && vm.host.nics.is_empty() {
            return refuse(
                "network",
                "[guest.network] is of a NIC that the guest lacks: add a [[host.nic]]".to_owned(),
            );
        }
        let fault = vm.guest.fault().or_else(|| volume::host_fault(&vm.guest.volumes, &vm.host.volumes, &vm.host.pci));
        if let Some((key, message)) = fault {
            return refuse(&key, message);
        }
        Ok(vm)
    }

    /// The policy of a TEE that this guest does not run in.
    fn policy_of_another_tee(&self) -> Option<&'static str> {
        let given = [("snp", Tee::Snp, self.snp.is_some()), ("tdx", Tee::Tdx, self.tdx.is_some())];
        given.into_iter().find(|(_, tee, given)| *given && *tee != self.tee).map(|(key, ..)| key)
    }

    /// The CPU model, with the TEE's default where none was given.
    pub fn cpu_model(&self) -> &str {
        self.cpu.as_deref().unwrap_or(match self.tee {
            Tee::Snp => "EPYC-v4",
            Tee::Tdx => "host",
            Tee::None => "max",
        })
    }
}

/// Whether `name` can be a host name: 1 to 63 letters, digits and hyphens, no hyphen at either end.
pub fn is_hostname(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

fn is_variable(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}
