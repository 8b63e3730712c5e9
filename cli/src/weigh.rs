//! From an image directory to expected measurements: reads the files, lets `measure` do the arithmetic.
//!
//! Kernel and initrd go in by the SHA-256 that the manifest has for them, which `build` has just computed and `measure`
//! and `launch` have just checked; only the firmware's bytes are needed.

use std::path::Path;

use measure::Digest256;
use measure::firmware::Firmware;
use measure::shape::{Shape, SnpShape, TeeShape};
use measure::snp::{CpuSignature, KernelHashes, LaunchInputs, seed::firmware_digest};
use measure::tdx::mrtd::{PageOrder, mrtd};
use spec::manifest::{Manifest, ReferenceValues, SnpReference, TdxReference, artifact};
use spec::{Outcome, Sha384Digest};

use crate::failure::Failure;

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

/// The measurements that the recipe asks to have in the manifest.
pub(crate) fn references(directory: &Path, manifest: &Manifest) -> Result<ReferenceValues, Failure> {
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
    let tdx = if manifest.artifacts.contains_key(artifact::FIRMWARE_TDX) {
        vec![tdx(directory, manifest)?]
    } else {
        Vec::new()
    };
    Ok(ReferenceValues { snp, tdx })
}

/// SNP launch digests of the image with its own firmware, for every combination that is wanted.
pub(crate) fn snp(directory: &Path, manifest: &Manifest, wanted: &SnpWanted<'_>) -> Result<Vec<SnpReference>, Failure> {
    let path = directory.join(artifact::FIRMWARE_SNP);
    let bytes = read_firmware(&path)?;
    let unusable =
        |error: &dyn std::error::Error| Failure::new(Outcome::InputMismatch, format!("{}: {error}", path.display()));
    let firmware = Firmware::parse(&bytes).map_err(|error| unusable(&error))?;
    let firmware_part = firmware_digest(&firmware).map_err(|error| unusable(&error))?;
    let mut digests = Vec::new();
    for cpu in wanted.cpus {
        let shape = Shape {
            tee: TeeShape::Snp(SnpShape {
                policy: SnpShape::DEFAULT_POLICY,
                sev_features: wanted.sev_features,
                kernel_hashes: true,
                host_data: [0; 32],
            }),
            vcpus: 1,
            cpu_model: cpu.clone(),
            memory_mib: 0,
        };
        let inputs = LaunchInputs::of_shape(
            &shape,
            &firmware,
            Some(kernel_hashes(manifest)?),
            wanted.signature.map(CpuSignature),
        )
        .map_err(|error| {
            Failure::new(Outcome::Usage, error.to_string())
                .with_hint("name a model with --cpu, as QEMU names it, or a signature with --cpu-signature 0x...")
        })?;
        let seed = inputs.seed_from(firmware_part).map_err(|error| unusable(&error))?;
        for vcpus in wanted.vcpus {
            let digest = seed.digest(&inputs.vcpu, *vcpus).map_err(|error| unusable(&error))?;
            digests.push(SnpReference {
                vcpus: *vcpus,
                cpu: cpu.clone(),
                cpu_signature: inputs.vcpu.signature.0,
                sev_features: wanted.sev_features,
                launch_digest: Sha384Digest(digest.0),
            });
        }
    }
    Ok(digests)
}

/// MRTD of the image's TDX firmware.
pub(crate) fn tdx(directory: &Path, manifest: &Manifest) -> Result<TdxReference, Failure> {
    let path = directory.join(artifact::FIRMWARE_TDX);
    let bytes = read_firmware(&path)?;
    let digest = Firmware::parse(&bytes)
        .and_then(|firmware| mrtd(&firmware, PageOrder::SinglePass))
        .map_err(|error| Failure::new(Outcome::InputMismatch, format!("{}: {error}", path.display())))?;
    let firmware_sha256 =
        manifest.artifacts.get(artifact::FIRMWARE_TDX).map_or_else(|| spec::Sha256Digest::of(&bytes), |a| a.sha256);
    Ok(TdxReference { firmware_sha256, mrtd: Sha384Digest(digest.0) })
}

fn kernel_hashes(manifest: &Manifest) -> Result<KernelHashes, Failure> {
    let sha256 = |name: &str| {
        let missing =
            || Failure::new(Outcome::InputMismatch, format!("the manifest of {} has no {name}", manifest.name));
        Ok::<_, Failure>(Digest256(manifest.artifacts.get(name).ok_or_else(missing)?.sha256.0))
    };
    KernelHashes::new(sha256(artifact::KERNEL)?, Some(sha256(artifact::INITRD)?), manifest.command_line.as_bytes())
        .map_err(|error| Failure::new(Outcome::InputMismatch, error.to_string()))
}

fn read_firmware(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        Failure::new(Outcome::InputMismatch, format!("reading {}: {error}", path.display()))
            .with_hint("the image has no firmware for this TEE: add it to the recipe's [firmware] and build again")
    })
}
