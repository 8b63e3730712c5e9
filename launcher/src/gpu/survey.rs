//! All GPUs and NVSwitches of a host with what is known of each: what sysfs shows, what the device says where nobody has
//! it, and which guest has it otherwise.

use std::io;
use std::path::Path;

use super::mode::{ActiveMode, Mode};
use super::observe::{Observation, State, Trouble};
use super::reconcile::{Device, look};
use super::sysfs::{Claim, Found, SysfsFunction, find};
use super::tally::Tally;
use crate::state::{Directories, list};

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What sysfs shows.
    pub found: Found,
    /// What it says; none where it is not known to have a confidential mode.
    pub observation: Option<Observation>,
    /// The guest that has it.
    pub guest: Option<Guest>,
}

/// A guest with GPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// The mode its launch brought its GPUs into.
    pub mode: Option<Mode>,
}

impl Seen {
    /// What it said of itself, where it did.
    pub fn state(&self) -> Option<&State> {
        self.observation.as_ref()?.state.as_ref().ok()
    }

    /// Why it did not.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.observation.as_ref()?.state.as_ref().err()
    }

    /// The mode it is in: its own word, or, in a guest's hands, what its launch saw to.
    pub fn mode(&self) -> Option<ActiveMode> {
        let of_guest = || self.guest.as_ref().and_then(|guest| guest.mode).map(ActiveMode::Valid);
        self.state().map(|state| state.active).or_else(of_guest)
    }

    /// The mode that it will be in after a reset; none where that is not known, or its knobs contradict each other.
    pub fn pending(&self) -> Option<Mode> {
        self.state().map_or_else(|| self.guest.as_ref().and_then(|guest| guest.mode), State::pending)
    }

    /// Whether it is a GPU or NVSwitch with a confidential mode.
    pub fn has_modes(&self) -> bool {
        self.found.product.is_some_and(|product| !product.chip_to_chip)
    }

    /// Whether it is an NVSwitch.
    pub fn is_switch(&self) -> bool {
        self.found.product.is_some_and(|product| product.family.is_switch())
    }
}

/// Looks at all devices at once. Those that nobody has are woken and asked, each by one process of Bullion at a time.
pub fn survey(sysfs: &Path, procfs: &Path, directories: &Directories) -> io::Result<Vec<Seen>> {
    let found = find(sysfs, procfs)?;
    let guests = if found.is_empty() { Vec::new() } else { list(directories, false).unwrap_or_default() };
    let guest = |found: &Found| {
        let record = guests.iter().filter_map(|listed| listed.record.as_ref());
        let record = record.into_iter().find(|record| record.gpus.contains(&found.address))?;
        Some(Guest { name: record.name.clone(), mode: record.gpu_mode })
    };
    // Each waits for its own firmware.
    let tally = Tally::default();
    let observations: Vec<Option<Observation>> = std::thread::scope(|scope| {
        let asked: Vec<_> = found.iter().map(|found| scope.spawn(|| ask(sysfs, found, &tally))).collect();
        asked.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    });
    // What was seen is worth telling, also where the count of errors cannot be kept.
    let _ = tally.save(directories);
    let seen = found.into_iter().zip(observations);
    Ok(seen.map(|(found, observation)| Seen { guest: guest(&found), found, observation }).collect())
}

fn ask(sysfs: &Path, found: &Found, tally: &Tally) -> Option<Observation> {
    let claim = Claim::take(sysfs, found.address);
    // Requests of two processes would get each other's answers.
    let held_by =
        found.held_by.clone().or_else(|| claim.as_ref().err().map(|_| "another process of bullion".to_owned()));
    let function = tally.count(SysfsFunction::open(sysfs, found.address));
    Some(look(&mut Device { function, product: found.product?, held_by }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::gpu::knob::{Knob, Knobs};
    use crate::gpu::product::product;

    fn found(device_id: u16) -> Found {
        Found {
            address: "0000:41:00.0".parse().unwrap(),
            device_id,
            product: product(device_id, Some(0x16c1)),
            driver: Some("vfio-pci".to_owned()),
            numa_node: None,
            iommu_group: Some(7),
            power_state: Some("D0".to_owned()),
            held_by: None,
        }
    }

    fn seen(device_id: u16, state: Result<State, Trouble>, guest: Option<Guest>) -> Seen {
        let found = found(device_id);
        let observation = found.product.map(|product| Observation {
            address: found.address,
            product,
            held_by: guest.as_ref().map(|guest| guest.name.clone()),
            state,
            bus_peers: Vec::new(),
        });
        Seen { found, observation, guest }
    }

    /// A device in a mode, with the knobs of another.
    pub(in crate::gpu) fn gpu(device_id: u16, active: Mode, pending: Mode) -> Seen {
        let knobs = Knobs::from([(Knob::CONFIDENTIAL, u16::from(pending == Mode::On))]);
        seen(device_id, Ok(State { active: ActiveMode::Valid(active), knobs, serial: Some(0x17) }), None)
    }

    pub(in crate::gpu) fn unwell() -> Seen {
        let error = crate::gpu::observe::ObserveError::from(crate::gpu::register::Unwell::Recovery);
        seen(0x2330, Err(error.trouble()), None)
    }

    pub(in crate::gpu) fn in_guest(mode: Mode) -> Seen {
        let guest = Guest { name: "llm".to_owned(), mode: Some(mode) };
        let trouble = Trouble { reason: "held by llm".to_owned(), needs_restart: false, in_recovery: false };
        seen(0x2330, Err(trouble), Some(guest))
    }

    #[test]
    fn a_device_in_a_guests_hands_is_in_the_mode_that_its_launch_recorded() {
        let held = in_guest(Mode::On);
        assert_eq!((held.mode(), held.pending()), (Some(ActiveMode::Valid(Mode::On)), Some(Mode::On)));
        assert_eq!(unwell().mode(), None);
    }
}
