//! Launch digests of SEV and SEV-ES guests (AMD 55766, LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA): one SHA-256 over the
//! firmware, the table of kernel hashes, and the VMSAs. What a guest owner sees is an HMAC over this digest.

use sha2::{Digest as _, Sha256};

use super::hashes::{KernelHashes, TABLE_SIZE};
use super::profile::Profile;
use super::seed::{SeedError, Vcpu};
use super::vmsa::{Role, Vmsa};
use crate::digest::Digest256;
use crate::firmware::{Firmware, FirmwareError};

/// Why a SEV or SEV-ES launch digest cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SevError {
    /// The firmware cannot be read.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The launch cannot be carried out.
    #[error(transparent)]
    Launch(#[from] SeedError),
}

/// The launch digest of a SEV guest; `kernel_hashes` is `None` for `kernel-hashes=off`.
pub fn launch_digest(firmware: &Firmware<'_>, kernel_hashes: Option<&KernelHashes>) -> Result<Digest256, SevError> {
    start(firmware, kernel_hashes).map(|hasher| Digest256(hasher.finalize().into()))
}

/// The launch digest of a SEV-ES guest. With QEMU's default VM type the profile is
/// [`super::profile::QEMU_KVM_NO_FPU_SYNC`]; SEV_FEATURES are zero whatever `vcpu` says.
pub fn es_launch_digest(
    firmware: &Firmware<'_>,
    kernel_hashes: Option<&KernelHashes>,
    vcpu: &Vcpu,
    vcpus: u32,
    profile: &Profile,
) -> Result<Digest256, SevError> {
    if vcpus == 0 {
        return Err(SeedError::NoVcpus.into());
    }
    let mut hasher = start(firmware, kernel_hashes)?;
    let page = |role| Vmsa { role, signature: vcpu.signature, sev_features: 0, profile }.page();
    hasher.update(page(Role::Bsp));
    if vcpus > 1 {
        let eip = firmware.ap_reset_eip()?.ok_or(SeedError::NoApResetVector(vcpus))?;
        let ap = page(Role::Ap { eip });
        (1..vcpus).for_each(|_| hasher.update(ap));
    }
    Ok(Digest256(hasher.finalize().into()))
}

fn start(firmware: &Firmware<'_>, kernel_hashes: Option<&KernelHashes>) -> Result<Sha256, SevError> {
    let mut hasher = Sha256::new_with_prefix(firmware.bytes());
    if let Some(hashes) = kernel_hashes {
        let area = firmware.hash_table_area()?.ok_or(SeedError::NoKernelHashesPage)?;
        if usize::try_from(area.size).is_ok_and(|size| size < TABLE_SIZE) {
            return Err(SeedError::HashTableArea { base: area.base, size: area.size }.into());
        }
        hasher.update(hashes.table());
    }
    Ok(hasher)
}
