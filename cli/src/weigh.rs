//! From an image directory to expected measurements: reads the files, lets `measure` do the arithmetic.
//!
//! Kernel and initrd go in by the SHA-256 that the manifest has for them, which `build` has just computed and `measure`
//! and `launch` have just checked; only the firmware's bytes are needed.

pub(crate) mod admission;
pub(crate) mod disk;
pub(crate) mod machine;
pub(crate) mod neighbours;
pub(crate) mod prediction;
pub(crate) mod reference;
pub(crate) mod registers;

use std::path::{Path, PathBuf};

use measure::firmware::Firmware;
use measure::shape::{Boot, Shape, SnpShape, TeeShape};
use measure::snp::{CpuSignature, KernelHashes, LaunchInputs, Seed, SeedError, Vcpu, seed::firmware_digest};
use measure::tdx::mrtd::{PageOrder, mrtd};
use measure::{Digest256, Digest384};
use spec::manifest::{Manifest, ReferenceValues, SnpReference, TdxReference, artifact};
use spec::vm::Vm;
use spec::{Outcome, Sha384Digest};

use crate::failure::Failure;
use crate::firmware::FirmwareFile;
use crate::inputs;
use machine::Machine;

/// Which SNP launch digests are wanted.
pub(crate) struct SnpWanted<'a> {
    /// vCPU counts.
    pub(crate) vcpus: &'a [u32],
    /// CPU models.
    pub(crate) cpus: &'a [String],
    /// A signature instead of the models'.
    pub(crate) signature: Option<u32>,
    /// SEV_FEATURES.
    pub(crate) sev_features: u64,
}

/// The measurements that the recipe asks to have in the manifest, and those of more TDX shapes: vCPUs, and memory in MiB.
pub(crate) fn references(
    directory: &Path,
    manifest: &Manifest,
    machine: &Machine<'_>,
    more: &[(u32, u64)],
) -> Result<ReferenceValues, Failure> {
    let wanted = manifest.recipe.image.as_ref().map(|image| image.references.clone()).unwrap_or_default();
    let snp = if manifest.artifacts.contains_key(artifact::FIRMWARE_SNP) {
        let wanted = SnpWanted {
            vcpus: &wanted.vcpus,
            cpus: &wanted.snp_cpus,
            signature: None,
            sev_features: SnpShape::SNP_ACTIVE,
        };
        snp(directory, manifest, &wanted)?
    } else {
        Vec::new()
    };
    let mut shapes = reference::shapes(&wanted.tdx_vcpus, &wanted.memory)?;
    for shape in more {
        if !shapes.contains(shape) {
            shapes.push(*shape);
        }
    }
    let tdx = match manifest.artifacts.contains_key(artifact::FIRMWARE_TDX) {
        true => vec![reference::tdx(directory, manifest, &shapes, machine)?],
        false => Vec::new(),
    };
    Ok(ReferenceValues { snp, tdx })
}

/// SNP launch digests of the image with its own firmware, for every combination that is wanted.
pub(crate) fn snp(directory: &Path, manifest: &Manifest, wanted: &SnpWanted<'_>) -> Result<Vec<SnpReference>, Failure> {
    let file = image_firmware(directory, manifest, artifact::FIRMWARE_SNP)?;
    let path = file.path.clone();
    let firmware = file.parse()?;
    let firmware_part = firmware_digest(&firmware).map_err(|error| unusable(&path, &error))?;
    let subject = SnpSubject { path: &path, firmware: &firmware, kernel_hashes: Some(kernel_hashes(manifest)?) };
    let mut digests = Vec::new();
    for cpu in wanted.cpus {
        let inputs = subject.inputs(cpu, wanted.signature, wanted.sev_features)?;
        let seed = inputs.seed_from(firmware_part).map_err(|error| unusable(&path, &error))?;
        let of_counts = launch_digests(&seed, &inputs.vcpu, wanted.vcpus).map_err(|error| unusable(&path, &error))?;
        for (vcpus, digest) in wanted.vcpus.iter().zip(of_counts) {
            digests.push(SnpReference {
                vcpus: *vcpus,
                cpu: cpu.clone(),
                cpu_signature: inputs.vcpu.signature.0,
                sev_features: wanted.sev_features,
                launch_digest: Sha384Digest(digest.0),
                id_block: None,
            });
        }
    }
    Ok(digests)
}

/// The launch digest for each vCPU count, in one pass over the vCPUs.
pub(crate) fn launch_digests(seed: &Seed, vcpu: &Vcpu, counts: &[u32]) -> Result<Vec<Digest384>, SeedError> {
    let index = |count: u32| usize::try_from(count).ok().and_then(|count| count.checked_sub(1));
    let most = counts.iter().copied().max().and_then(index).map_or(0, |last| last + 1);
    let all: Vec<Digest384> = seed.digests(vcpu).take(most).collect();
    let of = |count: &u32| {
        let index = index(*count).ok_or(SeedError::NoVcpus)?;
        all.get(index).copied().ok_or(SeedError::NoApResetVector(*count))
    };
    counts.iter().map(of).collect()
}

