//! What of the host the QEMU of a plan has to see: decided from what its command names, so that the one fits the other.

use std::path::{Path, PathBuf};

use spec::Tee;

use super::{Inputs, by_iommufd};
use crate::confine::Confinement;
use crate::host::answers::{QGS_SOCKET, QuoteService};
use crate::qemu::Accelerator;

/// The confinement of a launch; none, with a note, where there is none.
pub(super) fn of(inputs: &Inputs<'_>, accelerator: Accelerator, notes: &mut Vec<String>) -> Option<Confinement> {
    if inputs.options.dangerously_unconfined {
        notes.push("QEMU runs unconfined, with all rights of this user".to_owned());
        return None;
    }
    let Some(tree) = &inputs.program.tree else {
        notes.push(
            "what a QEMU that was named needs is not known: it runs unconfined, with all rights of this user"
                .to_owned(),
        );
        return None;
    };
    let mut confinement = Confinement::new(vec![tree.clone()]);
    let host = &inputs.vm.host;
    if host.nics.iter().any(|nic| nic.bridge.is_none()) {
        // User-mode networking makes connections as the host does, and answers the guest's questions for names.
        confinement.host_network = true;
        confinement.readable.extend(["/etc/resolv.conf", "/etc/hosts"].map(PathBuf::from));
    }
    if inputs.vm.tee == Tee::Tdx && QuoteService::of(inputs.facts) == Some(QuoteService::Unix) {
        // Its directory, because a service that is started again makes its socket anew.
        confinement.readable.extend(Path::new(QGS_SOCKET).parent().map(Path::to_owned));
    }
    let mut device = |path: &str| confinement.devices.push(path.into());
    if accelerator == Accelerator::Kvm {
        device("/dev/kvm");
    }
    if inputs.vm.tee == Tee::Snp && inputs.options.simulate.is_none() {
        device("/dev/sev");
    }
    if !host.pci.is_empty() && !by_iommufd(inputs) {
        let groups = host.pci.iter().filter_map(|device| inputs.facts.device(&device.address)?.group);
        device("/dev/vfio/vfio");
        groups.for_each(|group| device(&format!("/dev/vfio/{group}")));
        // By address QEMU looks for the group of a function itself.
        confinement.readable.push("/sys".into());
    }
    confinement.lock_memory = !host.pci.is_empty();
    if let Some(simulation) = &inputs.options.simulate {
        confinement.readable.push(simulation.preload.clone());
        confinement.writable.extend(inputs.report.parent().map(Path::to_owned));
        confinement.other_user = false;
    }
    Some(confinement)
}
