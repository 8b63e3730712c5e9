//! Which machines' ACPI tables a compiled kernel admits: combinations of what the tables depend on.

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
}

fn no_devices() -> Vec<usize> {
    vec![0]
}

impl Admit {
    /// All combinations.
    pub fn machines(&self) -> Vec<AdmittedMachine> {
        let mut machines = Vec::new();
        for tee in &self.tee {
            for vcpus in &self.vcpus {
                for memory in &self.memory {
                    machines.extend(self.devices().map(|(nics, volumes, pci)| AdmittedMachine {
                        tee: *tee,
                        vcpus: *vcpus,
                        memory_mib: memory.whole_mib().unwrap_or_default(),
                        nics,
                        volumes,
                        pci,
                    }));
                }
            }
        }
        machines
    }

    fn devices(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        let with_pci = move |nics: usize, volumes: usize| self.pci.iter().map(move |pci| (nics, volumes, *pci));
        self.nics.iter().flat_map(move |nics| self.volumes.iter().flat_map(move |volumes| with_pci(*nics, *volumes)))
    }
}

pub(super) fn check(admit: &Admit, origin: Origin<'_>) -> Result<(), SyntaxError> {
    /// More devices than any machine of ours has places for.
    const MAX_DEVICES: usize = 16;
    let Admit { tee, vcpus, memory, nics, volumes, pci } = admit;
    let lists =
        [tee.is_empty(), vcpus.is_empty(), memory.is_empty(), nics.is_empty(), volumes.is_empty(), pci.is_empty()];
    if lists.contains(&true) {
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
