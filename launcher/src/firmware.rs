//! Which firmware a TEE may be launched with: one that is pinned, and that enforces what is measured.

use measure::shape::Boot;
use spec::manifest::{Manifest, artifact};
use spec::pins::{Firmware, MemoryAcceptance, Pins, SecureBoot};
use spec::size::Size;
use spec::{Diagnostic, Outcome, Sha256Digest, Tee};

/// A firmware that a TEE is not launched with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// The image has none for this TEE.
    #[error("image {image} has no firmware for {tee}: there is no artifact \"{name}\"")]
    Missing {
        /// The image's name.
        image: String,
        /// The TEE.
        tee: Tee,
        /// The artifact's name.
        name: &'static str,
    },
    /// Nothing is known about it.
    #[error("firmware {sha256} is not pinned: what it enforces is not known")]
    NotPinned {
        /// Its digest.
        sha256: Sha256Digest,
    },
    /// It is not meant for this TEE.
    #[error("firmware \"{name}\" may not be launched in {tee}: it is pinned for {}", list(.allowed))]
    WrongTee {
        /// The pin's name.
        name: String,
        /// The TEE.
        tee: Tee,
        /// The TEEs it is pinned for.
        allowed: Vec<Tee>,
    },
    /// It takes the VMM's word.
    #[error(
        "firmware \"{name}\" keeps the VMM inside its trust boundary: what a {tee} guest measures with it proves nothing"
    )]
    TrustsVmm {
        /// The pin's name.
        name: String,
        /// The TEE.
        tee: Tee,
    },
    /// It measures the kernel's hashes and starts another kernel all the same.
    #[error(
        "firmware \"{name}\" does not enforce the measured kernel hashes: another kernel would start under the same launch digest"
    )]
    NotEnforcing {
        /// The pin's name.
        name: String,
    },
    /// It starts signed kernels only.
    #[error("firmware \"{name}\" has Secure Boot keys enrolled: the image's unsigned kernel will not start")]
    SecureBootEnrolled {
        /// The pin's name.
        name: String,
    },
    /// It accepts all memory before the kernel starts, and that is a lot.
    #[error(
        "firmware \"{name}\" accepts all of the guest's {memory} before it starts the kernel: with {EAGER_LIMIT} and more that takes \
         longer than anybody waits"
    )]
    AcceptsAll {
        /// The pin's name.
        name: String,
        /// The guest's memory.
        memory: Size,
    },
}

/// TDX guests of this size and larger are not launched with firmware that accepts all memory itself: of 64 GiB nothing was seen on the
/// console after 90 s, and larger ones exceeded 20 minutes (kata-containers issue 13535).
const EAGER_LIMIT: Size = Size { bytes: 64 << 30 };

fn list(tees: &[Tee]) -> String {
    if tees.is_empty() { "no TEE".to_owned() } else { tees.iter().map(Tee::to_string).collect::<Vec<_>>().join(", ") }
}

impl Diagnostic for FirmwareError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Missing { .. } => Outcome::InputMismatch,
            _ => Outcome::Refused,
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { tee: Tee::None, .. } => {
                "add [firmware.tdx] to the recipe and build the image again: it starts disks without a TEE too"
                    .to_owned()
            }
            Self::Missing { tee, .. } => format!("name it in the recipe's [firmware.{tee}] and build the image again"),
            Self::NotPinned { .. } => {
                "add it to firmware/pins.toml once you know what it enforces, or run the launch with `--simulate`"
                    .to_owned()
            }
            Self::WrongTee { .. } | Self::TrustsVmm { .. } | Self::NotEnforcing { .. } => {
                "SEV-SNP needs an AmdSevX64 build, TDX an IntelTdxX64 build".to_owned()
            }
            Self::SecureBootEnrolled { .. } => "use a build of the firmware without enrolled keys".to_owned(),
            Self::AcceptsAll { .. } => {
                "use firmware of edk2-stable202211 or later, which leaves memory above 4 GiB to the kernel, or less memory".to_owned()
            }
        })
    }
}

/// The artifact that holds the firmware of a guest; none where QEMU's own starts the kernel. Without a TEE, a disk is started by the
/// firmware for TDX, which starts it there.
pub fn artifact_name(tee: Tee, boot: Boot) -> Option<&'static str> {
    match (tee, boot) {
        (Tee::None, Boot::Kernel) => None,
        (Tee::Snp, _) => Some(artifact::FIRMWARE_SNP),
        (Tee::Tdx, _) | (Tee::None, Boot::Disk) => Some(artifact::FIRMWARE_TDX),
    }
}

/// The digest of the firmware that the image has for such a guest; `None` where it needs none.
pub fn of_image(manifest: &Manifest, tee: Tee, boot: Boot) -> Result<Option<Sha256Digest>, FirmwareError> {
    let Some(name) = artifact_name(tee, boot) else { return Ok(None) };
    let missing = || FirmwareError::Missing { image: manifest.name.clone(), tee, name };
    Ok(Some(manifest.artifacts.get(name).ok_or_else(missing)?.sha256))
}

