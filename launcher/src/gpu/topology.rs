//! Which GPUs and NVSwitches may go together into one guest, and in which mode: rules as data, each with its source.
//!
//! What is decided here rests on product numbers alone, so that a plan can be refused before a device is touched. What
//! mode the devices are in is `reconcile`'s to find out and change.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::Serialize;
use spec::gpus::Gpus;
use spec::{PciAddress, Tee};

use super::mode::{ActiveMode, Mode};
use super::product::{Family, GPU_CLASSES, NVIDIA, NVSWITCH_CLASS, Product};
use crate::host::PciFunction;

/// A GPU or NVSwitch that a guest is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub address: PciAddress,
    /// What it is.
    pub product: Product,
}

/// What may be in one guest.
struct Rule {
    family: Family,
    mode: Mode,
    gpus: RangeInclusive<usize>,
    switches: usize,
    source: &'static str,
}

const HOPPER_ON: &str = "NVIDIA, Confidential Computing Deployment Guide: a Hopper GPU in CC mode goes to one VM alone";
const HOPPER_PPCIE: &str =
    "NVIDIA, Confidential Computing Deployment Guide, protected PCIe: all eight GPUs and four NVSwitches in one VM";
const BLACKWELL: &str =
    "NVIDIA, Confidential Computing Deployment Guide, HGX B200: one to eight GPUs, NVLink encrypted";
const WORKSTATION: &str = "NVIDIA, release notes of driver 580: RTX PRO 6000 Server Edition, one GPU a VM";

/// The rules of the confidential modes. What is not here is not allowed.
const RULES: [Rule; 7] = [
    Rule { family: Family::Hopper, mode: Mode::On, gpus: 1..=1, switches: 0, source: HOPPER_ON },
    Rule { family: Family::Hopper, mode: Mode::Devtools, gpus: 1..=1, switches: 0, source: HOPPER_ON },
    Rule { family: Family::Hopper, mode: Mode::Ppcie, gpus: 8..=8, switches: 4, source: HOPPER_PPCIE },
    Rule { family: Family::Blackwell, mode: Mode::On, gpus: 1..=8, switches: 0, source: BLACKWELL },
    Rule { family: Family::Blackwell, mode: Mode::Devtools, gpus: 1..=8, switches: 0, source: BLACKWELL },
    Rule { family: Family::BlackwellWorkstation, mode: Mode::On, gpus: 1..=1, switches: 0, source: WORKSTATION },
    Rule { family: Family::BlackwellWorkstation, mode: Mode::Devtools, gpus: 1..=1, switches: 0, source: WORKSTATION },
];

/// Why devices do not go together into a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{found}: {because}")]
pub struct Mismatch {
    /// What there is.
    pub found: String,
    /// Why it cannot be.
    pub because: String,
    /// What to do.
    pub remedy: String,
    /// Where it is written.
    pub source_text: Option<&'static str>,
}

/// Whether sysfs shows a GPU or NVSwitch of NVIDIA's. Classes are compared whole: a PCI bridge (0x0604) is none.
pub fn is_accelerator(function: &PciFunction) -> bool {
    let class = u16::try_from(function.class >> 8).unwrap_or(0);
    function.id.starts_with(&format!("{NVIDIA:04x}:")) && (GPU_CLASSES.contains(&class) || class == NVSWITCH_CLASS)
}

/// The devices among these functions that have confidential modes. NVIDIA's others, such as an A100, have none.
pub fn members<'a>(functions: impl Iterator<Item = &'a PciFunction>) -> Vec<Member> {
    let known = functions
        .filter(|function| is_accelerator(function))
        .filter_map(|function| Some(Member { address: function.address.parse().ok()?, product: function.product()? }));
    known.collect()
}

/// The mode that a guest needs its devices in: `off` without a TEE, whose driver would stop at a confidential GPU
/// (open-gpu-kernel-modules, "CPU does not support confidential compute"); in a TEE `ppcie` with NVSwitches, else `on`.
pub fn mode(tee: Tee, declared: Option<&Gpus>, members: &[Member]) -> Mode {
    if tee == Tee::None {
        return Mode::Off;
    }
    if declared.is_some_and(|gpus| gpus.dangerously_allow_devtools) {
        return Mode::Devtools;
    }
    if members.iter().any(|member| member.product.family.is_switch()) { Mode::Ppcie } else { Mode::On }
}

