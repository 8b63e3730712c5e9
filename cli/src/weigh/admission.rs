//! The digest that a kernel with ACPI admission makes of a machine's tables: asked of QEMU when a release is built, and again when
//! one is launched, so that a machine that the kernel would stop in is refused before it starts.
//!
//! Both ask in the same words. What is not among the digests of an image is nothing that its builder predicted, whatever real
//! firmware makes of it: a refusal here is never of a machine that the kernel would take. Where there is no answer, or the tables name
//! the BARs of one host's devices, nothing is foreseen, and nothing refused.

use launcher::qemu::oracle::Devices;
use launcher::{HostFacts, Image};
use measure::shape::{Boot, Shape, SnpShape, TdxShape, TeeShape};
use spec::manifest::{AcpiAdmission, Manifest, artifact};
use spec::vm::{Boot as From, Topology, Vm};
use spec::{Outcome, Sha256Digest, Tee};
use store::Store;

use super::machine::Oracle;
use super::{image_firmware, whole_mib};
use crate::args::QemuChoice;
use crate::failure::Failure;

/// The digest of the tables of a machine: its TEE, its vCPUs, its memory in MiB, and its devices. With it, the version of the
/// QEMU that was asked.
pub(crate) fn digest(
    oracle: &Oracle<'_>,
    firmware: &[u8],
    machine: (Tee, u32, u64),
    devices: Devices,
) -> Result<(Sha256Digest, [u64; 3]), Failure> {
    let (tee, vcpus, memory_mib) = machine;
    let told = oracle.ask_of(firmware, &shape(tee, vcpus, memory_mib), devices)?;
    let digest = told
        .fw_cfg
        .admission()
        .map_err(|error| Failure::new(Outcome::HostCannot, format!("{error} ({tee}, {vcpus} vCPUs)")))?;
    Ok((Sha256Digest(digest.0), told.qemu_version.unwrap_or_default()))
}

/// Refuses a VM whose machine the image's kernel does not admit. Images that admit any, and disks, which have a list of their own
/// inside, are not looked at. Otherwise it says why it is not foreseen, where it is not.
pub(crate) fn check(
    vm: &Vm,
    image: &Image,
    facts: &HostFacts,
    qemu: &QemuChoice,
    store: &Store,
) -> Result<Option<String>, Failure> {
    let manifest = &image.manifest;
    let Some(admitted) = manifest.acpi.as_ref().filter(|_| vm.boot == From::Kernel) else { return Ok(None) };
    let doubt = |reason: &str| format!("it is not foreseen whether the image's kernel admits this machine: {reason}");
    let memory_mib = whole_mib(vm.memory)?;
    let devices = match Devices::on(vm, memory_mib, facts) {
        Ok(devices) => devices,
        Err(reason) => return Ok(Some(doubt(&reason))),
    };
    let firmware = match vm.tee {
        // QEMU's own.
        Tee::None => Vec::new(),
        Tee::Snp => image_firmware(&image.directory, manifest, artifact::FIRMWARE_SNP)?.bytes,
        Tee::Tdx => image_firmware(&image.directory, manifest, artifact::FIRMWARE_TDX)?.bytes,
    };
    let oracle = Oracle::new(qemu, store, devices);
    let (found, version) = match digest(&oracle, &firmware, (vm.tee, vm.vcpus, memory_mib), devices) {
        Ok(told) => told,
        Err(failure) => return Ok(Some(doubt(&failure.messages.join(": ")))),
    };
    if admitted.digests.contains(&found) {
        Ok(None)
    } else {
        Err(refusal(vm, (manifest, admitted), devices, (&found, version)))
    }
}

fn refusal(
    vm: &Vm,
    (manifest, admitted): (&Manifest, &AcpiAdmission),
    devices: Devices,
    (found, version): (&Sha256Digest, [u64; 3]),
) -> Failure {
    let Devices { nics, pci, large_bars, volumes, vsock, watchdog, pvpanic, topology, nodes } = devices;
    let version = version.map(|number| number.to_string()).join(".");
    let mut machine = format!("tee {}, {} vCPUs, {}", vm.tee, vm.vcpus, vm.memory);
    let counts = [
        (nics, "networks"),
        (volumes, "volumes"),
        (pci, "PCI functions"),
        (usize::from(vsock), "vsock"),
        (usize::from(watchdog), "watchdog"),
        (usize::from(pvpanic), "pvpanic"),
        (nodes, "NUMA nodes"),
    ];
    for (count, name) in counts {
        if count > 0 {
            machine.push_str(&format!(", {name}: {count}"));
        }
    }
    if large_bars {
        machine.push_str(", large_bars");
    }
    if topology != Topology::default() {
        machine.push_str(&format!(", sockets: {}, threads: {}", topology.sockets, topology.threads));
    }
    let message = format!(
        "the kernel of image \"{}\" would stop in this machine ({machine}; QEMU {version}): the digest of its ACPI tables is {found}, \
         none of the {} that the image admits",
        manifest.name,
        admitted.digests.len()
    );
    let named: Vec<String> =
        manifest.recipe.image.iter().flat_map(|image| &image.admit).map(ToString::to_string).collect();
    let other_qemu = if version == admitted.qemu_version {
        String::new()
    } else {
        format!("the image admits tables of QEMU {}, or else ", admitted.qemu_version)
    };
    // What no recipe can name.
    let unnamed = [(vsock, "host.vsock"), (nodes > 0, "host.numa_nodes"), (vm.topology.is_some(), "topology")];
    let unnamed: Vec<&str> = unnamed.into_iter().filter_map(|(there, key)| there.then_some(key)).collect();
    let way = if unnamed.is_empty() {
        let with =
            if vm.tee == Tee::Snp && pci > 0 { format!(", with large_bars = [{large_bars}],") } else { String::new() };
        format!("or name this one in [[kernel.admit]]{with} and build the image again")
    } else {
        format!("and leave out {}, which no release admits", unnamed.join(" and "))
    };
    let hint = format!("{other_qemu}give the VM a machine that the image admits ({}), {way}", named.join("; "));
    Failure::new(Outcome::Refused, message).with_hint(hint)
}

/// The shape of a machine. Nothing else of it reaches the tables.
fn shape(tee: Tee, vcpus: u32, memory_mib: u64) -> Shape {
    let (tee, cpu_model) = match tee {
        Tee::None => (TeeShape::None, "max"),
        Tee::Snp => {
            let snp = SnpShape {
                policy: SnpShape::DEFAULT_POLICY,
                sev_features: SnpShape::SNP_ACTIVE,
                kernel_hashes: true,
                host_data: [0; 32],
                id_block: None,
            };
            (TeeShape::Snp(snp), "EPYC-v4")
        }
        Tee::Tdx => {
            let tdx = TdxShape { attributes: TdxShape::SEPT_VE_DISABLE, mrconfigid: [0; 48] };
            (TeeShape::Tdx(tdx), "host")
        }
    };
    Shape { tee, boot: Boot::Kernel, vcpus, cpu_model: cpu_model.to_owned(), memory_mib }
}