/// What an SNP guest is launched from.
pub(crate) struct SnpSubject<'a> {
    /// Where the firmware was read, for messages.
    pub(crate) path: &'a Path,
    /// The firmware.
    pub(crate) firmware: &'a Firmware<'a>,
    /// What is booted; `None` for `kernel-hashes=off`.
    pub(crate) kernel_hashes: Option<KernelHashes>,
}

impl<'a> SnpSubject<'a> {
    /// Everything that the launch digest depends on, for one vCPU of this model.
    pub(crate) fn inputs(
        &self,
        cpu: &str,
        signature: Option<u32>,
        sev_features: u64,
    ) -> Result<LaunchInputs<'a>, Failure> {
        let shape = Shape {
            tee: TeeShape::Snp(SnpShape {
                policy: SnpShape::DEFAULT_POLICY,
                sev_features,
                kernel_hashes: self.kernel_hashes.is_some(),
                host_data: [0; 32],
                id_block: None,
            }),
            boot: Boot::Kernel,
            vcpus: 1,
            cpu_model: cpu.to_owned(),
            memory_mib: 0,
        };
        LaunchInputs::of_shape(&shape, self.firmware, self.kernel_hashes, signature.map(CpuSignature)).map_err(
            |error| {
                Failure::new(Outcome::Usage, error.to_string())
                    .with_hint("name a model with --cpu, as QEMU names it, or a signature with --cpu-signature 0x...")
            },
        )
    }
}

/// A file whose content has no measurement.
pub(crate) fn unusable(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::new(Outcome::InputMismatch, format!("{}: {error}", path.display()))
}

/// Refuses vCPU counts that no guest has.
pub(crate) fn check_vcpus(counts: &[u32]) -> Result<(), Failure> {
    match counts.iter().find(|count| !(1..=spec::vm::MAX_VCPUS).contains(*count)) {
        Some(wrong) => Err(Failure::new(Outcome::Usage, format!("{wrong} vCPUs: use 1 to {}", spec::vm::MAX_VCPUS))),
        None => Ok(()),
    }
}

/// A memory size in MiB; refuses one that is no whole number of them.
pub(crate) fn whole_mib(memory: spec::size::Size) -> Result<u64, Failure> {
    let refused = || Failure::new(Outcome::Usage, format!("{memory} of memory is not a whole number of MiB"));
    memory.whole_mib().ok_or_else(refused)
}

/// MRTD of the image's TDX firmware.
pub(crate) fn tdx(directory: &Path, manifest: &Manifest) -> Result<TdxReference, Failure> {
    let file = image_firmware(directory, manifest, artifact::FIRMWARE_TDX)?;
    let digest = mrtd(&file.parse()?, PageOrder::SinglePass).map_err(|error| unusable(&file.path, &error))?;
    let mrtd = Sha384Digest(digest.0);
    Ok(TdxReference { firmware_sha256: file.sha256, mrtd, firmware_pin: None, platform: None, image: None, disk: None })
}

/// The hashes of kernel, initrd and command line of an image.
pub(crate) fn kernel_hashes(manifest: &Manifest) -> Result<KernelHashes, Failure> {
    let sha256 = |name: &str| {
        let missing =
            || Failure::new(Outcome::InputMismatch, format!("the manifest of {} has no {name}", manifest.name));
        Ok::<_, Failure>(Digest256(manifest.artifacts.get(name).ok_or_else(missing)?.sha256.0))
    };
    KernelHashes::new(sha256(artifact::KERNEL)?, Some(sha256(artifact::INITRD)?), manifest.command_line.as_bytes())
        .map_err(|error| Failure::new(Outcome::InputMismatch, error.to_string()))
}

/// The firmware of an image directory: the one that its manifest names, and no other. What is weighed must be what is
/// checked before a launch.
pub(crate) fn image_firmware(directory: &Path, manifest: &Manifest, name: &str) -> Result<FirmwareFile, Failure> {
    let path = directory.join(name);
    let missing = "the image has no firmware for this TEE: add it to the recipe's [firmware] and build again";
    let refused = |message: String| Failure::new(Outcome::InputMismatch, message);
    let Some(artifact) = manifest.artifacts.get(name) else {
        return Err(refused(format!("the manifest of {} has no {name}", manifest.name)).with_hint(missing));
    };
    let file = FirmwareFile::read(&path).map_err(|failure| {
        Failure { outcome: Outcome::InputMismatch, ..failure }.with_hint("the image was damaged: build it again")
    })?;
    if file.sha256 != artifact.sha256 {
        let message =
            format!("{} has SHA-256 {}, the manifest expects {}", path.display(), file.sha256, artifact.sha256);
        return Err(refused(message).with_hint("the image was changed after it was built: build it again"));
    }
    Ok(file)
}

/// The image directory that a verb is about, and the VM description that names it, if one does.
pub(crate) fn image_or_vm(subject: &Path) -> Result<(PathBuf, Option<Vm>), Failure> {
    if subject.is_dir() {
        return Ok((subject.to_owned(), None));
    }
    let (vm, image) = inputs::vm(subject)?;
    Ok((image, Some(vm)))
}
