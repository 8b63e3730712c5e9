//! The descriptors that QEMU inherits: their numbers, and what each is.

use measure::shape::Boot;
use spec::Tee;
use spec::manifest::artifact;
use spec::vm::Nic;

use super::{Descriptor, Inputs, Role};
use crate::firmware;
use crate::host::PciFunction;
use crate::network::{self, Means, Passt, Tap};
use crate::qemu::descriptor;
use crate::volume::Volume;

/// The descriptors that QEMU inherits for a guest in `tee`.
pub(crate) fn descriptors(tee: Tee, boot: Boot, volumes: &[Volume]) -> Vec<Descriptor> {
    let common = [
        (descriptor::QMP, Role::Qmp),
        (descriptor::CONSOLE, Role::Console),
        (descriptor::AGENT, Role::Agent),
        (descriptor::CONFIGURATION, Role::Configuration),
    ];
    let started = match boot {
        Boot::Kernel => &[
            (descriptor::KERNEL, artifact::KERNEL),
            (descriptor::INITRD, artifact::INITRD),
            (descriptor::ROOTFS, artifact::ROOTFS),
        ][..],
        Boot::Disk => &[(descriptor::ROOTFS, artifact::DISK)],
    };
    let started = started.iter().map(|(number, name)| (*number, Role::Artifact(name)));
    let firmware = firmware::artifact_name(tee, boot).map(|name| (descriptor::FIRMWARE, Role::Artifact(name)));
    let volumes =
        (descriptor::VOLUMES..).zip(volumes).map(|(number, volume)| (number, Role::Volume(volume.name.clone())));
    common
        .into_iter()
        .chain(started)
        .chain(firmware)
        .chain(volumes)
        .map(|(number, role)| Descriptor { number, role })
        .collect()
}

/// The functions that are passed, in the order of their ports.
pub(super) fn passed_functions<'a>(inputs: &Inputs<'a>) -> Vec<&'a PciFunction> {
    inputs.vm.host.pci.iter().filter_map(|device| inputs.facts.device(&device.address)).collect()
}

/// Whether functions are passed by iommufd: always where it is there, because group VFIO cannot follow a TEE's memory.
pub(super) fn by_iommufd(inputs: &Inputs<'_>) -> bool {
    let facts = inputs.facts;
    let cdev = |address: &str| facts.device(address).and_then(|device| device.cdev.as_ref()).is_some();
    facts.answers.opens("/dev/iommu").is_ok() && inputs.vm.host.pci.iter().all(|device| cdev(&device.address))
}

/// Whether NICs are passt's: where the tree of QEMU has it, and the kernel lets it make the namespaces that it shuts itself up in.
pub(super) fn has_passt(inputs: &Inputs<'_>) -> bool {
    inputs.program.passt.is_some() && inputs.facts.kernel.may_unshare_users
}

/// Of the vsock, and of NICs.
pub(super) fn network_descriptors(inputs: &Inputs<'_>) -> Vec<Descriptor> {
    let vm = inputs.vm;
    let cid = vm.host.vsock.map(|vsock| network::cid(&vm.name, vsock));
    let mut all: Vec<_> =
        cid.map(|cid| Descriptor { number: descriptor::VSOCK, role: Role::Vsock(cid) }).into_iter().collect();
    for (index, nic) in vm.host.nics.iter().enumerate() {
        let Some(bridge) = &nic.bridge else {
            all.extend(passt(inputs, index, nic));
            continue;
        };
        let tap = Tap { name: network::tap_name(&vm.name, index), bridge: bridge.clone() };
        all.push(Descriptor { number: descriptor::network(index), role: Role::Tap(tap) });
        if network::by_vhost(inputs.facts) {
            let role = Role::Device(network::VHOST_NET.into());
            all.push(Descriptor { number: descriptor::vhost_net(index), role });
        }
    }
    all
}

/// The socket to the passt of a NIC that has one.
fn passt(inputs: &Inputs<'_>, index: usize, nic: &Nic) -> Option<Descriptor> {
    let (command, tree) = (inputs.program.passt.as_deref()?, inputs.program.tree.as_deref()?);
    if network::means(nic, has_passt(inputs)) != Means::Passt {
        return None;
    }
    let mut passt = Passt::new(command, tree, index, nic, inputs.vm.guest.network.as_ref());
    passt.confinement = passt.confinement.filter(|_| !inputs.options.dangerously_unconfined);
    Some(Descriptor { number: descriptor::network(index), role: Role::Passt(passt) })
}

pub(super) fn passed_descriptors(inputs: &Inputs<'_>) -> Vec<Descriptor> {
    let host = &inputs.vm.host;
    if host.pci.is_empty() || !by_iommufd(inputs) {
        return Vec::new();
    }
    let cdevs = host.pci.iter().filter_map(|device| inputs.facts.device(&device.address)?.cdev.as_ref());
    let functions =
        cdevs.enumerate().map(|(index, cdev)| (descriptor::pci(index), format!("/dev/vfio/devices/{cdev}")));
    let iommufd = (descriptor::IOMMUFD, "/dev/iommu".to_owned());
    [iommufd]
        .into_iter()
        .chain(functions)
        .map(|(number, path)| Descriptor { number, role: Role::Device(path.into()) })
        .collect()
}
