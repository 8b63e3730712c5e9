//! Where on its host a guest runs: huge pages, NUMA node, and PCI devices that are passed to it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;
use crate::size::Size;

/// Most PCI functions that are passed to a guest: one root port each.
pub const MAX_PCI: usize = 16;
/// Highest NUMA node that a host can have (CONFIG_NODES_SHIFT is at most 10).
const MAX_NODE: u32 = 1023;

/// A PCI function that is passed to the guest as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PciDevice {
    /// Its address with the domain, `0000:c1:00.0`, as `lspci -D` prints it.
    pub address: String,
}

/// What is wrong with the placement: the key it is about, and why.
pub(super) fn fault(
    pci: &[PciDevice],
    huge_pages: Option<Size>,
    memory: Size,
    node: Option<u32>,
) -> Option<(&'static str, String)> {
    if pci.len() > MAX_PCI {
        return Some(("pci", format!("there are {} PCI devices: use at most {MAX_PCI}", pci.len())));
    }
    let mut seen = BTreeSet::new();
    for PciDevice { address } in pci {
        if !is_pci_address(address) {
            return Some(("address", format!("\"{address}\" is not a PCI address: write it like 0000:c1:00.0")));
        }
        if !seen.insert(address) {
            return Some(("address", format!("{address} is named twice")));
        }
    }
    if let Some(size) = huge_pages {
        if ![2, 1024].contains(&size.whole_mib().unwrap_or(0)) {
            return Some(("huge_pages", format!("huge_pages is {size}: this processor has 2MiB and 1GiB")));
        }
        if !memory.bytes.is_multiple_of(size.bytes) {
            return Some(("huge_pages", format!("memory is {memory}: it is not a whole number of pages of {size}")));
        }
    }
    node.filter(|node| *node > MAX_NODE)
        .map(|node| ("numa_node", format!("numa_node is {node}: use at most {MAX_NODE}")))
}

/// Whether it is an address as it prints itself: with the domain, in lower case.
fn is_pci_address(text: &str) -> bool {
    text.parse::<PciAddress>().is_ok_and(|address| address.to_string() == text)
}