/// Whether the devices may go into one guest in `mode`, and are those that its measured configuration names.
pub fn check(mode: Mode, declared: Option<&Gpus>, members: &[Member]) -> Result<(), Mismatch> {
    if let Some(gpus) = declared {
        check_declared(gpus, members)?;
    }
    if mode == Mode::Off || members.is_empty() {
        return Ok(());
    }
    let part = members.iter().find(|member| member.product.chip_to_chip);
    if let Some(Member { address, product }) = part {
        return Err(Mismatch {
            found: format!("{address} is a {}", product.name),
            because: "it hangs on its CPU by NVLink-C2C: its mode cannot be set in band".to_owned(),
            remedy: "such parts go to guests without a TEE only".to_owned(),
            source_text: None,
        });
    }
    let gpus: Vec<_> = members.iter().filter(|member| !member.product.family.is_switch()).collect();
    let families: BTreeSet<_> = gpus.iter().map(|member| member.product.family.to_string()).collect();
    let Some(family) = gpus.first().map(|member| member.product.family).filter(|_| families.len() == 1) else {
        let mixed = families.into_iter().collect::<Vec<_>>().join(" and ");
        return Err(Mismatch {
            found: describe(members),
            because: if mixed.is_empty() {
                "NVSwitches serve GPUs, and there is none".to_owned()
            } else {
                format!("GPUs of {mixed} have no mode in common")
            },
            remedy: "pass GPUs of one kind".to_owned(),
            source_text: None,
        });
    };
    let switches = members.len() - gpus.len();
    let rule = RULES.iter().find(|rule| rule.family == family && rule.mode == mode);
    match rule {
        Some(rule) if rule.gpus.contains(&gpus.len()) && rule.switches == switches => Ok(()),
        Some(rule) => Err(count(rule, family, members)),
        None => Err(Mismatch {
            found: describe(members),
            because: format!("{family} GPUs have no mode \"{mode}\""),
            remedy: "leave the NVSwitches out: they stay on the host".to_owned(),
            source_text: Some(BLACKWELL),
        }),
    }
}

fn count(rule: &Rule, family: Family, members: &[Member]) -> Mismatch {
    let (first, last) = (rule.gpus.start(), rule.gpus.end());
    let gpus = if first == last { first.to_string() } else { format!("{first} to {last}") };
    let switches = if rule.switches > 0 { format!(" and {} NVSwitches", rule.switches) } else { String::new() };
    let remedy = match (family, rule.mode) {
        (Family::Hopper, Mode::On | Mode::Devtools) => {
            "pass one GPU, or all eight GPUs and four NVSwitches of the board for protected PCIe"
        }
        (Family::Hopper, _) => "pass all eight GPUs and four NVSwitches of the board, or one GPU alone",
        _ => "pass that many",
    };
    Mismatch {
        found: describe(members),
        because: format!("in the mode \"{}\" a guest has {gpus} {family} GPU{}{switches}", rule.mode, plural(*last)),
        remedy: remedy.to_owned(),
        source_text: Some(rule.source),
    }
}

fn check_declared(gpus: &Gpus, members: &[Member]) -> Result<(), Mismatch> {
    let switches = members.iter().filter(|member| member.product.family.is_switch()).count();
    let passed = (members.len() - switches, switches);
    let said = (gpus.count as usize, gpus.switches as usize);
    if passed == said {
        return Ok(());
    }
    let words = |(gpus, switches): (usize, usize)| format!("{gpus} GPU{} and {switches} NVSwitches", plural(gpus));
    Err(Mismatch {
        found: format!("{} are passed", words(passed)),
        because: format!("the measured configuration says {}", words(said)),
        remedy: "make [guest.gpus] and host.pci say the same".to_owned(),
        source_text: None,
    })
}

/// A device of the host that is not the guest's, and the mode it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Where it is.
    pub address: PciAddress,
    /// Its name.
    pub name: &'static str,
    /// Its mode.
    pub mode: ActiveMode,
    /// The guest that has it, where one has.
    pub guest: Option<String>,
}

/// Whether the host's other GPUs are in the mode: a host whose GPUs are in several modes is not supported.
pub fn check_host(mode: Mode, neighbours: &[Neighbour]) -> Result<(), Mismatch> {
    let Some(other) = neighbours.iter().find(|other| other.mode != ActiveMode::Valid(mode)) else { return Ok(()) };
    let guest = other.guest.as_ref().map(|guest| format!(", in use by {guest}")).unwrap_or_default();
    Err(Mismatch {
        found: format!("{} ({}) is in the mode \"{}\"{guest}", other.address, other.name, other.mode),
        because: format!("this guest needs \"{mode}\", and all GPUs of a host are in one mode"),
        remedy: match other.guest {
            Some(_) => "stop that guest first".to_owned(),
            None => format!("`bullion gpu set-mode {mode} --all` while no guest has a GPU"),
        },
        source_text: Some("NVIDIA, Confidential Computing Deployment Guide: all GPUs of a host are in one mode"),
    })
}

