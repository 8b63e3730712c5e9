//! What OVMF does differently from version to version, as data.
//!
//! Known are the versions whose logs were seen. edk2-stable202505 and later also measure fw_cfg files and SMBIOS tables, and
//! have other boot entries: their RTMR0 is not predicted yet, and asking for it is an error.

use crate::eventlog::SeparatorRule;

/// One range of edk2 releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// A short name for people.
    pub name: &'static str,
    /// The first release, `edk2-stableYYYYMM`, as a number.
    first: u32,
    /// The last release.
    last: u32,
    /// Whether the separator that ends PCR 2 to 6 goes into RTMR0 instead of RTMR1 (fixed by edk2 efaf8931bb).
    pub second_separator_in_rtmr0: bool,
    /// Where firmware puts the name of the initrd.
    pub initrd_argument: InitrdArgument,
}

/// How firmware tells the kernel's stub the name of the initrd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitrdArgument {
    /// `initrd=initrd` after the command line.
    After,
    /// `initrd=initrd` before it (edk2 a2ac0fea49, 202508).
    Before,
}

/// Before 202411.
pub const BEFORE_202411: Profile = Profile {
    name: "edk2-202402-to-202408",
    first: 202_402,
    last: 202_408,
    second_separator_in_rtmr0: true,
    initrd_argument: InitrdArgument::After,
};

/// 202411 and 202502.
pub const UP_TO_202502: Profile = Profile {
    name: "edk2-202411-to-202502",
    first: 202_411,
    last: 202_502,
    second_separator_in_rtmr0: false,
    initrd_argument: InitrdArgument::After,
};

/// All profiles.
pub const ALL: [&Profile; 2] = [&BEFORE_202411, &UP_TO_202502];

/// A release whose events are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("which events firmware built from \"{0}\" measures is not known: its RTMRs are not predicted")]
pub struct UnknownProfile(pub alloc::string::String);

impl Profile {
    /// The profile of a release, as `firmware/pins.toml` names it: `edk2-stable202502`.
    pub fn of_release(edk2: &str) -> Result<&'static Self, UnknownProfile> {
        let digits = edk2.strip_prefix("edk2-stable").filter(|digits| digits.len() == 6);
        let release: Option<u32> = digits.and_then(|digits| digits.parse().ok());
        let known = |release| ALL.into_iter().find(|profile| (profile.first..=profile.last).contains(&release));
        release.and_then(known).ok_or_else(|| UnknownProfile(edk2.into()))
    }
}

impl Profile {
    /// How many separators a log of such firmware may have.
    pub fn separator_rule(&self) -> SeparatorRule {
        if self.second_separator_in_rtmr0 { SeparatorRule::TwiceInRtmr0 } else { SeparatorRule::OncePerRegister }
    }

    /// Whether such firmware prefers the unchanged kernel that QEMU 10.0 and later offer.
    pub fn takes_raw_kernel(&self) -> bool {
        self.last >= 202_502
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_that_were_seen() {
        assert_eq!(Profile::of_release("edk2-stable202402").unwrap(), &BEFORE_202411);
        assert_eq!(Profile::of_release("edk2-stable202502").unwrap(), &UP_TO_202502);
        for unknown in
            ["edk2-stable202505", "edk2-stable202608", "edk2-stable2025020", "202502", "edk2-stable+02502", ""]
        {
            assert!(Profile::of_release(unknown).is_err(), "{unknown}");
        }
    }
}
