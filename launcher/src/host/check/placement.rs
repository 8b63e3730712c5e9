//! Whether the memory a VM asks for is where it asks for it: huge pages, and a NUMA node's own.

use super::{Line, Needs, Scope};

pub(super) fn lines(scope: &Scope<'_>) -> Vec<Line> {
    let Some(needs) = scope.needs else { return Vec::new() };
    let mut lines = Vec::new();
    lines.extend(needs.numa_nodes.iter().map(|node| numa(scope, needs, *node)));
    if let Some(size) = needs.huge_page_mib.filter(|size| *size > 0) {
        if needs.numa_nodes.is_empty() {
            lines.push(huge_pages(scope, needs, size, None));
        }
        lines.extend(needs.numa_nodes.iter().map(|node| huge_pages(scope, needs, size, Some(*node))));
    }
    lines
}

fn numa(scope: &Scope<'_>, needs: &Needs, number: u32) -> Line {
    let nodes = &scope.facts.memory.nodes;
    let Some(node) = nodes.get(&number) else {
        let known: Vec<_> = nodes.keys().map(u32::to_string).collect();
        return Line::missing("numa node", true, format!("there is no NUMA node {number}"))
            .because(format!("this host has the nodes {}", known.join(", ")))
            .remedy(format!("name one of them in `{}`, or leave it out", needs.nodes_key()));
    };
    let found =
        format!("node {number} has {} of {} MiB available, CPUs {}", node.available_mib, node.total_mib, node.cpus);
    let wanted = needs.memory_of_a_node();
    if needs.huge_page_mib.is_none() && node.available_mib < wanted {
        return Line::missing("numa node", true, found)
            .because(format!("the VM takes {wanted} MiB from there alone"))
            .remedy(format!("name another node, or leave `{}` out", needs.nodes_key()));
    }
    Line::ok("numa node", found)
}

fn huge_pages(scope: &Scope<'_>, needs: &Needs, size_mib: u64, node: Option<u32>) -> Line {
    let (memory, size_kib) = (&scope.facts.memory, size_mib << 10);
    let wanted = needs.memory_of_a_node().div_ceil(size_mib);
    let (free, place) = match node {
        Some(node) => {
            let free = memory.nodes.get(&node).map_or(0, |found| found.free_huge_pages(size_kib));
            (free, format!("/sys/devices/system/node/node{node}"))
        }
        None => (memory.free_huge_pages(size_kib), "/sys/kernel/mm".to_owned()),
    };
    let at = node.map(|node| format!(" on node {node}")).unwrap_or_default();
    let found = format!("{free} huge pages of {size_mib} MiB are free{at}");
    if free < wanted {
        return Line::missing("huge pages", true, found)
            .because(format!("the VM needs {wanted}"))
            .remedy(format!(
                "echo {} > {place}/hugepages/hugepages-{size_kib}kB/nr_hugepages, soon after the host was booted",
                all(scope, node, size_kib) + wanted - free
            ))
            .see("Linux Documentation/admin-guide/mm/hugetlbpage.rst");
    }
    Line::ok("huge pages", found)
}

/// How many there are, taken or not.
fn all(scope: &Scope<'_>, node: Option<u32>, size_kib: u64) -> u64 {
    let nodes = scope.facts.memory.nodes.iter().filter(|(number, _)| node.is_none_or(|node| node == **number));
    nodes.filter_map(|(_, found)| found.huge_pages.get(&size_kib)).map(|(all, _)| *all).sum()
}
