//! POLICY of a guest (AMD 56860, "Guest Policy"). It is not part of the launch digest; a report carries it.

use alloc::vec::Vec;

/// POLICY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy(pub u64);

impl Policy {
    /// SMT is allowed on the host.
    pub const SMT: Self = Self(1 << 16);
    /// Reserved, must be one.
    pub const RESERVED_ONE: Self = Self(1 << 17);
    /// A migration agent may be associated with the guest.
    pub const MIGRATE_MA: Self = Self(1 << 18);
    /// The host may decrypt the guest's memory.
    pub const DEBUG: Self = Self(1 << 19);
    /// The guest may be activated on one socket only.
    pub const SINGLE_SOCKET: Self = Self(1 << 20);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What makes this policy unfit for a release guest, by the vendor's name of each bit.
    pub fn refusals(self) -> Vec<&'static str> {
        let mut names = Vec::new();
        names.extend(self.has(Self::DEBUG).then_some("DEBUG"));
        names.extend(self.has(Self::MIGRATE_MA).then_some("MIGRATE_MA"));
        names.extend((!self.has(Self::RESERVED_ONE)).then_some("bit 17 not set"));
        names
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::shape::SnpShape;

    #[test]
    fn release_guests_are_neither_debugged_nor_migrated() {
        assert_eq!(Policy(SnpShape::DEFAULT_POLICY).refusals(), Vec::<&str>::new());
        assert_eq!(Policy(0xb_0000).refusals(), vec!["DEBUG"]);
        assert_eq!(Policy(0x4_0000).refusals(), vec!["MIGRATE_MA", "bit 17 not set"]);
    }
}
