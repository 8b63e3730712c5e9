//! Which file of an image moves which measured value, where the kernel is started directly (`-kernel`) and where firmware starts
//! the image's disk.
//!
//! A table for people who read a difference. What exactly is hashed, and in which order, is the business of `measure`.

use spec::manifest::artifact;

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Its name.
    pub name: &'static str,
    /// The artifacts that it covers itself.
    pub of: &'static [&'static str],
    /// Who measures it, and what else goes into it.
    pub how: &'static str,
}

/// The root hash, which is measured as a word of the command line.
pub const ROOT_HASH: &str = "dm-verity root hash";
/// The launch digest of SEV-SNP.
pub const SNP: &str = "SNP launch digest";
/// TDX's measurement of the firmware.
pub const MRTD: &str = "MRTD";
/// TDX's registers for firmware and what it starts.
pub const RTMR: [&str; 3] = ["RTMR0", "RTMR1", "RTMR2"];

/// The same where firmware starts the disk.
pub const RTMR_OF_DISK: [&str; 3] = ["RTMR0 from disk", "RTMR1 from disk", "RTMR2 from disk"];

const DIRECT: [&str; 4] = [artifact::FIRMWARE_SNP, artifact::KERNEL, artifact::INITRD, artifact::COMMAND_LINE];

/// All of them.
pub const MEASURED: [Measured; 9] = [
    Measured {
        name: ROOT_HASH,
        of: &[artifact::ROOTFS],
        how: "a word of cmdline; the guest's kernel checks each block",
    },
    Measured { name: SNP, of: &DIRECT, how: "by the secure processor, with vCPU count and CPU signature" },
    Measured { name: MRTD, of: &[artifact::FIRMWARE_TDX], how: "by the TDX module, without the variable store" },
    Measured { name: RTMR[0], of: &[artifact::FIRMWARE_TDX], how: "by firmware: its variables, and the machine" },
    Measured { name: RTMR[1], of: &[artifact::KERNEL], how: "by firmware" },
    Measured { name: RTMR[2], of: &[artifact::COMMAND_LINE, artifact::INITRD], how: "by the kernel's EFI stub" },
    Measured {
        name: RTMR_OF_DISK[0],
        of: &[artifact::FIRMWARE_TDX],
        how: "by firmware: its variables, and the machine",
    },
    Measured {
        name: RTMR_OF_DISK[1],
        of: &[artifact::KERNEL, artifact::INITRD, artifact::COMMAND_LINE, artifact::UKI, artifact::DISK],
        how: "by firmware: the partition table, the unified kernel image as a whole",
    },
    Measured {
        name: RTMR_OF_DISK[2],
        of: &[artifact::KERNEL, artifact::INITRD, artifact::COMMAND_LINE, artifact::UKI],
        how: "by systemd's stub, section by section, and the kernel's EFI stub",
    },
];

/// Whether a value is measured of this image: a TEE without firmware in it measures nothing, and nothing starts a disk that is not there.
pub fn is_measured_of(name: &str, has: impl Fn(&str) -> bool) -> bool {
    match name {
        SNP => has(artifact::FIRMWARE_SNP),
        _ if RTMR_OF_DISK.contains(&name) => has(artifact::FIRMWARE_TDX) && has(artifact::DISK),
        _ if name == MRTD || RTMR.contains(&name) => has(artifact::FIRMWARE_TDX),
        _ => true,
    }
}

/// The values that a change of this artifact can move: those that cover it, and through the root hash those that cover the
/// command line. Those of a disk boot only where an image has one.
pub fn moved_by(name: &str, has_disk: bool) -> Vec<&'static str> {
    let covers = |value: &&Measured| {
        (has_disk || !RTMR_OF_DISK.contains(&value.name))
            && (value.of.contains(&name) || (name == artifact::ROOTFS && value.of.contains(&artifact::COMMAND_LINE)))
    };
    MEASURED.iter().filter(covers).map(|value| value.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_file_system_moves_what_covers_the_command_line() {
        assert_eq!(moved_by(artifact::ROOTFS, false), [ROOT_HASH, SNP, "RTMR2"]);
        let of_disk = ["RTMR1 from disk", "RTMR2 from disk"];
        assert_eq!(moved_by(artifact::ROOTFS, true), [&[ROOT_HASH, SNP, "RTMR2"][..], &of_disk].concat());
        assert_eq!(moved_by(artifact::KERNEL, false), [SNP, "RTMR1"]);
        assert_eq!(moved_by(artifact::FIRMWARE_TDX, false), [MRTD, "RTMR0"]);
        assert_eq!(moved_by(artifact::DISK, true), ["RTMR1 from disk"]);
        assert!(moved_by("recipe.lock", true).is_empty());
    }
}
