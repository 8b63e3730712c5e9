//! What a plan says beside what it does: how far it may be trusted, and the facts that it rests on.

use spec::Tee;
use spec::lock::Standing;
use spec::manifest::Class;

use super::Inputs;
use super::descriptors::{by_iommufd, passed_functions};
use crate::host::KvmAccess;
use crate::host::answers::{QGS_PORT, QGS_SOCKET, QuoteService};
use crate::host::check::Drive;
use crate::qemu::Accelerator;

/// How far the image, and what is measured, may be trusted, where that is less than it could be.
pub(super) fn reservations(inputs: &Inputs<'_>) -> impl Iterator<Item = String> + use<> {
    let manifest = &inputs.image.manifest;
    let dev = inputs.vm.tee != Tee::None && manifest.class == Class::Dev;
    let dev = dev.then_some("the image is of class dev: the origin of its guest binary is not proved");
    let unpublished = manifest.standing == Standing::Unpublished;
    let unpublished =
        unpublished.then_some("the image is UNPUBLISHED: its lock was made on the spot, it is not the golden one");
    let options = inputs.options;
    let unpredicted =
        inputs.vm.tee != Tee::None && options.expected_measurements.is_empty() && !options.more_is_expected;
    let unpredicted = unpredicted.then_some("there is no prediction of what the TEE measures: nothing is compared");
    let debug = inputs.vm.snp.is_some_and(|policy| policy.dangerously_allow_debug)
        || inputs.vm.tdx.is_some_and(|attributes| attributes.dangerously_allow_debug);
    let debug = debug.then_some("DEBUG is allowed: this host can read all of the guest's memory");
    let doubled = inputs.vm.tee != Tee::None && inputs.vm.host.huge_pages.is_some();
    let doubled =
        doubled.then_some("huge pages hold what is shared with the host only, and are kept: memory is needed twice");
    let really_tdx = inputs.vm.tee == Tee::Tdx && inputs.options.simulate.is_none();
    let unquoted = really_tdx && QuoteService::of(inputs.facts).is_none();
    let unquoted =
        unquoted.then_some("no quote generation service answers here: nobody can verify the guest from afar");
    let notes = [dev, unpublished, unpredicted, debug, doubled, unquoted];
    notes.into_iter().flatten().map(str::to_owned)
}

/// The drives that volumes go over unseen: what they hold can be looked at through the host's own driver only.
pub(super) fn unseen(inputs: &Inputs<'_>) -> impl Iterator<Item = String> {
    let drives = inputs.vm.host.pci.iter().filter_map(Drive::of).filter(|drive| !drive.overwrite);
    let is_unseen = |drive: &Drive| inputs.facts.device(&drive.address).is_some_and(|device| device.disks.is_empty());
    drives.filter(is_unseen).map(|Drive { address, volume, .. }| {
        format!("nobody can see what the NVMe drive {address} holds while vfio-pci has it: volume \"{volume}\" overwrites it")
    })
}

/// What of the host went into the command.
pub(super) fn grounds(inputs: &Inputs<'_>, accelerator: Accelerator) -> Vec<String> {
    let (facts, vm) = (inputs.facts, inputs.vm);
    let mut grounds = vec![format!("QEMU {}", inputs.features.version_text())];
    match facts.kvm {
        KvmAccess::Usable { vm_types } if accelerator == Accelerator::Kvm => {
            grounds.push(format!("KVM of kernel {} with VM types {vm_types:#x}", facts.kernel_release));
        }
        _ => {}
    }
    if vm.tee == Tee::Snp {
        grounds.push(format!("C-bit {}", facts.c_bit_position));
        grounds.push(format!("{} physical address bits", facts.physical_address_bits));
    }
    if vm.tee == Tee::Tdx {
        grounds.push(match QuoteService::of(facts) {
            Some(QuoteService::Unix) => format!("quotes by {QGS_SOCKET}"),
            Some(QuoteService::Vsock) => format!("quotes by vsock port {QGS_PORT}"),
            None => "no quotes".to_owned(),
        });
    }
    grounds.extend(passed_functions(inputs).into_iter().map(|function| {
        let how = function.cdev.as_deref().filter(|_| by_iommufd(inputs)).unwrap_or("its IOMMU group");
        format!("{} [{}] by {how}", function.address, function.id)
    }));
    grounds
}
