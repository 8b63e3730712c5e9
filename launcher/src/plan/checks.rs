//! Why a launch is refused: the image, its firmware, the host's accelerators, and what this QEMU lacks.

use measure::shape::{Boot, Shape};
use spec::guest_config::GuestConfig;
use spec::vm::Accelerator as Wanted;
use spec::volume::{Carrier, NVME_MODULE};
use spec::{Sha256Digest, Tee};

use super::{Inputs, PlanError};
use crate::firmware;
use crate::host::KvmAccess;
use crate::qemu::features::FLOOR;
use crate::qemu::signs::Signs;
use crate::qemu::{self, Accelerator, Features};
use crate::verdict::Verdict;

/// Refuses an image in a TEE that is not a signed release; says which release it is.
pub(super) fn check_release(inputs: &Inputs<'_>) -> Result<Option<String>, PlanError> {
    // A release of another manifest says nothing about this image.
    match inputs.release.filter(|release| *release.manifest_sha256() == inputs.image.manifest_sha256) {
        Some(release) => Ok(Some(format!(
            "release {} of {}, signed by {}, good until {}",
            release.release().sequence,
            release.release().name,
            release.key().short(),
            release.release().expires
        ))),
        None if inputs.options.dangerously_allow_unsigned => {
            Ok(Some("the image is not a signed release: nobody answers for it".to_owned()))
        }
        None => Err(PlanError::Unsigned { tee: inputs.vm.tee }),
    }
}

/// Refuses a device of the configuration that the image's kernel has no driver for: the guest would stop for it.
pub(super) fn check_drivers(inputs: &Inputs<'_>) -> Result<(), PlanError> {
    let Some(image) = &inputs.image.manifest.recipe.image else { return Ok(()) };
    match without_driver(drivers(&inputs.vm.guest), &[&image.boot_modules, &image.device_modules]) {
        None => Ok(()),
        Some((key, module)) => Err(PlanError::NoDriver { image: inputs.image.manifest.name.clone(), key, module }),
    }
}

/// What the configuration calls the devices that not every guest has, and the modules that drive them in the guest.
fn drivers(guest: &GuestConfig) -> impl Iterator<Item = (&'static str, &'static str)> {
    let on_drives = guest.volumes.iter().any(|volume| volume.on == Carrier::Nvme);
    Signs::of(guest).drivers().chain(on_drives.then_some(("volume", NVME_MODULE)))
}

/// What the configuration calls the first device whose module is in none of the lists, and that module.
fn without_driver(
    mut drivers: impl Iterator<Item = (&'static str, &'static str)>,
    lists: &[&Vec<String>],
) -> Option<(&'static str, &'static str)> {
    let has = |module: &str| lists.iter().copied().flatten().any(|name| name.replace('-', "_") == module);
    drivers.find(|(_, module)| !has(module))
}

pub(super) type PlannedFirmware = Option<(Sha256Digest, Option<String>)>;

