//! Where on its host a guest runs: huge pages, NUMA node, and PCI devices that are passed to it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Host, Vm};
use crate::pci::PciAddress;
use crate::size::Size;

/// Most PCI functions that are passed to a guest: one root port each.
pub const MAX_PCI: usize = 16;
/// Highest NUMA node that a host can have (CONFIG_NODES_SHIFT is at most 10).
const MAX_NODE: u32 = 1023;
/// Most NUMA nodes of a guest.
const MAX_GUEST_NODES: usize = 8;

/// A PCI function that is passed to the guest as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PciDevice {
    /// Its address with the domain, `0000:c1:00.0`, as `lspci -D` prints it. Empty where a kind is named, until one is chosen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// What it is, instead of where: the first free function of the kind is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<PciKind>,
    /// Of a GPU: the beginning of its product's name, such as `H100`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The guest's volume that is on it, of an NVMe controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Whether such a volume may go over what the drive says it holds: a file system, a partition table. What is there is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dangerously_overwrite: bool,
}

/// What a PCI function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PciKind {
    /// An NVMe controller, with all its namespaces.
    Nvme,
    /// An NVIDIA GPU.
    Gpu,
    /// An NVIDIA NVSwitch.
    Nvswitch,
    /// A network controller.
    Network,
}

impl PciKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nvme => "nvme",
            Self::Gpu => "gpu",
            Self::Nvswitch => "nvswitch",
            Self::Network => "network",
        }
    }
}

impl PciDevice {
    /// The function at an address.
    pub fn at(address: &str) -> Self {
        Self { address: address.to_owned(), ..Self::default() }
    }

    /// Where it is, or what it is: for people.
    pub fn label(&self) -> String {
        match (self.kind, &self.model) {
            (Some(kind), Some(model)) if self.address.is_empty() => format!("one {} {model}", kind.as_str()),
            (Some(kind), None) if self.address.is_empty() => format!("one {}", kind.as_str()),
            _ => self.address.clone(),
        }
    }
}

/// What is wrong with the placement: the key it is about, and why.
pub(super) fn fault(pci: &[PciDevice]) -> Option<(&'static str, String)> {
    if pci.len() > MAX_PCI {
        return Some(("pci", format!("there are {} PCI devices: use at most {MAX_PCI}", pci.len())));
    }
    let mut seen = BTreeSet::new();
    for PciDevice { address, kind, model, volume, dangerously_overwrite } in pci {
        if *dangerously_overwrite && volume.is_none() {
            let message = "dangerously_overwrite is for a drive that a volume is on: say `volume`, or leave it out";
            return Some(("dangerously_overwrite", message.to_owned()));
        }
        if kind.is_some() {
            if !address.is_empty() {
                return Some(("kind", format!("{address} has a kind already: name an address or a kind")));
            }
            if volume.is_some() && *kind != Some(PciKind::Nvme) {
                return Some(("kind", "a volume is on a function with kind = \"nvme\", or at an address".to_owned()));
            }
            if model.is_some() && *kind != Some(PciKind::Gpu) {
                return Some(("model", "only GPUs are chosen by model".to_owned()));
            }
            continue;
        }
        if model.is_some() {
            return Some(("model", "model goes with kind = \"gpu\"".to_owned()));
        }
        if !is_pci_address(address) {
            return Some(("address", format!("\"{address}\" is not a PCI address: write it like 0000:c1:00.0")));
        }
        if !seen.insert(address) {
            return Some(("address", format!("{address} is named twice")));
        }
    }
    None
}

/// What is wrong with where memory comes from.
pub(super) fn memory_fault(host: &Host, memory: Size) -> Option<(&'static str, String)> {
    let size = host.huge_pages?;
    if ![2, 1024].contains(&size.whole_mib().unwrap_or(0)) {
        return Some(("huge_pages", format!("huge_pages is {size}: this processor has 2MiB and 1GiB")));
    }
    if !memory.bytes.is_multiple_of(size.bytes) {
        return Some(("huge_pages", format!("memory is {memory}: it is not a whole number of pages of {size}")));
    }
    None
}

/// What is wrong with the NUMA nodes.
pub(super) fn nodes_fault(vm: &Vm) -> Option<(&'static str, String)> {
    let host = &vm.host;
    if let Some(node) = host.numa_node.filter(|node| *node > MAX_NODE) {
        return Some(("numa_node", format!("numa_node is {node}: use at most {MAX_NODE}")));
    }
    let nodes = &host.numa_nodes;
    let refuse = |message: String| Some(("numa_nodes", message));
    if nodes.is_empty() {
        return None;
    }
    if host.numa_node.is_some() {
        return refuse("numa_node and numa_nodes say the same: leave one of them out".to_owned());
    }
    if !(2..=MAX_GUEST_NODES).contains(&nodes.len()) {
        return refuse(format!(
            "numa_nodes names {} of them: use 2 to {MAX_GUEST_NODES}, or numa_node for one",
            nodes.len()
        ));
    }
    if let Some(node) = nodes.iter().find(|node| **node > MAX_NODE) {
        return refuse(format!("{node} is no NUMA node: use at most {MAX_NODE}"));
    }
    let mut seen = BTreeSet::new();
    if let Some(node) = nodes.iter().find(|node| !seen.insert(**node)) {
        return refuse(format!("NUMA node {node} is named twice"));
    }
    let count = nodes.len() as u64;
    let page_mib = host.huge_pages.and_then(Size::whole_mib).unwrap_or(1);
    if !vm.memory.whole_mib().is_some_and(|mib| mib.is_multiple_of(count * page_mib)) {
        return refuse(format!(
            "{} cannot be divided evenly among {count} nodes in pages of {page_mib} MiB",
            vm.memory
        ));
    }
    if !u64::from(vm.vcpus).is_multiple_of(count) {
        return refuse(format!("{} vCPUs cannot be divided evenly among {count} nodes", vm.vcpus));
    }
    let sockets = vm.arrangement().sockets;
    (!u64::from(sockets).is_multiple_of(count))
        .then(|| ("topology", format!("{sockets} sockets cannot be divided evenly among {count} NUMA nodes")))
}

/// Whether it is an address as it prints itself: with the domain, in lower case.
fn is_pci_address(text: &str) -> bool {
    text.parse::<PciAddress>().is_ok_and(|address| address.to_string() == text)
}
