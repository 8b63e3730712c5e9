//! ATTRIBUTES of a TD (Intel 348549, "TD Attributes"). They are not part of any register; a TD report carries them.

use alloc::vec::Vec;

/// ATTRIBUTES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes(pub u64);

impl Attributes {
    /// The host may debug the guest.
    pub const DEBUG: Self = Self(1);
    /// A fault on unaccepted memory is not turned into an exception that the host could provoke.
    pub const SEPT_VE_DISABLE: Self = Self(1 << 28);
    /// The guest may be migrated by a service TD.
    pub const MIGRATABLE: Self = Self(1 << 29);
    /// Protection keys for supervisor pages.
    pub const PKS: Self = Self(1 << 30);
    /// Key locker.
    pub const KL: Self = Self(1 << 31);
    /// Performance monitoring, through which guests sharing a core may watch each other.
    pub const PERFMON: Self = Self(1 << 63);

    /// All bits whose meaning is known; of those of the byte that holds DEBUG it is known that none may be set.
    const KNOWN: u64 = 0xff | 0xf << 28 | Self::PERFMON.0;

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What makes these attributes unfit for a release guest, by the vendor's name of each bit.
    pub fn refusals(self) -> Vec<&'static str> {
        let mut names = Vec::new();
        // All eight bits of the byte that holds DEBUG make a guest untrusted.
        names.extend((self.0 & 0xff != 0).then_some("DEBUG"));
        names.extend(self.has(Self::MIGRATABLE).then_some("MIGRATABLE"));
        names.extend(self.has(Self::PERFMON).then_some("PERFMON"));
        names.extend((!self.has(Self::SEPT_VE_DISABLE)).then_some("SEPT_VE_DISABLE not set"));
        names.extend((self.0 & !Self::KNOWN != 0).then_some("bits that are not known"));
        names
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::shape::TdxShape;

    #[test]
    fn release_guests_are_neither_debugged_nor_migrated() {
        assert_eq!(Attributes(TdxShape::SEPT_VE_DISABLE).refusals(), Vec::<&str>::new());
        assert_eq!(Attributes(1 << 63 | 1).refusals(), vec!["DEBUG", "PERFMON", "SEPT_VE_DISABLE not set"]);
        assert_eq!(Attributes(3 << 28).refusals(), vec!["MIGRATABLE"]);
    }

    #[test]
    fn bits_that_are_not_known_are_refused() {
        let known = Attributes::PKS.0 | Attributes::KL.0;
        assert_eq!(Attributes(TdxShape::SEPT_VE_DISABLE | known).refusals(), Vec::<&str>::new());
        for bit in (8..28).chain(32..63) {
            let attributes = Attributes(TdxShape::SEPT_VE_DISABLE | 1 << bit);
            assert_eq!(attributes.refusals(), vec!["bits that are not known"], "bit {bit}");
        }
    }
}
