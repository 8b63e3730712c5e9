//! From the description of a guest to its launch digest: the one place where a [`Shape`] becomes SEV-SNP inputs.

use alloc::vec;
use alloc::vec::Vec;

use super::cpu::{self, CpuError, CpuSignature};
use super::hashes::KernelHashes;
use super::profile::{self, Profile};
use super::seed::{Seed, SeedError, Step, Vcpu, firmware_digest, firmware_step};
use crate::digest::Digest384;
use crate::firmware::{Firmware, FirmwareError};
use crate::shape::{Shape, TeeShape};

/// A shape that has no SEV-SNP launch digest, or whose digest cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The guest is not a SEV-SNP guest.
    #[error("the guest is not a SEV-SNP guest: it has no launch digest")]
    NotSnp,
    /// The shape says kernel hashes are measured, and there are none; or the other way round.
    #[error("the shape says kernel-hashes={}, and {} hashes of a kernel were given", if *.wanted { "on" } else { "off" }, if *.wanted { "no" } else { "the" })]
    KernelHashes {
        /// What the shape says.
        wanted: bool,
    },
    /// The CPU model has no known signature.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The firmware cannot be read.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The launch cannot be carried out.
    #[error(transparent)]
    Seed(#[from] SeedError),
}

/// Everything that a SEV-SNP launch digest depends on.
#[derive(Clone, Debug)]
pub struct LaunchInputs<'a> {
    /// The firmware image.
    pub firmware: &'a Firmware<'a>,
    /// What is booted; `None` for `kernel-hashes=off`.
    pub kernel_hashes: Option<KernelHashes>,
    /// What is measured of each vCPU.
    pub vcpu: Vcpu,
    /// How many vCPUs are created.
    pub vcpus: u32,
    /// What the VMM does differently.
    pub profile: Profile,
}

impl<'a> LaunchInputs<'a> {
    /// The inputs of a shape that QEMU launches on KVM. `signature` overrides that of the shape's CPU model.
    pub fn of_shape(
        shape: &Shape,
        firmware: &'a Firmware<'a>,
        kernel_hashes: Option<KernelHashes>,
        signature: Option<CpuSignature>,
    ) -> Result<Self, ShapeError> {
        let TeeShape::Snp(snp) = &shape.tee else { return Err(ShapeError::NotSnp) };
        if snp.kernel_hashes != kernel_hashes.is_some() {
            return Err(ShapeError::KernelHashes { wanted: snp.kernel_hashes });
        }
        let signature = cpu::signature(&shape.cpu_model, signature)?;
        Ok(Self {
            firmware,
            kernel_hashes,
            vcpu: Vcpu { signature, sev_features: snp.sev_features },
            vcpus: shape.vcpus,
            profile: profile::QEMU_KVM,
        })
    }

    /// The seed: what is the same for every vCPU count and CPU model.
    pub fn seed(&self) -> Result<Seed, ShapeError> {
        self.seed_from(firmware_digest(self.firmware)?)
    }

    /// The seed, where the digest of the firmware image ([`firmware_digest`]) is known already.
    pub fn seed_from(&self, firmware_digest: Digest384) -> Result<Seed, ShapeError> {
        let layout = self.firmware.sev_layout()?;
        Ok(Seed::new(firmware_digest, &layout, self.kernel_hashes.as_ref(), &self.profile)?)
    }

    /// The launch digest.
    pub fn digest(&self) -> Result<Digest384, ShapeError> {
        Ok(self.seed()?.digest(&self.vcpu, self.vcpus)?)
    }

    /// Every launched range, the firmware first, with the digest after it; the last is the launch digest.
    pub fn steps(&self) -> Result<Vec<Step>, ShapeError> {
        let firmware = firmware_step(self.firmware)?;
        let mut steps = vec![firmware];
        steps.extend(self.seed_from(firmware.digest)?.steps(&self.vcpu, self.vcpus)?);
        Ok(steps)
    }
}
