//! What OVMF does differently from version to version and from build to build, as data.
//!
//! Known are the builds whose logs or whose boots were seen; for any other, asking is an error.

use crate::eventlog::SeparatorRule;
use crate::guid::Guid;

/// One range of edk2 releases, for some of the builds of OVMF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// A short name for people.
    pub name: &'static str,
    /// The first release, `edk2-stableYYYYMM`, as a number.
    first: u32,
    /// The last release.
    last: u32,
    /// The builds, as `firmware/pins.toml` names them; empty for all.
    builds: &'static [&'static str],
    /// Whether the separator that ends PCR 2 to 6 goes into RTMR0 instead of RTMR1 (fixed by edk2 efaf8931bb).
    pub second_separator_in_rtmr0: bool,
    /// Where firmware puts the name of the initrd.
    pub initrd_argument: InitrdArgument,
    /// Whether SMBIOS tables are measured, and in TDX guests the settings that firmware takes from QEMU (edk2 be529ef3c9 and
    /// what came with it, 202505).
    pub measures_settings: bool,
    /// Whether, where Secure Boot is built in (and SMM with it), the SMBIOS tables come after the separators: drivers start in another order
    /// there.
    pub smbios_last_with_secure_boot: bool,
    /// The boot entries that firmware makes by itself, before it starts the kernel that QEMU gives it.
    pub boot_entries: &'static [FirmwareApplication],
    /// What is different where it starts a disk; `None` where it was never seen to.
    pub disk_boot: Option<DiskBoot>,
}

/// What firmware does where QEMU gives it no kernel and it starts a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskBoot {
    /// The boot entries that it makes by itself once it has one for each disk.
    pub later_entries: &'static [FirmwareApplication],
    /// Whether the kernel's first ExitBootServices fails, because drivers that firmware starts for the machine's devices change
    /// its memory map in the last moment; it is measured, and the kernel tries again. `None` where that was never seen.
    pub first_exit_fails: Option<bool>,
}

/// A program in the firmware that is a boot entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareApplication {
    /// What the entry is called.
    pub description: &'static str,
    /// LOAD_OPTION_* attributes.
    pub attributes: u32,
    /// The name of its file in the firmware volume.
    pub file: Guid,
}

/// LOAD_OPTION_ACTIVE and LOAD_OPTION_CATEGORY_APP.
const APPLICATION: u32 = 0x101;
/// The same with LOAD_OPTION_HIDDEN.
const HIDDEN_APPLICATION: u32 = 0x109;
const UI_APP_FILE: Guid = Guid::new(0x462caa21, 0x7614, 0x4503, [0x83, 0x6e, 0x8a, 0xb6, 0xf4, 0x66, 0x23, 0x31]);
const MENU_FILE: Guid = Guid::new(0xeec25bdc, 0x67f2, 0x4d95, [0xb1, 0xd5, 0xf8, 0x1b, 0x20, 0x39, 0xd1, 0x1d]);
const UI_APP: FirmwareApplication =
    FirmwareApplication { description: "UiApp", attributes: HIDDEN_APPLICATION, file: UI_APP_FILE };
const MENU: FirmwareApplication =
    FirmwareApplication { description: "BootManagerMenuApp", attributes: HIDDEN_APPLICATION, file: MENU_FILE };
const SHELL_FILE: Guid = Guid::new(0x7c04a583, 0x9e3e, 0x4f1c, [0xad, 0x65, 0xe0, 0x52, 0x68, 0xd0, 0xb4, 0xd1]);
const SHELL: FirmwareApplication =
    FirmwareApplication { description: "EFI Internal Shell", attributes: APPLICATION, file: SHELL_FILE };
const SETUP: FirmwareApplication =
    FirmwareApplication { description: "EFI Firmware Setup", attributes: APPLICATION, file: UI_APP_FILE };

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
    builds: &[],
    second_separator_in_rtmr0: true,
    initrd_argument: InitrdArgument::After,
    measures_settings: false,
    smbios_last_with_secure_boot: false,
    boot_entries: &[UI_APP],
    disk_boot: None,
};

