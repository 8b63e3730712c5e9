//! A guest's memory: one object, or one for each of its NUMA nodes, with the vCPUs that are near.
//!
//! A guest has nodes where its description names several of the host's; passed functions are near none of them. A host bridge for each
//! node (`pxb-pcie`) would say where they are, and name the addresses of their BARs in the ACPI tables, so that RTMR0 would be that of
//! one host's devices.

use super::CommandLine;
use super::arguments::{Arguments, Properties};

impl CommandLine<'_> {
    /// Whether memory is an object of its own, which it is not without need.
    fn has_memory_object(&self) -> bool {
        self.tee().shared_memory() || self.host.huge_pages.is_some() || !self.host.nodes().is_empty()
    }

    /// The property of the machine that names its memory. Nodes have theirs each.
    pub(super) fn with_memory(&self, machine: Properties) -> Properties {
        let one = self.has_memory_object() && self.host.numa_nodes.is_empty();
        if one { machine.with("memory-backend", "ram") } else { machine }
    }

    /// The memory objects, and the nodes that they belong to.
    pub(super) fn memory(&self, arguments: &mut Arguments) {
        let mib = self.shape.memory_mib;
        arguments.option("-m", Properties::of(&format!("{mib}M")));
        let nodes = self.host.nodes();
        let [_, _, ..] = nodes[..] else {
            if self.has_memory_object() {
                arguments.option("-object", self.memory_object("ram", mib, nodes.first().copied()));
            }
            return;
        };
        let part = mib / nodes.len() as u64;
        let vcpus = self.host.node_vcpus(self.shape.vcpus);
        for (number, (node, (first, next))) in nodes.into_iter().zip(vcpus).enumerate() {
            let name = format!("ram{number}");
            arguments.option("-object", self.memory_object(&name, part, Some(node)));
            let node = Properties::of("node").with("nodeid", &number.to_string()).with("memdev", &name);
            arguments.option("-numa", node.with("cpus", &format!("{first}-{}", next.saturating_sub(1))));
        }
    }

    fn memory_object(&self, name: &str, mib: u64, node: Option<u32>) -> Properties {
        let memory = Properties::of("memory-backend-memfd").with("id", name).with("size", &format!("{mib}M"));
        let memory = memory.with("share", "on");
        // Pages that are not there when the guest touches them kill QEMU: they are taken at the start.
        let memory = match self.host.huge_pages.and_then(spec::size::Size::whole_mib) {
            Some(mib) => memory.with("prealloc", "on").with("hugetlb", "on").with("hugetlbsize", &format!("{mib}M")),
            None => memory.with("prealloc", "off"),
        };
        match node {
            // A machine that is asked about has no part of the host.
            Some(node) if !self.stand_in => memory.with("host-nodes", &node.to_string()).with("policy", "bind"),
            _ => memory,
        }
    }
}
