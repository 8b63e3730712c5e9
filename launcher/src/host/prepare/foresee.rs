//! The facts of a host as they will be once steps were carried out: what is judged before anything is done.

use super::Step;
use super::device::Device;
use crate::host::{HostFacts, Memory};

/// The facts after the steps. What a module's devices answer is not known before; that they can be opened is assumed.
pub fn after(facts: &HostFacts, steps: &[Step]) -> HostFacts {
    let mut facts = facts.clone();
    let has_cdev = facts.kernel.option("CONFIG_VFIO_DEVICE_CDEV") == Some(true);
    for step in steps {
        match step {
            Step::LoadModule { adds, .. } => {
                facts.kernel.modules.extend(adds.iter().cloned());
                let made = [Device::Iommu, Device::Vfio, Device::VhostVsock, Device::VhostNet, Device::Tun];
                let made = made.into_iter().filter(|device| adds.iter().any(|added| device.module() == Some(added)));
                facts.answers.devices.extend(made.map(|device| (device.to_string(), None)));
            }
            Step::Bind { address, .. } => {
                let address = address.to_string();
                if let Some(device) = facts.devices.iter_mut().find(|device| device.address == address) {
                    device.driver = Some("vfio-pci".to_owned());
                    // Its number is given when it is bound.
                    device.cdev = has_cdev.then(|| format!("(of {address})"));
                }
            }
            Step::HugePages { pool, before, after } => {
                add_pages(&mut facts.memory, pool.node, pool.size_kib, after - before)
            }
            Step::Grant { device, .. } => drop(facts.answers.devices.insert(device.to_string(), None)),
            Step::Write { .. } => {}
        }
    }
    facts
}

/// Where the kernel chooses the node, the first stands for all of them.
fn add_pages(memory: &mut Memory, node: Option<u32>, size_kib: u64, more: u64) {
    let found = memory.nodes.iter_mut().find(|(number, _)| node.is_none_or(|node| node == **number));
    if let Some((_, node)) = found {
        let (all, free) = node.huge_pages.entry(size_kib).or_default();
        (*all, *free) = (*all + more, *free + more);
        node.available_mib = node.available_mib.saturating_sub(more * (size_kib >> 10));
    }
}