/// "8 H100 SXM, 4 NVSwitch LS10".
pub fn describe(members: &[Member]) -> String {
    let names: BTreeSet<_> =
        members.iter().map(|member| (member.product.family.is_switch(), member.product.name)).collect();
    let count = |name: &str| members.iter().filter(|member| member.product.name == name).count();
    names.iter().map(|(_, name)| format!("{} {name}", count(name))).collect::<Vec<_>>().join(", ")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::super::product::product;
    use super::*;

    fn these(parts: &[(usize, u16)]) -> Vec<Member> {
        let ids = parts.iter().flat_map(|(count, id)| std::iter::repeat_n(*id, *count));
        let member = |(index, id)| Member {
            address: format!("0000:{index:02x}:00.0").parse().unwrap(),
            product: product(id, None).unwrap(),
        };
        ids.enumerate().map(member).collect()
    }

    const H100: u16 = 0x2330;
    const SWITCH: u16 = 0x22a3;
    const B200: u16 = 0x2901;

    fn verdict(parts: &[(usize, u16)]) -> Result<Mode, String> {
        let members = these(parts);
        let mode = mode(Tee::Snp, None, &members);
        check(mode, None, &members).map(|()| mode).map_err(|mismatch| mismatch.to_string())
    }

    /// The table of topologies, as NVIDIA's guides have it.
    #[test]
    fn what_may_go_together() {
        assert_eq!(verdict(&[(1, H100)]), Ok(Mode::On));
        assert_eq!(verdict(&[(8, H100), (4, SWITCH)]), Ok(Mode::Ppcie));
        for count in 1..=8 {
            assert_eq!(verdict(&[(count, B200)]), Ok(Mode::On));
        }
        assert_eq!(verdict(&[(1, 0x2bb5)]), Ok(Mode::On));
        let refused = |parts: &[(usize, u16)], words: &str| {
            let text = verdict(parts).unwrap_err();
            assert!(text.contains(words), "{words} in {text}");
        };
        refused(&[(2, H100)], "2 H100 SXM: in the mode \"on\" a guest has 1 Hopper GPU");
        refused(&[(8, H100)], "a guest has 1 Hopper GPU");
        refused(&[(8, H100), (3, SWITCH)], "8 Hopper GPUs and 4 NVSwitches");
        refused(&[(7, H100), (4, SWITCH)], "7 H100 SXM, 4 NVSwitch LS10");
        refused(&[(4, SWITCH)], "there is none");
        refused(&[(1, H100), (1, B200)], "Blackwell and Hopper have no mode in common");
        refused(&[(2, B200), (4, SWITCH)], "no mode \"ppcie\"");
        refused(&[(9, B200)], "1 to 8 Blackwell GPUs");
        refused(&[(2, 0x2bb5)], "1 Blackwell (workstation) GPU");
        refused(&[(1, 0x2342)], "NVLink-C2C");
        assert_eq!(mode(Tee::None, None, &these(&[(2, H100)])), Mode::Off);
        assert_eq!(check(Mode::Off, None, &these(&[(3, H100)])), Ok(()), "a guest without a TEE may have any");
    }

    #[test]
    fn what_is_passed_is_what_the_measured_configuration_says() {
        let one = Gpus { count: 1, ..Gpus::default() };
        assert_eq!(check(Mode::On, Some(&one), &these(&[(1, H100)])), Ok(()));
        let text = check(Mode::Off, Some(&one), &[]).unwrap_err().to_string();
        assert_eq!(text, "0 GPUs and 0 NVSwitches are passed: the measured configuration says 1 GPU and 0 NVSwitches");
        let debug = Gpus { dangerously_allow_devtools: true, ..one };
        assert_eq!(mode(Tee::Tdx, Some(&debug), &these(&[(1, H100)])), Mode::Devtools);
    }

    #[test]
    fn a_host_is_in_one_mode() {
        let member = these(&[(1, H100)])[0];
        let neighbour = |mode, guest: Option<&str>| Neighbour {
            address: member.address,
            name: member.product.name,
            mode,
            guest: guest.map(str::to_owned),
        };
        assert_eq!(check_host(Mode::On, &[neighbour(ActiveMode::Valid(Mode::On), None)]), Ok(()));
        let mismatch = check_host(Mode::On, &[neighbour(ActiveMode::Invalid, None)]).unwrap_err();
        assert!(mismatch.remedy.contains("set-mode on --all"), "{mismatch:?}");
        let busy = check_host(Mode::Off, &[neighbour(ActiveMode::Valid(Mode::On), Some("llm"))]).unwrap_err();
        assert!(busy.to_string().contains("in use by llm") && busy.remedy.contains("stop"), "{busy}");
    }

    #[test]
    fn classes_are_compared_whole() {
        let function = |id: &str, class| PciFunction {
            address: "0000:01:00.0".to_owned(),
            id: id.to_owned(),
            class,
            ..PciFunction::default()
        };
        let seen = |id, class| members([function(id, class)].iter()).len();
        assert_eq!([seen("10de:2330", 0x03_0200), seen("10de:22a3", 0x06_8000)], [1, 1]);
        assert_eq!(
            [seen("10de:22a3", 0x06_0400), seen("10de:2330", 0x04_0300), seen("8086:2330", 0x03_0200)],
            [0, 0, 0]
        );
        assert_eq!(seen("10de:20b0", 0x03_0200), 0, "an A100 has no confidential mode");
    }
}