/// The pin of `sha256`, if a guest with a direct kernel and this much memory may be launched in `tee` with it.
pub fn allow<'a>(pins: &'a Pins, sha256: &Sha256Digest, tee: Tee, memory: Size) -> Result<&'a Firmware, FirmwareError> {
    let firmware = pins.find(sha256).ok_or(FirmwareError::NotPinned { sha256: *sha256 })?;
    let name = firmware.name.clone();
    if firmware.vmm_in_trust_boundary {
        return Err(FirmwareError::TrustsVmm { name, tee });
    }
    if !firmware.tees.contains(&tee) {
        return Err(FirmwareError::WrongTee { name, tee, allowed: firmware.tees.clone() });
    }
    if tee == Tee::Snp && !firmware.enforces_kernel_hashes {
        return Err(FirmwareError::NotEnforcing { name });
    }
    if firmware.secure_boot == SecureBoot::Enrolled {
        return Err(FirmwareError::SecureBootEnrolled { name });
    }
    let is_eager = firmware.memory_acceptance == Some(MemoryAcceptance::Eager);
    if tee == Tee::Tdx && is_eager && memory >= EAGER_LIMIT {
        return Err(FirmwareError::AcceptsAll { name, memory });
    }
    Ok(firmware)
}

#[cfg(test)]
mod tests {
    use spec::pins::Platform;

    use super::*;

    fn pin() -> Firmware {
        Firmware {
            name: "f".to_owned(),
            sha256: Sha256Digest([1; 32]),
            package: String::new(),
            path: String::new(),
            edk2: String::new(),
            platform: Platform::AmdSevX64,
            enforces_kernel_hashes: true,
            secure_boot: SecureBoot::Absent,
            vmm_in_trust_boundary: false,
            tees: vec![Tee::Snp, Tee::Tdx],
            memory_acceptance: Some(MemoryAcceptance::Lazy),
            snp: None,
            tdx: None,
            bios: None,
            events_judged_by: vec![],
        }
    }

    fn refusal(change: impl FnOnce(&mut Firmware), tee: Tee) -> Option<FirmwareError> {
        refusal_with(Size::from_mib(1 << 20), change, tee)
    }

    fn refusal_with(memory: Size, change: impl FnOnce(&mut Firmware), tee: Tee) -> Option<FirmwareError> {
        let mut firmware = pin();
        change(&mut firmware);
        allow(&Pins { schema: 1, firmware: vec![firmware] }, &Sha256Digest([1; 32]), tee, memory).err()
    }

    #[test]
    fn eager_firmware_is_refused_with_memory_that_it_would_not_be_done_with() {
        let eager = |firmware: &mut Firmware| firmware.memory_acceptance = Some(MemoryAcceptance::Eager);
        let (below, from) = (Size::from_mib((64 << 10) - 1), Size::from_mib(64 << 10));
        assert_eq!(refusal_with(below, eager, Tee::Tdx), None);
        let refused = FirmwareError::AcceptsAll { name: "f".to_owned(), memory: from };
        assert!(refused.to_string().contains("all of the guest's 64GiB before it starts the kernel"), "{refused}");
        assert_eq!(refusal_with(from, eager, Tee::Tdx), Some(refused));
        assert_eq!(refusal_with(from, |_| {}, Tee::Tdx), None);
        // Nobody has measured it for SEV-SNP, where pages are validated by an instruction.
        assert_eq!(refusal_with(from, eager, Tee::Snp), None);
    }

    #[test]
    fn each_reason_refuses() {
        let name = || "f".to_owned();
        assert_eq!(refusal(|_| {}, Tee::Snp), None);
        assert_eq!(
            refusal(|f| f.enforces_kernel_hashes = false, Tee::Tdx),
            None,
            "TDX measures the kernel at run time"
        );
        assert_eq!(
            refusal(|f| f.enforces_kernel_hashes = false, Tee::Snp),
            Some(FirmwareError::NotEnforcing { name: name() })
        );
        assert_eq!(
            refusal(|f| f.tees.clear(), Tee::Snp),
            Some(FirmwareError::WrongTee { name: name(), tee: Tee::Snp, allowed: vec![] })
        );
        assert_eq!(
            refusal(|f| f.vmm_in_trust_boundary = true, Tee::Tdx),
            Some(FirmwareError::TrustsVmm { name: name(), tee: Tee::Tdx })
        );
        assert_eq!(
            refusal(|f| f.secure_boot = SecureBoot::Enrolled, Tee::Tdx),
            Some(FirmwareError::SecureBootEnrolled { name: name() })
        );
        assert!(matches!(
            refusal(|f| f.sha256 = Sha256Digest([2; 32]), Tee::Snp),
            Some(FirmwareError::NotPinned { .. })
        ));
    }
}
