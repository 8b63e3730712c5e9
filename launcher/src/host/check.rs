//! Facts into judgements: what of this host stands in the way of a guest, why, and what to do about it.
//!
//! Pure: the same facts give the same lines. Without a VM, what a host of this kind should offer (SEV-SNP on a processor that
//! has it, TDX likewise) is a refusal where it does not, everything else a warning. With a VM, what that VM needs is a
//! refusal, and what it does not need is not mentioned unless it is in order.

mod base;
mod devices;
mod drives;
mod placement;
mod snp;
mod tdx;

pub(in crate::host) use devices::obstacle;
pub use drives::Drive;
pub(in crate::host) use drives::unfit;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use spec::Tee;
use spec::vm::Vm;

use super::HostFacts;
use crate::qemu::Features;

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// In order.
    Ok,
    /// Guests that need this are refused, or run worse.
    Warning,
    /// A guest that is wanted here will be refused.
    Refusal,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at: a short name that stays the same.
    pub topic: &'static str,
    /// The judgement.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// Why that stands in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Where it is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<&'static str>,
    /// Whether `bullion host prepare` mends it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prepare_mends: bool,
}

impl Line {
    pub(in crate::host) fn ok(topic: &'static str, found: impl Into<String>) -> Self {
        Self {
            topic,
            status: Status::Ok,
            found: found.into(),
            cause: None,
            remedy: None,
            reference: None,
            prepare_mends: false,
        }
    }

    /// Something in the way: a refusal where it is needed, else a warning.
    pub(in crate::host) fn missing(topic: &'static str, needed: bool, found: impl Into<String>) -> Self {
        let status = if needed { Status::Refusal } else { Status::Warning };
        Self { status, ..Self::ok(topic, found) }
    }

    pub(in crate::host) fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub(in crate::host) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn see(mut self, reference: &'static str) -> Self {
        self.reference = Some(reference);
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Refusal => "refusal",
        };
        write!(f, "{status:<8} {:<14} {}", self.topic, self.found)?;
        let more = [("cause", self.cause.as_deref()), ("remedy", self.remedy.as_deref()), ("see", self.reference)];
        for (name, text) in more {
            if let Some(text) = text {
                write!(f, "\n{:<24}{name}: {text}", "")?;
            }
        }
        if self.prepare_mends {
            write!(f, "\n{:<24}`bullion host prepare` mends this", "")?;
        }
        Ok(())
    }
}

/// What a VM needs of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Its TEE.
    pub tee: Tee,
    /// Whether only KVM will do.
    pub kvm: bool,
    /// Its memory.
    pub memory_mib: u64,
    /// Its vCPUs.
    pub vcpus: u32,
    /// PCI functions that are passed to it, by address.
    pub pci: Vec<String>,
    /// Those of them that volumes are on.
    pub drives: Vec<Drive>,
    /// The GPUs that its measured configuration names.
    pub gpus: Option<spec::gpus::Gpus>,
    /// The size of its huge pages.
    pub huge_page_mib: Option<u64>,
    /// The NUMA nodes it is bound to.
    pub numa_nodes: Vec<u32>,
    /// Whether it has a vsock.
    pub vsock: bool,
    /// Whether it has a NIC on a bridge.
    pub bridged: bool,
}

impl Needs {
    /// The key of the description that names its nodes.
    fn nodes_key(&self) -> &'static str {
        if self.numa_nodes.len() > 1 { "numa_nodes" } else { "numa_node" }
    }

    /// How much of its memory comes from each node that it is bound to; all of it where there is one, or none.
    pub(in crate::host) fn memory_of_a_node(&self) -> u64 {
        self.memory_mib / (self.numa_nodes.len() as u64).max(1)
    }

    /// The needs of a VM.
    pub fn of(vm: &Vm) -> Self {
        Self {
            tee: vm.tee,
            kvm: vm.tee != Tee::None || vm.host.accelerator == spec::vm::Accelerator::Kvm,
            memory_mib: vm.memory.whole_mib().unwrap_or(0),
            vcpus: vm.vcpus,
            pci: vm.host.pci.iter().map(|device| device.address.clone()).collect(),
            drives: vm.host.pci.iter().filter_map(Drive::of).collect(),
            gpus: vm.guest.gpus.clone(),
            huge_page_mib: vm.host.huge_pages.and_then(spec::size::Size::whole_mib),
            numa_nodes: vm.host.nodes(),
            vsock: vm.host.vsock.is_some(),
            bridged: vm.host.nics.iter().any(|nic| nic.bridge.is_some()),
        }
    }
}