/// 202411 and 202502.
pub const UP_TO_202502: Profile = Profile {
    name: "edk2-202411-to-202502",
    first: 202_411,
    last: 202_502,
    second_separator_in_rtmr0: false,
    ..BEFORE_202411
};

/// IntelTdxX64 of 202511.
pub const INTEL_TDX_202511: Profile = Profile {
    name: "edk2-202511-IntelTdxX64",
    first: 202_511,
    last: 202_511,
    builds: &["IntelTdxX64"],
    initrd_argument: InitrdArgument::Before,
    measures_settings: true,
    boot_entries: &[MENU, SETUP],
    ..UP_TO_202502
};

/// IntelTdxX64 of 202608: the setup program is in a volume that TDX guests do not read (edk2 03a07cb0f5, f272dd7ea3).
pub const INTEL_TDX_202608: Profile = Profile {
    name: "edk2-202608-IntelTdxX64",
    first: 202_608,
    last: 202_608,
    boot_entries: &[MENU],
    // Its boot entries were seen without a TEE, where it measures nothing.
    disk_boot: Some(DiskBoot { later_entries: &[], first_exit_fails: None }),
    ..INTEL_TDX_202511
};

/// OvmfPkgX64 of 202608.
pub const OVMF_202608: Profile = Profile {
    name: "edk2-202608-OvmfPkgX64",
    builds: &["OvmfPkgX64"],
    smbios_last_with_secure_boot: true,
    boot_entries: &[MENU, SETUP],
    disk_boot: Some(DiskBoot { later_entries: &[SHELL], first_exit_fails: Some(true) }),
    ..INTEL_TDX_202608
};

/// All profiles.
pub const ALL: [&Profile; 5] = [&BEFORE_202411, &UP_TO_202502, &INTEL_TDX_202511, &INTEL_TDX_202608, &OVMF_202608];

/// A release whose events are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("which events {build} firmware built from \"{edk2}\" measures is not known: its registers are not predicted")]
pub struct UnknownProfile {
    /// The edk2 release as given.
    pub edk2: alloc::string::String,
    /// The build as given.
    pub build: alloc::string::String,
}

impl Profile {
    /// The profile of a firmware image, by what `firmware/pins.toml` says of it: its edk2 release (`edk2-stable202502`) and
    /// its build (`IntelTdxX64`).
    pub fn of_build(edk2: &str, build: &str) -> Result<&'static Self, UnknownProfile> {
        let digits = edk2.strip_prefix("edk2-stable").filter(|digits| digits.len() == 6);
        let release: Option<u32> = digits.and_then(|digits| digits.parse().ok());
        let covers = |profile: &Self, release: u32| {
            (profile.first..=profile.last).contains(&release)
                && (profile.builds.is_empty() || profile.builds.contains(&build))
        };
        let known = |release| ALL.into_iter().find(|profile| covers(profile, release));
        release.and_then(known).ok_or_else(|| UnknownProfile { edk2: edk2.into(), build: build.into() })
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
    fn only_builds_that_were_seen() {
        for (edk2, build, profile) in [
            ("edk2-stable202402", "OvmfPkgX64", &BEFORE_202411),
            ("edk2-stable202502", "IntelTdxX64", &UP_TO_202502),
            ("edk2-stable202511", "IntelTdxX64", &INTEL_TDX_202511),
            ("edk2-stable202608", "IntelTdxX64", &INTEL_TDX_202608),
            ("edk2-stable202608", "OvmfPkgX64", &OVMF_202608),
        ] {
            assert_eq!(Profile::of_build(edk2, build), Ok(profile), "{edk2} {build}");
        }
        for (edk2, build) in [
            ("edk2-stable202505", "IntelTdxX64"),
            ("edk2-stable202605", "IntelTdxX64"),
            ("edk2-stable202511", "OvmfPkgX64"),
            ("edk2-stable202608", "AmdSevX64"),
            ("edk2-stable2025020", "OvmfPkgX64"),
            ("202502", "OvmfPkgX64"),
            ("edk2-stable+02502", "OvmfPkgX64"),
            ("", ""),
        ] {
            assert!(Profile::of_build(edk2, build).is_err(), "{edk2} {build}");
        }
    }
}
