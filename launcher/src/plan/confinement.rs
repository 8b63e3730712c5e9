//! What of the host the QEMU of a plan has to see: decided from what its command names, so that the one fits the other.

use std::path::Path;

use spec::Tee;
use spec::vm::Nic;

use super::{Inputs, by_iommufd, has_passt};
use crate::confine::Confinement;
use crate::host::answers::{Access, QGS_SOCKET, QuoteService};
use crate::network::{self, Means};
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
    let own = |nic: &&Nic| network::means(nic, has_passt(inputs)) == Means::Qemu;
    let own: Vec<&Nic> = host.nics.iter().filter(own).collect();
    if own.iter().any(|nic| !nic.no_outbound) && inputs.program.passt.is_some() {
        notes.push(
            "this kernel lets no program make a user namespace, which passt needs: networks are QEMU's own, which has the host's"
                .to_owned(),
        );
    }
    if own.iter().any(|nic| !nic.no_outbound || !nic.forward.is_empty()) {
        confinement.speaks_for_guest();
    }
    if inputs.vm.tee == Tee::Tdx && QuoteService::of(inputs.facts) == Some(QuoteService::Unix) {
        // Its directory, because a service that is started again makes its socket anew.
        confinement.readable.extend(Path::new(QGS_SOCKET).parent().map(Path::to_owned));
        // DCAP 1.26 and later give the socket mode 0660: whoever asks for quotes has to be in the service's group.
        let access = inputs.facts.answers.qgs_access.filter(|access| !access.lets_everybody_write());
        confinement.groups.extend(access.and_then(Access::writing_group));
        if access.is_some_and(|access| access.writing_group().is_none()) {
            notes.push(format!(
                "{QGS_SOCKET} is open to its owner alone: QEMU, which is another user where root launches, gets no quotes there"
            ));
        }
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
