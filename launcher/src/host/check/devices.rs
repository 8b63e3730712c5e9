//! What passing devices to a guest needs: an IOMMU, iommufd, locked memory, a vsock.

use super::{Line, Scope};
use crate::host::PciFunction;

const IOMMUFD: &str = "Linux Documentation/userspace-api/iommufd.rst";

pub(super) fn lines(scope: &Scope<'_>) -> Vec<Line> {
    if scope.needs.is_some() {
        return Vec::new();
    }
    let mut lines = vec![iommu(scope), iommufd(scope), locked_memory(scope), vsock(scope)];
    lines.extend(accelerators(scope));
    lines
}

fn iommu(scope: &Scope<'_>) -> Line {
    let facts = scope.facts;
    let groups: std::collections::BTreeSet<_> = facts.devices.iter().filter_map(|device| device.group).collect();
    if !groups.is_empty() {
        let shared = facts.devices.iter().filter(|device| !device.is_bridge() && !device.peers.is_empty()).count();
        return Line::ok(
            "iommu",
            format!("{} groups; {shared} of {} PCI functions share theirs", groups.len(), facts.devices.len()),
        );
    }
    let off = ["iommu=off", "intel_iommu=off", "amd_iommu=off"].into_iter().find(|word| facts.kernel.was_told(word));
    let line = Line::missing("iommu", false, "no PCI function is in an IOMMU group")
        .because("no device can be passed to a guest");
    match off {
        Some(word) => line.remedy(format!("remove {word} from the kernel's command line and boot again")),
        None if facts.cpu.is_amd() => line.remedy("enable the IOMMU in the BIOS"),
        None => line.remedy("enable VT-d in the BIOS, and boot with intel_iommu=on"),
    }
    .see("Linux Documentation/driver-api/vfio.rst")
}

/// Whether devices can be passed by iommufd and their character devices, which guests in a TEE need.
fn iommufd(scope: &Scope<'_>) -> Line {
    let facts = scope.facts;
    let kernel = &facts.kernel;
    let lacks = ["CONFIG_IOMMUFD", "CONFIG_VFIO_DEVICE_CDEV"];
    let because = "group VFIO maps 4 KiB at a time and ends at 65535 mappings: a guest in a TEE needs iommufd";
    if let Some(option) = lacks.into_iter().find(|option| kernel.option(option) == Some(false)) {
        return Line::missing("iommufd", false, format!("kernel {} lacks {option}", kernel.release))
            .because(format!("{because}; no Debian kernel up to 7.3 has it"))
            .remedy("boot a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV: Ubuntu 25.10 and later have one")
            .see(IOMMUFD);
    }
    match facts.answers.opens("/dev/iommu") {
        Ok(()) => Line::ok("iommufd", "/dev/iommu can be opened"),
        Err(reason) if reason.contains("no permission") => {
            Line::missing("iommufd", false, reason).because(because).remedy("give this user /dev/iommu by a udev rule")
        }
        Err(reason) => Line::missing("iommufd", false, reason).because(because).remedy("modprobe iommufd").see(IOMMUFD),
    }
}

/// Mapping a device's memory counts against RLIMIT_MEMLOCK.
fn locked_memory(scope: &Scope<'_>) -> Line {
    match scope.facts.answers.memlock_bytes {
        None => Line::ok("locked memory", "no limit"),
        Some(bytes) => Line::missing("locked memory", false, format!("at most {} MiB (RLIMIT_MEMLOCK)", bytes >> 20))
            .because("all memory of a guest with a passed device is locked, and so are the device's BARs")
            .remedy("set LimitMEMLOCK=infinity in the unit, or a memlock line in /etc/security/limits.d")
            .see("setrlimit(2)"),
    }
}

fn vsock(scope: &Scope<'_>) -> Line {
    match scope.facts.answers.opens("/dev/vhost-vsock") {
        Ok(()) => Line::ok("vsock", "/dev/vhost-vsock can be opened"),
        Err(reason) => Line::missing("vsock", false, reason)
            .because("a VM with `vsock` will not start")
            .remedy("modprobe vhost_vsock, and give this user the group kvm"),
    }
}

/// NVIDIA's GPUs and switches: who drives them now.
fn accelerators(scope: &Scope<'_>) -> Vec<Line> {
    let nvidia = scope
        .facts
        .devices
        .iter()
        .filter(|device| device.id.starts_with("10de:") && matches!(device.class >> 8, 0x0300 | 0x0302 | 0x0680));
    nvidia.map(accelerator).collect()
}

fn accelerator(device: &PciFunction) -> Line {
    let group = device.group.map_or("no IOMMU group".to_owned(), |group| format!("IOMMU group {group}"));
    let node = device.numa_node.map_or(String::new(), |node| format!(", node {node}"));
    let found = format!(
        "{} [{}] driven by {}, {group}{node}",
        device.address,
        device.id,
        device.driver.as_deref().unwrap_or("nobody")
    );
    match device.driver.as_deref() {
        Some(driver @ ("nvidia" | "nouveau")) => Line::missing("gpu", false, found)
            .because(format!("the host's driver {driver} holds it"))
            .remedy(format!("bind it to vfio-pci, and keep {driver} off the host (modprobe.blacklist={driver})")),
        _ if !device.peers.is_empty() => Line::missing("gpu", false, found)
            .because(format!("it shares its group with {}: all go to one guest", device.peers.join(", ")))
            .remedy("enable ACS in the BIOS, or move the card to another slot"),
        _ => Line::ok("gpu", found),
    }
}
