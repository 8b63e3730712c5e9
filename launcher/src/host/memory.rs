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
    /// What is free.
    pub free_mib: u64,
    /// Its CPUs, as the kernel lists them.
    pub cpus: String,
    /// Huge pages by size in KiB: how many there are and how many are free.
    pub huge_pages: BTreeMap<u64, (u64, u64)>,
}

impl Memory {
    pub(super) fn read(root: &Path) -> Self {
        let info = read_trimmed(&root.join("proc/meminfo")).unwrap_or_default();
        let directory = root.join("sys/devices/system/node");
        let nodes = names(&directory).into_iter().filter_map(|name| {
            let number = name.strip_prefix("node")?.parse().ok()?;
            Some((number, Node::read(&directory.join(name))))
        });
        Self { available_mib: kib(&info, "MemAvailable:") >> 10, nodes: nodes.collect() }
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
