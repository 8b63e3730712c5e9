//! SEV_FEATURES of a VMSA (AMD 24593, VMSA layout): bits, their names, and what a VMM gives.

use alloc::vec::Vec;

/// SNPActive: set in every SEV-SNP guest.
pub const SNP_ACTIVE: u64 = 1 << 0;
/// DebugSwap: AMD's own host kernels 6.6 to 6.8 set it by default.
pub const DEBUG_SWAP: u64 = 1 << 5;
/// SecureTSC.
pub const SECURE_TSC: u64 = 1 << 9;

const NAMES: [(u32, &str); 14] = [
    (0, "SNPActive"),
    (1, "vTOM"),
    (2, "ReflectVC"),
    (3, "RestrictedInjection"),
    (4, "AlternateInjection"),
    (5, "DebugSwap"),
    (6, "PreventHostIBS"),
    (7, "BTBIsolation"),
    (8, "VmplSSS"),
    (9, "SecureTSC"),
    (10, "VmgexitParameter"),
    (12, "IbsVirtualization"),
    (14, "VmsaRegProt"),
    (15, "SmtProtection"),
];

/// The names of the bits set in `features`, and the bits that have no name here.
pub fn names(features: u64) -> (Vec<&'static str>, u64) {
    let bit = |shift: &u32| 1_u64.checked_shl(*shift).unwrap_or_default();
    let set = NAMES.iter().filter(|(shift, _)| features & bit(shift) != 0);
    let known = NAMES.iter().fold(0, |mask, (shift, _)| mask | bit(shift));
    (set.map(|(_, name)| *name).collect(), features & !known)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn bits_have_names() {
        assert_eq!(names(SNP_ACTIVE | SECURE_TSC), (vec!["SNPActive", "SecureTSC"], 0));
        assert_eq!(names(1 << 63 | DEBUG_SWAP), (vec!["DebugSwap"], 1 << 63));
    }
}
