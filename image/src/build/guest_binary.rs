//! Whether the given guest binary can be the first process of a guest at all. Nothing locks it, and a wrong one would
//! be found out only when the guest panics: there is no dynamic loader in the initrd, and its size is measured.

use object::LittleEndian;
use object::elf::{EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PT_INTERP, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use super::BuildError;

/// The largest guest binary in bytes.
pub(super) const MAX_BYTES: usize = 6_000_000;

/// Refuses what is no static ELF program for x86-64 (ELF gABI, "ELF header" and "Program header"), or is too large.
pub(super) fn check(bytes: &[u8]) -> Result<(), BuildError> {
    if bytes.len() > MAX_BYTES {
        return Err(BuildError::GuestSize { size: bytes.len() });
    }
    check_elf(bytes).map_err(|reason| BuildError::Guest { reason })
}

fn check_elf(bytes: &[u8]) -> Result<(), &'static str> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).map_err(|_| "it is no ELF file of 64 bits")?;
    let endian = header.endian().map_err(|_| "it is no little-endian ELF file")?;
    if header.e_machine(endian) != EM_X86_64 {
        return Err("it is for another processor");
    }
    // A position-independent program and a shared library have the same type; only the program has an entry.
    if !matches!(header.e_type(endian), ET_EXEC | ET_DYN) || header.e_entry(endian) == 0 {
        return Err("it is no program");
    }
    let segments = header.program_headers(endian, bytes).map_err(|_| "its program headers are outside the file")?;
    let has = |wanted| segments.iter().any(|segment| segment.p_type(endian) == wanted);
    match (has(PT_INTERP), has(PT_LOAD)) {
        (true, _) => Err("it is linked dynamically and needs a loader that the guest does not have"),
        (false, false) => Err("it has no segment to load"),
        (false, true) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use spec::{Diagnostic as _, Outcome};

    use super::*;

    const HEADER: usize = 64;
    const SEGMENT: usize = 56;

    /// An ELF header, program headers of these types and nothing else.
    fn elf(kind: u16, machine: u16, segments: &[u32]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        bytes.extend([kind.to_le_bytes(), machine.to_le_bytes()].concat());
        bytes.extend(1u32.to_le_bytes());
        // e_entry, e_phoff, e_shoff.
        bytes.extend([0x40_1000u64, HEADER as u64, 0].map(u64::to_le_bytes).concat());
        bytes.extend(0u32.to_le_bytes());
        let count = u16::try_from(segments.len()).unwrap();
        bytes.extend([64u16, 56, count, 64, 0, 0].map(u16::to_le_bytes).concat());
        for kind in segments {
            bytes.extend(kind.to_le_bytes());
            bytes.resize(bytes.len() + SEGMENT - 4, 0);
        }
        bytes
    }

    fn refused(bytes: &[u8]) -> String {
        let error = check(bytes).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Usage);
        assert!(error.hint().unwrap().starts_with("build it with scripts/build-guest"));
        error.to_string()
    }

    #[test]
    fn static_programs_are_taken() {
        // ET_EXEC, and ET_DYN as `-static-pie` makes it. 62 is x86-64; 1 is PT_LOAD, 2 PT_DYNAMIC, 6 PT_PHDR.
        check(&elf(2, 62, &[1])).unwrap();
        check(&elf(3, 62, &[6, 1, 2])).unwrap();
    }

    #[test]
    fn what_cannot_start_is_refused() {
        assert!(refused(b"#!/bin/sh\n").contains("no ELF file"));
        assert!(refused(b"").contains("no ELF file"));
        assert!(refused(&elf(2, 183, &[1])).contains("another processor"), "AArch64");
        assert!(refused(&elf(1, 62, &[1])).contains("no program"), "ET_REL");
        assert!(refused(&elf(3, 62, &[6, 3, 1])).contains("linked dynamically"), "PT_INTERP");
        assert!(refused(&elf(2, 62, &[])).contains("no segment"));
        assert!(refused(&elf(2, 62, &[1])[..100]).contains("outside the file"));
        let mut library = elf(3, 62, &[1]);
        library[24..32].fill(0);
        assert!(refused(&library).contains("no program"), "no entry");
    }

    #[test]
    fn programs_of_this_host_are_judged_by_how_they_were_linked() {
        // This test itself was linked by a linker that we did not write, dynamically unless the target says otherwise.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let judged = check_elf(&own);
        assert_eq!(judged.is_ok(), cfg!(target_feature = "crt-static"), "{judged:?}");
    }

    #[test]
    fn a_program_of_more_than_six_megabytes_is_refused() {
        let mut large = elf(2, 62, &[1]);
        large.resize(6_000_000, 0);
        check(&large).unwrap();
        large.push(0);
        assert!(refused(&large).contains("6000001 bytes, at most 6000000"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
            at in 0..232usize,
        ) {
            let _ = check(&bytes);
            let mut damaged = elf(3, 62, &[6, 1, 2]);
            let end = (at + bytes.len()).min(damaged.len());
            damaged[at..end].copy_from_slice(&bytes[..end - at]);
            let _ = check(&damaged);
            damaged.truncate(at);
            let _ = check(&damaged);
        }
    }
}