pub(super) fn check_firmware(
    inputs: &Inputs<'_>,
    boot: Boot,
    notes: &mut Vec<String>,
) -> Result<PlannedFirmware, PlanError> {
    let Some(sha256) = firmware::of_image(&inputs.image.manifest, inputs.vm.tee, boot)? else { return Ok(None) };
    if inputs.vm.tee == Tee::None {
        // Nothing is measured, so nothing depends on what it enforces.
        return Ok(Some((sha256, inputs.pins.find(&sha256).map(|pin| pin.name.clone()))));
    }
    match firmware::allow(inputs.pins, &sha256, inputs.vm.tee, inputs.vm.memory) {
        Ok(pin) => Ok(Some((sha256, Some(pin.name.clone())))),
        // No guest runs in a simulation, so nothing depends on what the firmware would enforce.
        Err(refusal) if inputs.options.simulate.is_some() => {
            notes.push(format!("a real launch would be refused: {refusal}"));
            Ok(Some((sha256, inputs.pins.find(&sha256).map(|pin| pin.name.clone()))))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

pub(super) fn choose_accelerator(inputs: &Inputs<'_>, notes: &mut Vec<String>) -> Result<Accelerator, PlanError> {
    let facts = inputs.facts;
    let lacks = |tee, can_simulate| move |reason| PlanError::HostLacks { tee, reason, can_simulate };
    match (inputs.vm.tee, inputs.vm.host.accelerator) {
        (Tee::Snp | Tee::Tdx, _) if inputs.options.simulate.is_some() => {
            facts.supports(Tee::None).map_err(lacks("simulated", false))?;
            Ok(Accelerator::Kvm)
        }
        (tee @ (Tee::Snp | Tee::Tdx), _) => {
            let can_simulate = matches!(facts.kvm, KvmAccess::Usable { .. });
            let name = if tee == Tee::Snp { "SEV-SNP" } else { "TDX" };
            facts.supports(tee).map_err(lacks(name, can_simulate))?;
            Ok(Accelerator::Kvm)
        }
        (Tee::None, Wanted::Tcg) => Ok(Accelerator::Tcg),
        (Tee::None, Wanted::Kvm) => {
            facts.supports(Tee::None).map_err(lacks("KVM", false))?;
            Ok(Accelerator::Kvm)
        }
        (Tee::None, Wanted::Auto) => {
            let reason = match (facts.supports(Tee::None), inputs.verdict) {
                (Err(reason), _) => reason,
                (Ok(()), Some(Verdict::Stops)) => "KVM on this host has stopped this kernel before".to_owned(),
                (Ok(()), _) => return Ok(Accelerator::Kvm),
            };
            notes.push(format!("running under TCG, which is slow: {reason}"));
            Ok(Accelerator::Tcg)
        }
    }
}

pub(super) fn check_features(
    features: &Features,
    shape: &Shape,
    vm: &spec::vm::Vm,
    accelerator: Accelerator,
) -> Result<(), PlanError> {
    let version = features.version_text();
    if features.version < FLOOR {
        return Err(PlanError::QemuTooOld { found: version });
    }
    if let Some(missing) =
        qemu::required_types(shape, vm, accelerator).into_iter().find(|name| !features.types.contains(name))
    {
        return Err(PlanError::QemuLacks { version, missing });
    }
    if !features.types.contains(&format!("{}-x86_64-cpu", shape.cpu_model)) {
        return Err(PlanError::UnknownCpu { version, model: shape.cpu_model.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use spec::volume::{GuestVolume, Purpose};

    use super::*;

    #[test]
    fn a_device_of_the_configuration_needs_its_module_in_the_image() {
        let (nothing, both) = (Vec::new(), vec!["i6300esb".to_owned(), "pvpanic-pci".to_owned()]);
        let signs = Signs { watchdog: true, pvpanic: true };
        assert_eq!(without_driver(signs.drivers(), &[&nothing, &both]), None);
        assert_eq!(without_driver(signs.drivers(), &[&nothing, &nothing]), Some(("watchdog", "i6300esb")));
        let pvpanic = Signs { watchdog: false, ..signs };
        assert_eq!(
            without_driver(pvpanic.drivers(), &[&nothing, &both[..1].to_vec()]),
            Some(("pvpanic", "pvpanic_pci"))
        );
        assert_eq!(without_driver(Signs::default().drivers(), &[]), None);
        let volume = |on| {
            let name = "tmp".to_owned();
            let mount = Some("/var/tmp".to_owned());
            let volume = GuestVolume { name, purpose: Purpose::Scratch, on, sha256: None, size_bytes: None, mount };
            GuestConfig { volumes: vec![volume], ..GuestConfig::default() }
        };
        assert_eq!(without_driver(drivers(&volume(Carrier::Nvme)), &[&nothing]), Some(("volume", "nvme")));
        assert_eq!(without_driver(drivers(&volume(Carrier::Nvme)), &[&vec!["nvme".to_owned()]]), None);
        assert_eq!(without_driver(drivers(&volume(Carrier::Virtio)), &[&nothing]), None);
    }
}
