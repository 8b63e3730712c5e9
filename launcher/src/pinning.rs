//! vCPUs on the processors of the NUMA node that their memory is on.
//!
//! QEMU says which thread is which vCPU (QMP `query-cpus-fast`), by the numbers that threads have in its own namespace of processes;
//! the kernel says which of its threads has which number there (proc(5), `NSpid`).

use std::fmt;
use std::fs;
use std::io;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;
use spec::vm::Vm;

use crate::host::HostFacts;

/// The QMP command whose reply [`pin`] understands.
pub(crate) const QUESTION: &str = "query-cpus-fast";

/// Where some vCPUs run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The first vCPU, and the one after the last.
    pub vcpus: (u32, u32),
    /// The NUMA node.
    pub node: u32,
    /// Its processors, as the kernel lists them.
    pub cpus: String,
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.vcpus.0, self.vcpus.1.saturating_sub(1));
        let rest = if last > first { format!(" to {last}") } else { String::new() };
        write!(f, "{first}{rest} on the processors {} of NUMA node {}", self.cpus, self.node)
    }
}

/// Where the vCPUs of a VM run: nowhere in particular where it is bound to no node.
pub(crate) fn of(vm: &Vm, facts: &HostFacts) -> Vec<Pinned> {
    let pinned = |(node, vcpus)| {
        let cpus = facts.memory.nodes.get(&node).map(|node| node.cpus.clone()).filter(|cpus| !cpus.is_empty())?;
        Some(Pinned { vcpus, node, cpus })
    };
    vm.host.nodes().into_iter().zip(vm.host.node_vcpus(vm.vcpus)).filter_map(pinned).collect()
}

/// Keeps the vCPU threads of the process `qemu` to their processors. `answer` is what QEMU said to [`QUESTION`].
pub(crate) fn pin(pinned: &[Pinned], qemu: u32, answer: &Value) -> io::Result<()> {
    let threads = threads(qemu)?;
    let number =
        |vcpu: &Value, key: &str| vcpu.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    for vcpu in answer.as_array().into_iter().flatten() {
        let (Some(index), Some(inside)) = (number(vcpu, "cpu-index"), number(vcpu, "thread-id")) else { continue };
        let Some(place) = pinned.iter().find(|place| (place.vcpus.0..place.vcpus.1).contains(&index)) else { continue };
        let Some((thread, _)) = threads.iter().find(|(_, known)| *known == inside) else {
            return Err(io::Error::other(format!("QEMU has no thread {inside}")));
        };
        sched_setaffinity(*thread, &set(&place.cpus)?)?;
    }
    Ok(())
}

/// The threads of a process: their numbers here, and in its own namespace.
fn threads(process: u32) -> io::Result<Vec<(Pid, u32)>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile is no vCPU.
        let Ok(status) = fs::read_to_string(format!("/proc/{process}/task/{thread}/status")) else { continue };
        let inside =
            status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last()?.parse().ok());
        threads.extend(inside.map(|inside| (Pid::from_raw(thread), inside)));
    }
    Ok(threads)
}

/// The processors in a list of the kernel, such as `0-15,32-47`.
fn set(list: &str) -> io::Result<CpuSet> {
    let unreadable = || io::Error::other(format!("\"{list}\" is no list of processors"));
    let mut set = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| unreadable());
        let last = number(last).ok().filter(|last| *last < CpuSet::count()).ok_or_else(unreadable)?;
        for cpu in number(first)?..=last {
            set.set(cpu)?;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use nix::sched::sched_getaffinity;
    use serde_json::json;

    use super::*;

    #[test]
    fn processors_are_read_as_the_kernel_lists_them() {
        let has = |list: &str| (0..8).filter(|cpu| set(list).unwrap().is_set(*cpu).unwrap()).collect::<Vec<_>>();
        assert_eq!(has("0-2,5,7"), [0, 1, 2, 5, 7]);
        assert_eq!(has("3"), [3]);
        for list in ["", "a", "1-", "0-99999999999", "4096-5000"] {
            assert!(set(list).is_err(), "{list}");
        }
    }

    #[test]
    fn a_thread_is_kept_to_the_processors_of_its_node() {
        let mine = fs::read_to_string("/proc/thread-self/status").unwrap();
        let field = |key: &str| mine.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        let allowed = field("Cpus_allowed_list:");
        let first = allowed.split([',', '-']).next().unwrap().to_owned();
        let thread: u32 = field("NSpid:").split_whitespace().last().unwrap().parse().unwrap();
        let pinned = [Pinned { vcpus: (0, 2), node: 0, cpus: first.clone() }];
        let answer = |index: u32| json!([{ "cpu-index": index, "thread-id": thread, "qom-path": "/machine/unattached/device[0]" }]);
        pin(&pinned, std::process::id(), &answer(2)).unwrap();
        let now = || sched_getaffinity(Pid::from_raw(0)).unwrap();
        assert_eq!(now(), set(&allowed).unwrap(), "vCPU 2 is not of this node");
        pin(&pinned, std::process::id(), &answer(1)).unwrap();
        assert_eq!(now(), set(&first).unwrap());
        let gone = json!([{ "cpu-index": 0, "thread-id": 1_u32 << 30 }]);
        assert!(pin(&pinned, std::process::id(), &gone).unwrap_err().to_string().contains("no thread"));
    }
}
