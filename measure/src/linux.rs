//! What of a Linux kernel file decides what is measured: its version, from the setup header of a bzImage
//! (Linux `Documentation/arch/x86/boot.rst`), and whether QEMU changes that header before firmware hashes it.

use crate::read::{Reader, slice_at};

/// A file that is not a bzImage with a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// There is no setup header.
    #[error("this is not a bzImage: there is no HdrS at {HEADER_AT:#x}")]
    NoHeader,
    /// The version is missing or no text.
    #[error("the kernel does not say its version")]
    NoVersion,
}

const HEADER_AT: usize = 0x202;
/// Where the header says where the version is, counted from 0x200.
const VERSION_POINTER_AT: usize = 0x20e;
const VERSION_BASE: usize = 0x200;
/// Longer than any version that was ever built.
const VERSION_MAX: usize = 256;

/// The version as the kernel was built: `6.12.117+deb13-cloud-amd64`, without what follows the first blank.
pub fn version(kernel: &[u8]) -> Result<&str, KernelError> {
    if slice_at(kernel, HEADER_AT, 4) != Some(b"HdrS") {
        return Err(KernelError::NoHeader);
    }
    let pointer = kernel.get(VERSION_POINTER_AT..).and_then(|header| Reader::new(header).u16());
    let start = usize::from(pointer.filter(|pointer| *pointer != 0).ok_or(KernelError::NoVersion)?);
    let text = kernel.get(start.saturating_add(VERSION_BASE)..).unwrap_or_default();
    let end = text.iter().take(VERSION_MAX).position(|byte| matches!(byte, 0 | b' ')).ok_or(KernelError::NoVersion)?;
    let version = text.get(..end).and_then(|text| core::str::from_utf8(text).ok()).ok_or(KernelError::NoVersion)?;
    let is_version = version.starts_with(|c: char| c.is_ascii_digit());
    is_version.then_some(version).ok_or(KernelError::NoVersion)
}

/// Whether the EFI stub of a kernel of this version measures load options and initrd for TDX: Linux 6.9 and later. `None`
/// where the version is not understood.
pub fn stub_measures(version: &str) -> Option<bool> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some((major, minor) >= (6, 9))
}

/// A version of QEMU: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion(pub u32, pub u32);

/// Whether firmware hashes the kernel file as it is. Older QEMU writes loader fields into the setup header, so that the
/// Authenticode digest depends on the size of the initrd and on memory; QEMU 10.0 also offers the raw file, which firmware
/// takes since edk2-stable202502; and 10.2 leaves the header alone for confidential guests (QEMU a7542a38f399).
pub fn is_measured_raw(qemu: QemuVersion, firmware_takes_raw_kernel: bool) -> bool {
    qemu >= QemuVersion(10, 2) || (qemu >= QemuVersion(10, 0) && firmware_takes_raw_kernel)
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn kernel(version: &[u8]) -> Vec<u8> {
        let mut kernel = vec![0; 0x400];
        kernel[0x202..0x206].copy_from_slice(b"HdrS");
        kernel[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        kernel[0x300..0x300 + version.len()].copy_from_slice(version);
        kernel
    }

    #[test]
    fn versions_are_read() {
        let bytes = kernel(b"6.12.117+deb13-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP\0");
        assert_eq!(version(&bytes), Ok("6.12.117+deb13-cloud-amd64"));
        assert_eq!(version(&bytes[..0x310]), Err(KernelError::NoVersion));
        assert_eq!(version(&bytes[..0x204]), Err(KernelError::NoHeader));
        assert_eq!(version(&kernel(b"\xff.1 ")), Err(KernelError::NoVersion));
        assert_eq!(version(b""), Err(KernelError::NoHeader));
        let mut without = bytes;
        without[0x20e..0x210].fill(0);
        assert_eq!(version(&without), Err(KernelError::NoVersion));
    }

    #[test]
    fn stubs_measure_since_6_9() {
        for (version, measures) in
            [("6.8.12", false), ("6.9", true), ("6.12.117+deb13", true), ("7.3.4", true), ("5.19", false)]
        {
            assert_eq!(stub_measures(version), Some(measures), "{version}");
        }
        for unknown in ["", "six", "6", "6.x", "99999999999.1"] {
            assert_eq!(stub_measures(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn raw_kernels() {
        for (qemu, firmware, raw) in [
            ((10, 2), false, true),
            ((11, 1), false, true),
            ((10, 1), true, true),
            ((10, 1), false, false),
            ((9, 2), true, false),
        ] {
            assert_eq!(is_measured_raw(QemuVersion(qemu.0, qemu.1), firmware), raw, "{qemu:?} {firmware}");
        }
    }
}
