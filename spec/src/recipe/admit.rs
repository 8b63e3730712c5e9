//! Which machines' ACPI tables a compiled kernel admits: combinations of what the tables depend on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::check::Origin;
use crate::size::Size;
use crate::tee::Tee;
use crate::text::SyntaxError;
use crate::vm::MAX_VCPUS;

/// `[[kernel.admit]]`: every combination of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Admit {
    /// TEEs; `none` too, where the image is to boot without one.
    pub tee: Vec<Tee>,
    /// vCPU counts.
    pub vcpus: Vec<u32>,
    /// Memory sizes.
    pub memory: Vec<Size>,
    /// How many networks there may be.
    #[serde(default = "no_devices")]
    pub nics: Vec<usize>,
    /// How many volumes there may be.
    #[serde(default = "no_devices")]
    pub volumes: Vec<usize>,
    /// How many passed PCI functions there may be.
    #[serde(default = "no_devices")]
    pub pci: Vec<usize>,
    /// Whether the BARs of passed functions need more than the 127 GiB of room that SNP firmware has for them by itself, as those of an
    /// H100 or H200 do, and those of an NVMe drive or of a B200 whose memory BAR is resized do not. Makes no difference to other TEEs.
    #[serde(default = "without", skip_serializing_if = "is_without")]
    pub large_bars: Vec<bool>,
    /// Whether there is a watchdog.
    #[serde(default = "without", skip_serializing_if = "is_without")]
    pub watchdog: Vec<bool>,
    /// Whether there is a pvpanic device.
    #[serde(default = "without", skip_serializing_if = "is_without")]
    pub pvpanic: Vec<bool>,
}

/// One machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmittedMachine {
    /// The TEE.
    pub tee: Tee,
    /// How many vCPUs.
    pub vcpus: u32,
    /// How much memory, in MiB.
    pub memory_mib: u64,
    /// How many networks.
    pub nics: usize,
    /// How many volumes.
    pub volumes: usize,
    /// How many passed PCI functions.
    pub pci: usize,
    /// Whether their BARs need more room than firmware has by itself: of an SNP guest with functions only.
    pub large_bars: bool,
    /// Whether there is a watchdog.
    pub watchdog: bool,
    /// Whether there is a pvpanic device.
    pub pvpanic: bool,
}

/// As a person reads it: each list of more than its default.
impl fmt::Display for Admit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<T: fmt::Display>(words: &[T]) -> String {
            words.iter().map(ToString::to_string).collect::<Vec<_>>().join("/")
        }
        write!(formatter, "tee {}, {} vCPUs, {}", list(&self.tee), list(&self.vcpus), list(&self.memory))?;
        for (counts, name) in [(&self.nics, "networks"), (&self.volumes, "volumes"), (&self.pci, "PCI functions")] {
            if counts.iter().any(|count| *count != 0) {
                write!(formatter, ", {name}: {}", list(counts))?;
            }
        }
        let signs = [(&self.large_bars, "large_bars"), (&self.watchdog, "watchdog"), (&self.pvpanic, "pvpanic")];
        for (there, name) in signs {
            if there.contains(&true) {
                write!(formatter, ", {name}{}", if there.contains(&false) { " or none" } else { "" })?;
            }
        }
        Ok(())
    }
}

fn no_devices() -> Vec<usize> {
    vec![0]
}

fn without() -> Vec<bool> {
    vec![false]
}

fn is_without(list: &[bool]) -> bool {
    list == [false]
}

impl Admit {
    /// All combinations, each once.
    pub fn machines(&self) -> Vec<AdmittedMachine> {
        let (vcpus, memory_mib, nics, volumes, pci) = (0, 0, 0, 0, 0);
        let plain = |tee: &Tee| AdmittedMachine {
            tee: *tee,
            vcpus,
            memory_mib,
            nics,
            volumes,
            pci,
            large_bars: false,
            watchdog: false,
            pvpanic: false,
        };
        let memory: Vec<u64> = self.memory.iter().map(|size| size.whole_mib().unwrap_or_default()).collect();
        let machines = self.tee.iter().map(plain).collect();
        let machines = each(machines, &self.vcpus, |machine, vcpus| machine.vcpus = vcpus);
        let machines = each(machines, &memory, |machine, memory_mib| machine.memory_mib = memory_mib);
        let machines = each(machines, &self.nics, |machine, nics| machine.nics = nics);
        let machines = each(machines, &self.volumes, |machine, volumes| machine.volumes = volumes);
        let machines = each(machines, &self.pci, |machine, pci| machine.pci = pci);
        let mut machines = each(machines, &self.large_bars, |machine, large_bars| {
            machine.large_bars = large_bars && machine.tee == Tee::Snp && machine.pci > 0;
        });
        machines.dedup();
        let machines = each(machines, &self.watchdog, |machine, watchdog| machine.watchdog = watchdog);
        each(machines, &self.pvpanic, |machine, pvpanic| machine.pvpanic = pvpanic)
    }
}

