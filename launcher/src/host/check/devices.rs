//! What passing devices to a guest needs: an IOMMU, iommufd, locked memory, a vsock.

use spec::Tee;

use super::{Line, Needs, Scope, drives};
use crate::gpu::sysfs::DRIVERS_IN_USE;
use crate::gpu::topology::{self, is_accelerator};
use crate::host::{HostFacts, PciFunction};
use crate::network::{TUN, VHOST_NET, VHOST_VSOCK};
use crate::qemu::bars;

const IOMMUFD: &str = "Linux Documentation/userspace-api/iommufd.rst";

pub(super) fn lines(scope: &Scope<'_>) -> Vec<Line> {
    if let Some(needs) = scope.needs {
        let nothing = needs.pci.is_empty() && needs.gpus.is_none();
        let mut lines = if nothing { Vec::new() } else { passed(scope, needs) };
        lines.extend(needs.vsock.then(|| vsock(scope)));
        lines.extend(needs.bridged.then(|| tap(scope)));
        return lines;
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
    let needed = scope.needs.is_some_and(|needs| needs.tee != Tee::None);
    let because = "group VFIO maps 4 KiB at a time and ends at 65535 mappings: a guest in a TEE needs iommufd";
    if let Some(option) = lacks.into_iter().find(|option| kernel.option(option) == Some(false)) {
        return Line::missing("iommufd", needed, format!("kernel {} lacks {option}", kernel.release))
            .because(format!("{because}; no Debian kernel up to 7.3 has it"))
            .remedy("boot a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV: Ubuntu 25.10 and later have one")
            .see(IOMMUFD);
    }
    match facts.answers.opens("/dev/iommu") {
        Ok(()) => Line::ok("iommufd", "/dev/iommu can be opened"),
        Err(reason) if reason.contains("no permission") => {
            Line::missing("iommufd", needed, reason).because(because).remedy("give this user /dev/iommu by a udev rule")
        }
        Err(reason) => {
            Line::missing("iommufd", needed, reason).because(because).remedy("modprobe iommufd").see(IOMMUFD)
        }
    }
}

/// Mapping a device's memory counts against RLIMIT_MEMLOCK.
fn locked_memory(scope: &Scope<'_>) -> Line {
    let needed = scope.needs.is_some();
    let enough = |bytes: u64| scope.needs.is_some_and(|needs| bytes >> 20 > needs.memory_mib.saturating_mul(2));
    match scope.facts.answers.memlock_bytes {
        _ if scope.facts.kernel.may_lock_all_memory => Line::ok("locked memory", "no limit (CAP_IPC_LOCK)"),
        Some(bytes) if enough(bytes) => Line::ok("locked memory", format!("up to {} MiB", bytes >> 20)),
        None => Line::ok("locked memory", "no limit"),
        Some(bytes) => Line::missing("locked memory", needed, format!("at most {} MiB (RLIMIT_MEMLOCK)", bytes >> 20))
            .because("all memory of a guest with a passed device is locked, and so are the device's BARs")
            .remedy("set LimitMEMLOCK=infinity in the unit, or a memlock line in /etc/security/limits.d")
            .see("setrlimit(2)"),
    }
}

fn vsock(scope: &Scope<'_>) -> Line {
    let needed = scope.needs.is_some();
    match scope.facts.answers.opens(VHOST_VSOCK) {
        Ok(()) => Line::ok("vsock", format!("{VHOST_VSOCK} can be opened")),
        Err(reason) => Line::missing("vsock", needed, reason)
            .because(if needed {
                "the VM has a vsock"
            } else {
                "no guest can be reached by vsock; Bullion does not need it"
            })
            .remedy("modprobe vhost_vsock, and give this user the group kvm"),
    }
}

/// What a NIC on a bridge needs. Whether the bridge is there, and may be changed, is seen when it is plugged in.
fn tap(scope: &Scope<'_>) -> Line {
    match (scope.facts.answers.opens(TUN), scope.facts.answers.opens(VHOST_NET)) {
        (Ok(()), Ok(())) => Line::ok("tap", format!("{TUN} and {VHOST_NET} can be opened")),
        (Ok(()), Err(_)) => {
            Line::ok("tap", format!("{TUN} can be opened; QEMU moves the packets, without {VHOST_NET}"))
        }
        (Err(reason), _) => Line::missing("tap", true, reason)
            .because("the VM has a NIC on a bridge")
            .remedy("modprobe tun; or leave `bridge` out for a network without rights on the host"),
    }
}

/// What a VM needs to have PCI functions passed to it.
fn passed(scope: &Scope<'_>, needs: &Needs) -> Vec<Line> {
    let mut lines: Vec<_> = needs.pci.iter().map(|address| function(scope, needs, address)).collect();
    lines.extend(drives::lines(scope, needs));
    if needs.tee != Tee::None {
        lines.push(iommufd(scope));
    }
    lines.push(locked_memory(scope));
    lines.extend(gpus(scope, needs));
    let functions: Vec<_> = needs.pci.iter().filter_map(|address| scope.facts.device(address)).collect();
    lines.extend(large_bars(needs, scope.facts.physical_address_bits, &functions));
    lines
}

/// Why firmware would have no room for the functions' BARs.
fn large_bars(needs: &Needs, host_bits: u32, functions: &[&PciFunction]) -> Option<Line> {
    const SOURCE: &str = "edk2 OvmfPkg/Library/PlatformInitLib/MemDetect.c";
    let missing = |found| Line::missing("large bars", true, found).see(SOURCE);
    match bars::window(needs.tee, host_bits, functions) {
        Err(none) => {
            let remedy = match none.fitting {
                0 => "such a device cannot go to a guest of this kind".to_owned(),
                1 => "pass one of them to a guest".to_owned(),
                some => format!("pass at most {some} of them to one guest"),
            };
            let found = format!("the functions' BARs need {} GiB of room", none.needed_gib);
            Some(missing(found).because(none.reason).remedy(remedy))
        }
        Ok(Some(told)) if needs.tee == Tee::Snp => {
            let most = bars::most_memory_gib(host_bits, told);
            (needs.memory_mib > most << 10).then(|| {
                let found = format!(
                    "the functions' BARs are to have {} GiB of room behind {} MiB of memory",
                    told >> 10,
                    needs.memory_mib
                );
                missing(found)
                    .because("AmdSevX64 firmware begins it where it is aligned, and reaches no further than its address bits")
                    .remedy(format!("give the guest at most {most} GiB of memory, or functions with smaller BARs"))
            })
        }
        Ok(_) => None,
    }
}

/// Whether the GPUs and NVSwitches may go together into the guest.
fn gpus(scope: &Scope<'_>, needs: &Needs) -> Option<Line> {
    let functions: Vec<_> = needs.pci.iter().filter_map(|address| scope.facts.device(address)).collect();
    let members = topology::members(functions.iter().copied());
    let plain = functions.iter().find(|function| {
        is_accelerator(function) && members.iter().all(|member| member.address.to_string() != function.address)
    });
    if let Some(function) = plain.filter(|_| needs.tee != Tee::None) {
        let found = format!("{} [{}]", function.address, function.id);
        return Some(
            Line::missing("gpus", true, found)
                .because("it is not known to have a confidential mode: what goes to it is in the clear")
                .remedy("pass a Hopper or Blackwell GPU, or none"),
        );
    }
    if members.is_empty() && needs.gpus.is_none() {
        return None;
    }
    let mode = topology::mode(needs.tee, needs.gpus.as_ref(), &members);
    Some(match topology::check(mode, needs.gpus.as_ref(), &members) {
        Ok(()) => Line::ok("gpus", format!("{} in the mode \"{mode}\"", topology::describe(&members))),
        Err(mismatch) => {
            let line = Line::missing("gpus", true, mismatch.found).because(mismatch.because).remedy(mismatch.remedy);
            mismatch.source_text.map_or(line.clone(), |source| line.see(source))
        }
    })
}

/// What keeps a function from being passed, whoever drives it: it is not there, a bridge, or not isolated from what is not
/// passed with it.
pub(in crate::host) fn obstacle(facts: &HostFacts, passed: &[String], address: &str) -> Option<Line> {
    let refused = |found: String| Line::missing("pci", true, found);
    let Some(device) = facts.device(address) else {
        return Some(refused(format!("there is no PCI function {address}")).remedy("`lspci -D` lists them"));
    };
    let found = found(device);
    if device.is_bridge() {
        return Some(refused(found).because("a bridge cannot be passed to a guest").remedy("name what is behind it"));
    }
    let Some(group) = device.group else {
        let line = refused(found).because("it is in no IOMMU group: it could write into all of the host's memory");
        return Some(line.remedy("enable the IOMMU in the BIOS and on the kernel's command line"));
    };
    let held = |peer: &&String| {
        let driver = facts.device(peer).and_then(|peer| peer.driver.as_deref());
        !passed.contains(*peer) && !matches!(driver, None | Some("vfio-pci" | "pci-stub"))
    };
    let peer = device.peers.iter().find(held)?;
    let other = facts.device(peer).and_then(|peer| peer.driver.clone()).unwrap_or_default();
    let line = refused(found)
        .because(format!("it shares IOMMU group {group} with {peer}, which {other} drives: the group is not viable"));
    let line = line.remedy("enable ACS in the BIOS or move the card; else give up the other device, too");
    Some(line.see("Linux Documentation/driver-api/vfio.rst"))
}

fn found(device: &PciFunction) -> String {
    format!("{} [{}] driven by {}", device.address, device.id, device.driver.as_deref().unwrap_or("nobody"))
}

/// One function: there, isolated, and in the hands of vfio-pci.
fn function(scope: &Scope<'_>, needs: &Needs, address: &str) -> Line {
    if let Some(line) = obstacle(scope.facts, &needs.pci, address) {
        return line;
    }
    let Some(device) = scope.facts.device(address) else { return Line::ok("pci", address) };
    let refused = Line::missing("pci", true, found(device));
    if device.driver.as_deref() != Some("vfio-pci") {
        return match device.uses.as_slice() {
            [] => refused
                .because("only what vfio-pci holds can be passed to a guest")
                .remedy("bullion host prepare --for VM --yes, as root"),
            uses => refused
                .because(format!("the host uses it: {}", uses.join("; ")))
                .remedy("name another device, or give this one up first"),
        };
    }
    if needs.tee != Tee::None && device.cdev.is_none() {
        return refused
            .because("vfio-pci gives it no character device, by which iommufd takes it")
            .remedy("boot a kernel with CONFIG_VFIO_DEVICE_CDEV");
    }
    Line::ok("pci", format!("{}, IOMMU group {}", found(device), device.group.unwrap_or_default()))
}

/// NVIDIA's GPUs and switches: who drives them now.
fn accelerators(scope: &Scope<'_>) -> Vec<Line> {
    let nvidia = scope.facts.devices.iter().filter(|device| is_accelerator(device));
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
        Some(driver) if DRIVERS_IN_USE.contains(&driver) => Line::missing("gpu", false, found)
            .because(format!("the host's driver {driver} holds it"))
            .remedy(format!("bind it to vfio-pci, and keep {driver} off the host (modprobe.blacklist={driver})")),
        _ if !device.peers.is_empty() => Line::missing("gpu", false, found)
            .because(format!("it shares its group with {}: all go to one guest", device.peers.join(", ")))
            .remedy("enable ACS in the BIOS, or move the card to another slot"),
        _ => Line::ok("gpu", found),
    }
}