/// The QEMU that would be run.
#[derive(Clone, Copy, Debug)]
pub enum Qemu<'a> {
    /// It can be run, and said what it can do.
    Known(&'a Features),
    /// The pinned one is not in the cache.
    NotFetched,
    /// It cannot be run.
    Unusable(&'a str),
}

/// Judges a host, by itself or for a VM.
pub fn check(facts: &HostFacts, qemu: Qemu<'_>, needs: Option<&Needs>) -> Vec<Line> {
    let scope = Scope { facts, needs };
    let mut lines = base::lines(&scope, qemu);
    if scope.considers(Tee::Snp) {
        lines.extend(snp::lines(&scope));
    }
    if scope.considers(Tee::Tdx) {
        lines.extend(tdx::lines(&scope));
    }
    lines.extend(devices::lines(&scope));
    lines.extend(placement::lines(&scope));
    lines
}

/// Marks the lines that are in order on the host `prepared`, which is this one after `prepare`.
pub fn mark_mended(lines: &mut [Line], prepared: &[Line]) {
    let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
    for line in lines {
        let count = seen.entry(line.topic).or_default();
        let after = prepared.iter().filter(|after| after.topic == line.topic).nth(*count);
        *count += 1;
        line.prepare_mends = line.status != Status::Ok && after.is_some_and(|after| after.status == Status::Ok);
    }
}

/// The first thing that stands in the way of what a VM asks for beyond its TEE: placement and devices. What decides about the TEE
/// itself is asked first, by `HostFacts::supports`.
pub(crate) fn unmet(facts: &HostFacts, vm: &Vm) -> Option<Line> {
    let needs = Needs::of(vm);
    let scope = Scope { facts, needs: Some(&needs) };
    let lines = devices::lines(&scope).into_iter().chain(placement::lines(&scope));
    lines.into_iter().find(|line| line.status == Status::Refusal)
}

/// The worst of the lines.
pub fn worst(lines: &[Line]) -> Status {
    lines.iter().map(|line| line.status).max().unwrap_or(Status::Ok)
}

/// What is judged, and for whom.
struct Scope<'a> {
    facts: &'a HostFacts,
    needs: Option<&'a Needs>,
}

impl Scope<'_> {
    /// Whether guests in `tee` are wanted here: by the VM, or because the host is made for them.
    fn wants(&self, tee: Tee) -> bool {
        match self.needs {
            Some(needs) => needs.tee == tee,
            None => self.is_made_for(tee),
        }
    }

    fn is_made_for(&self, tee: Tee) -> bool {
        let cpu = &self.facts.cpu;
        match tee {
            Tee::None => true,
            Tee::Snp => cpu.is_amd() && cpu.has_snp && !cpu.is_virtual,
            Tee::Tdx => cpu.may_have_tdx() && !cpu.is_virtual,
        }
    }

    /// Whether `tee` is worth lines at all.
    fn considers(&self, tee: Tee) -> bool {
        match self.needs {
            Some(needs) => needs.tee == tee,
            None if tee == Tee::Snp => self.facts.cpu.is_amd(),
            None => self.facts.cpu.vendor == "GenuineIntel",
        }
    }

    /// Whether the kernel is at least of that version.
    fn kernel_is(&self, version: (u32, u32)) -> bool {
        self.facts.kernel.version() >= version
    }
}
