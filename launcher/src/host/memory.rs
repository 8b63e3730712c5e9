//! Memory and huge pages, by NUMA node.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{names, read_trimmed};

/// The host's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What can be had without swapping, over all nodes (`MemAvailable`).
    pub available_mib: u64,
    /// The nodes, by number.
    pub nodes: BTreeMap<u32, Node>,
}

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Node {
    /// All of its memory.
    pub total_mib: u64,
    /// What nobody uses, not even a cache.
    pub free_mib: u64,
    /// What can be had without swapping: what is free, and what the kernel gives up of its caches for whoever asks.
    pub available_mib: u64,
    /// Its CPUs, as the kernel lists them.
    pub cpus: String,
    /// Huge pages by size in KiB: how many there are and how many are free.
    pub huge_pages: BTreeMap<u64, (u64, u64)>,
}

/// What can be had of a node: its free memory, the cache of files, and what the kernel keeps of their names
/// (Linux Documentation/filesystems/proc.rst, "meminfo").
const AVAILABLE: [&str; 4] = ["MemFree:", "Active(file):", "Inactive(file):", "SReclaimable:"];

impl Memory {
    pub(super) fn read(root: &Path) -> Self {
        let info = read_trimmed(&root.join("proc/meminfo")).unwrap_or_default();
        let directory = root.join("sys/devices/system/node");
        let nodes = names(&directory).into_iter().filter_map(|name| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            Some((number, Node::read(&directory.join(name))))
        });
        let mut memory = Self { available_mib: kib(&info, "MemAvailable:") >> 10, nodes: nodes.collect() };
        memory.keep_what_the_kernel_keeps();
        memory
    }

    /// For no node the kernel says what it says for all of them: how much it would not give away. Each has its share of that.
    fn keep_what_the_kernel_keeps(&mut self) {
        let sum = |of: fn(&Node) -> u64| self.nodes.values().map(of).sum::<u64>();
        let (total, available) = (sum(|node| node.total_mib), sum(|node| node.available_mib));
        let kept = available.saturating_sub(self.available_mib);
        for node in self.nodes.values_mut() {
            let share = (kept * node.total_mib).div_ceil(total.max(1));
            node.available_mib = node.available_mib.saturating_sub(share);
        }
    }

    /// Free huge pages of a size over all nodes.
    pub fn free_huge_pages(&self, size_kib: u64) -> u64 {
        self.nodes.values().map(|node| node.free_huge_pages(size_kib)).sum()
    }
}

impl Node {
    fn read(directory: &Path) -> Self {
        let info = read_trimmed(&directory.join("meminfo")).unwrap_or_default();
        let pages = directory.join("hugepages");
        let huge_pages = names(&pages).into_iter().filter_map(|name| {
            let size = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let number = |file: &str| {
                read_trimmed(&pages.join(&name).join(file)).and_then(|text| text.parse().ok()).unwrap_or(0)
            };
            Some((size, (number("nr_hugepages"), number("free_hugepages"))))
        });
        Self {
            total_mib: kib(&info, "MemTotal:") >> 10,
            free_mib: kib(&info, "MemFree:") >> 10,
            available_mib: AVAILABLE.iter().map(|key| kib(&info, key)).sum::<u64>() >> 10,
            cpus: read_trimmed(&directory.join("cpulist")).unwrap_or_default(),
            huge_pages: huge_pages.collect(),
        }
    }

    /// Free huge pages of a size.
    pub fn free_huge_pages(&self, size_kib: u64) -> u64 {
        self.huge_pages.get(&size_kib).map_or(0, |(_, free)| *free)
    }
}

/// The number of KiB in the line that has `key` among its words.
fn kib(text: &str, key: &str) -> u64 {
    let line = text.lines().find(|line| line.split_whitespace().any(|word| word == key));
    let mut words = line.unwrap_or_default().split_whitespace().skip_while(|word| *word != key);
    words.nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A host with two nodes, of 1 GiB and 3 GiB: free, file caches and reclaimable of each in MiB, and `MemAvailable`.
    fn host(nodes: [[u64; 4]; 2], available_mib: u64) -> Memory {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: String| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/meminfo", format!("MemTotal: 4194304 kB\nMemAvailable: {} kB\n", available_mib << 10));
        for (number, [free, active, inactive, reclaimable]) in nodes.into_iter().enumerate() {
            let total = [1 << 20, 3 << 20][number];
            let [free, active, inactive, reclaimable] = [free, active, inactive, reclaimable].map(|mib| mib << 10);
            let text = format!(
                "Node {number} MemTotal: {total} kB\nNode {number} MemFree: {free} kB\nNode {number} Active: 999999 kB\n\
                 Node {number} Active(file): {active} kB\nNode {number} Inactive(file): {inactive} kB\n\
                 Node {number} SReclaimable: {reclaimable} kB\n"
            );
            write(&format!("sys/devices/system/node/node{number}/meminfo"), text);
        }
        Memory::read(root.path())
    }

    #[test]
    fn caches_of_a_node_are_to_be_had_but_for_what_the_kernel_keeps() {
        let of = |memory: &Memory| memory.nodes.values().map(|node| node.available_mib).collect::<Vec<_>>();
        let nodes = [[100, 300, 200, 50], [1000, 0, 400, 10]];
        assert_eq!(of(&host(nodes, 2060)), [650, 1410]);
        // 40 MiB less: a quarter of it is the smaller node's.
        assert_eq!(of(&host(nodes, 2020)), [640, 1380]);
        assert_eq!(of(&host(nodes, 0)), [135, 0], "never less than nothing");
        // A kernel that says nothing of caches.
        assert_eq!(of(&host([[100, 0, 0, 0], [1000, 0, 0, 0]], 2000)), [100, 1000]);
    }
}
