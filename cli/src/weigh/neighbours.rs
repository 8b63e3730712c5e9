//! Which other machine has the tables that a guest measured: QEMU is asked about machines near the expected one until one fits.
//!
//! The order is that of likelihood: another number of vCPUs, another QEMU of the cache, other devices, both of the first two. What a
//! machine that stands still shows (`oracle::ask_placed`) is only a hint; the one that is named was asked about with firmware.

use launcher::QemuProgram;
use launcher::qemu::oracle::{self, Answer as Told, Devices, Question};
use measure::shape::{Boot, Shape};
use spec::vm::MAX_VCPUS;

use super::machine::{Machine, tdx_shape};
use crate::failure::Failure;
use crate::tree;

/// What is looked for.
pub(crate) struct Sought<'a> {
    /// The firmware that the guest had.
    pub(crate) firmware: &'a [u8],
    /// What firmware starts.
    pub(crate) boot: Boot,
    /// Near which number of vCPUs; without one, the usual numbers are tried and nothing else.
    pub(crate) vcpus: Option<u32>,
    /// The guest's memory.
    pub(crate) memory_mib: u64,
    /// Whether this is what firmware got.
    pub(crate) is: &'a dyn Fn(&Told) -> bool,
}

/// A machine that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) vcpus: u32,
    pub(crate) devices: Devices,
    /// The version of its QEMU.
    pub(crate) qemu_version: [u64; 3],
    /// Whether that is the expected QEMU.
    pub(crate) own_qemu: bool,
}

/// The usual numbers of vCPUs.
const POWERS: [u32; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// How many devices of one kind are tried.
const NICS: [usize; 3] = [0, 1, 2];
const VOLUMES: [usize; 4] = [0, 1, 2, 3];
const PCI: [usize; 5] = [0, 1, 2, 4, 8];

struct Search<'a> {
    machine: &'a Machine<'a>,
    own: &'a QemuProgram,
    sought: &'a Sought<'a>,
}

/// The first machine that fits; none where none of those that are tried does, or no QEMU answers.
pub(crate) fn search(machine: &Machine<'_>, sought: &Sought<'_>) -> Result<Option<Neighbour>, Failure> {
    let (_hold, own) = tree::qemu(machine.qemu, machine.store)?;
    let search = Search { machine, own: &own, sought };
    let (others, devices) = match sought.vcpus {
        Some(_) => (tree::cached_qemus(machine.store, &own)?, other_devices(machine.devices)),
        None => Default::default(),
    };
    let counts = vcpu_counts(sought.vcpus);
    let all = 1 + counts.len() + others.len() * (1 + POWERS.len()) + devices.len();
    machine.printer.note(format_args!("asking QEMU about up to {all} machines near the expected one"));
    machine.printer.start_count(all);
    let others: Vec<_> = others.iter().map(|(_, program)| program).collect();
    let found = search.in_order(&others, &counts, &devices);
    machine.printer.end_bar();
    Ok(found)
}

impl Search<'_> {
    fn in_order(&self, others: &[&QemuProgram], counts: &[u32], devices: &[Devices]) -> Option<Neighbour> {
        let own = self.own;
        let expected = self.sought.vcpus.unwrap_or(1);
        let near = |program| self.fits(program, expected, self.machine.devices);
        near(own)
            .or_else(|| self.vcpus(own, counts))
            .or_else(|| others.iter().find_map(|program| near(program)))
            .or_else(|| devices.iter().find_map(|devices| self.fits(own, expected, *devices)))
            .or_else(|| others.iter().find_map(|program| self.vcpus(program, &POWERS)))
    }

    /// Other numbers of vCPUs.
    fn vcpus(&self, program: &QemuProgram, counts: &[u32]) -> Option<Neighbour> {
        let devices = self.machine.devices;
        let placement = self.ask(program, self.sought.vcpus.unwrap_or(1), devices)?.placement;
        counts.iter().find_map(|vcpus| {
            self.machine.printer.advance_bar(1);
            let shape = self.shape(*vcpus);
            let question = Question { program, firmware: self.sought.firmware, shape: &shape, devices };
            let hint = oracle::ask_placed(&question, &placement, self.machine.store.root()).ok()?;
            (self.sought.is)(&hint).then(|| self.fits(program, *vcpus, devices)).flatten()
        })
    }

    fn fits(&self, program: &QemuProgram, vcpus: u32, devices: Devices) -> Option<Neighbour> {
        self.machine.printer.advance_bar(1);
        let told = self.ask(program, vcpus, devices)?;
        let qemu_version = told.qemu_version.unwrap_or_default();
        (self.sought.is)(&told).then(|| Neighbour { vcpus, devices, qemu_version, own_qemu: program == self.own })
    }

    fn shape(&self, vcpus: u32) -> Shape {
        Shape { boot: self.sought.boot, ..tdx_shape(vcpus, self.sought.memory_mib) }
    }

    /// A QEMU that does not answer has no tables to compare; that the expected one does not was said before.
    fn ask(&self, program: &QemuProgram, vcpus: u32, devices: Devices) -> Option<Told> {
        let shape = self.shape(vcpus);
        let question = Question { program, firmware: self.sought.firmware, shape: &shape, devices };
        oracle::ask_older(&question, self.machine.store.root()).ok()
    }
}

/// Numbers of vCPUs to try: near the expected one, the usual ones, then all up to 16 and larger and larger steps.
fn vcpu_counts(expected: Option<u32>) -> Vec<u32> {
    let Some(expected) = expected else { return POWERS.to_vec() };
    let near = [expected.saturating_sub(1), expected.saturating_add(1)];
    let steps = (1..=16).chain((20..=64).step_by(4)).chain((64..=MAX_VCPUS).step_by(32));
    let mut counts: Vec<u32> = Vec::new();
    for count in near.into_iter().chain(POWERS).chain(steps) {
        if (1..=MAX_VCPUS).contains(&count) && count != expected && !counts.contains(&count) {
            counts.push(count);
        }
    }
    counts
}

/// The same devices but for the number of one kind.
fn other_devices(expected: Devices) -> Vec<Devices> {
    let nics = NICS.into_iter().map(|nics| Devices { nics, ..expected });
    let volumes = VOLUMES.into_iter().map(|volumes| Devices { volumes, ..expected });
    let pci = PCI.into_iter().map(|pci| Devices { pci, ..expected });
    let vsock = Devices { vsock: !expected.vsock, ..expected };
    let watchdog = Devices { watchdog: !expected.watchdog, ..expected };
    let pvpanic = Devices { pvpanic: !expected.pvpanic, ..expected };
    let others = [vsock, watchdog, pvpanic];
    nics.chain(volumes).chain(pci).chain(others).filter(|devices| *devices != expected).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_neighbour_is_tried_once_and_likely_ones_first() {
        let counts = vcpu_counts(Some(8));
        assert_eq!(counts[..5], [7, 9, 1, 2, 4]);
        assert!((1..=16).filter(|count| *count != 8).all(|count| counts.contains(&count)));
        assert!(counts.contains(&512) && !counts.contains(&8));
        let mut once = counts.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), counts.len());
        let one = Devices { nics: 1, ..Devices::default() };
        let devices = other_devices(one);
        assert!(devices.contains(&Devices::default()) && !devices.contains(&one));
    }
}