/// Each machine once with each value.
fn each<T: Copy>(
    machines: Vec<AdmittedMachine>,
    values: &[T],
    set: impl Fn(&mut AdmittedMachine, T),
) -> Vec<AdmittedMachine> {
    let with = |mut machine: AdmittedMachine, value: T| {
        set(&mut machine, value);
        machine
    };
    machines.iter().flat_map(|machine| values.iter().map(|value| with(*machine, *value))).collect()
}

pub(super) fn check(admit: &Admit, origin: Origin<'_>) -> Result<(), SyntaxError> {
    /// More devices than any machine of ours has places for.
    const MAX_DEVICES: usize = 16;
    let Admit { tee, vcpus, memory, nics, volumes, pci, large_bars, watchdog, pvpanic } = admit;
    let counts = [nics, volumes, pci].map(Vec::is_empty);
    let lists = [tee.is_empty(), vcpus.is_empty(), memory.is_empty()];
    let signs = [large_bars, watchdog, pvpanic].map(Vec::is_empty);
    if lists.contains(&true) || counts.contains(&true) || signs.contains(&true) {
        return Err(origin.refuse("admit", "kernel.admit has an empty list: no machine is in it"));
    }
    if let Some(vcpus) = vcpus.iter().find(|vcpus| !(1..=MAX_VCPUS).contains(*vcpus)) {
        return Err(origin.refuse("vcpus", format!("kernel.admit names {vcpus} vCPUs: use 1 to {MAX_VCPUS}")));
    }
    if let Some(size) = memory.iter().find(|size| size.whole_mib().is_none_or(|mib| mib < 128)) {
        let message = format!("kernel.admit names memory of {size}: use whole numbers of MiB, at least 128MiB");
        return Err(origin.refuse("memory", message));
    }
    if let Some(count) = [nics, volumes, pci].into_iter().flatten().find(|count| **count > MAX_DEVICES) {
        return Err(origin.refuse("admit", format!("kernel.admit names {count} devices: use up to {MAX_DEVICES}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(more: &str) -> Admit {
        toml::from_str(&format!("vcpus = [2]\nmemory = [\"2GiB\"]\n{more}")).unwrap()
    }

    /// Where it makes no difference, it makes no second machine.
    #[test]
    fn large_bars_are_of_snp_guests_with_functions() {
        let machines = |more: &str| -> Vec<_> {
            admit(more).machines().iter().map(|machine| (machine.tee, machine.pci, machine.large_bars)).collect()
        };
        let both = "tee = [\"none\", \"snp\", \"tdx\"]\npci = [0, 1]\nlarge_bars = [false, true]";
        let (none, snp, tdx) = (Tee::None, Tee::Snp, Tee::Tdx);
        let expected = [
            (none, 0, false),
            (none, 1, false),
            (snp, 0, false),
            (snp, 1, false),
            (snp, 1, true),
            (tdx, 0, false),
            (tdx, 1, false),
        ];
        assert_eq!(machines(both), expected);
        assert_eq!(machines("tee = [\"snp\"]\npci = [1]"), [(snp, 1, false)]);
        assert_eq!(
            machines("tee = [\"snp\", \"tdx\"]\npci = [1]\nlarge_bars = [true]"),
            [(snp, 1, true), (tdx, 1, false)]
        );
        assert_eq!(
            admit("tee = [\"snp\"]\npci = [1, 2]\nlarge_bars = [true]").to_string(),
            "tee snp, 2 vCPUs, 2GiB, PCI functions: 1/2, large_bars"
        );
    }
}
