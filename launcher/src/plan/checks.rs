//! Why a launch is refused: the image, its firmware, the host's accelerators, and what this QEMU lacks.

use measure::shape::{Boot, Shape};
use spec::vm::Accelerator as Wanted;
use spec::{Sha256Digest, Tee};

use super::{Inputs, PlanError};
use crate::firmware;
use crate::host::KvmAccess;
use crate::qemu::features::FLOOR;
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
    host: &spec::vm::Host,
    accelerator: Accelerator,
) -> Result<(), PlanError> {
    let version = features.version_text();
    if features.version < FLOOR {
        return Err(PlanError::QemuTooOld { found: version });
    }
    if let Some(missing) =
        qemu::required_types(shape, host, accelerator).into_iter().find(|name| !features.types.contains(name))
    {
        return Err(PlanError::QemuLacks { version, missing });
    }
    if !features.types.contains(&format!("{}-x86_64-cpu", shape.cpu_model)) {
        return Err(PlanError::UnknownCpu { version, model: shape.cpu_model.clone() });
    }
    Ok(())
}
