//! The GPUs and NVSwitches of a launch: taken for as long as the guest runs, and brought into their mode before it starts.

use std::io;
use std::path::Path;

use spec::{Diagnostic, Outcome, PciAddress};

use super::Listener;
use crate::gpu::attach::{Preparation, attach};
use crate::gpu::mode::ActiveMode;
use crate::gpu::observe::observe;
use crate::gpu::plan::Step;
use crate::gpu::reconcile::{Device, ReconcileError};
use crate::gpu::sysfs::{Claim, ClaimError, Found, SysfsFunction, find};
use crate::gpu::tally::Tally;
use crate::gpu::topology::{Mismatch, Neighbour, check_host};
use crate::state::{Directories, Record, list};
use crate::supervise::Progress;

/// Why the devices of a guest are not ready for it.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// Another process of Bullion has one.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The host's devices cannot be listed.
    #[error("cannot list the PCI devices")]
    Find(#[source] io::Error),
    /// One is not there any more.
    #[error("{0} is no GPU or NVSwitch of this host any more")]
    Gone(PciAddress),
    /// Somebody has one.
    #[error("{address} is held by {by}")]
    Held {
        /// The device.
        address: PciAddress,
        /// Who has it.
        by: String,
    },
    /// The host's GPUs would be in several modes.
    #[error(transparent)]
    Mixed(#[from] Mismatch),
    /// They do not come into their mode.
    #[error(transparent)]
    Attach(#[from] ReconcileError),
}

impl Diagnostic for GpuError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Claim(error) => error.hint(),
            Self::Mixed(mismatch) => Some(mismatch.remedy.clone()),
            Self::Attach(error) => error.hint(),
            Self::Held { .. } => Some("stop the VM or process first".to_owned()),
            Self::Find(_) | Self::Gone(_) => None,
        }
    }
}

/// Takes the devices, where `claims` has none yet, and prepares them. They are the guest's until `claims` is dropped.
pub(super) fn prepare(
    preparation: &Preparation,
    claims: &mut Vec<Claim>,
    (sysfs, procfs): (&Path, &Path),
    directories: &Directories,
    listener: Listener<'_>,
) -> Result<(), GpuError> {
    if claims.is_empty() {
        for member in &preparation.members {
            claims.push(Claim::take(sysfs, member.address)?);
        }
    }
    let all = find(sysfs, procfs).map_err(GpuError::Find)?;
    let tally = Tally::default();
    let mut devices = Vec::new();
    for member in &preparation.members {
        let address = member.address;
        let found = all.iter().find(|found| found.address == address).ok_or(GpuError::Gone(address))?;
        if let Some(by) = &found.held_by {
            return Err(GpuError::Held { address, by: by.clone() });
        }
        let function = SysfsFunction::open(sysfs, address).with_company(&preparation.company);
        devices.push(Device { function: tally.count(function), product: member.product, held_by: None });
    }
    let neighbours = neighbours(preparation, &all, sysfs, &guests(directories));
    check_host(preparation.mode, &neighbours)?;
    let mut tell = |step: &Step| listener(Progress::Note(&format!("gpu {step}")));
    let attached = attach(&mut devices, preparation.mode, &preparation.resizes, &mut tell);
    // What has not come into its mode is counted when it goes.
    drop(devices);
    if let Err(error) = tally.save(directories) {
        listener(Progress::Note(&format!("what happened to the GPUs is not counted: {error}")));
    }
    Ok(attached?)
}

/// The records of the guests that run.
fn guests(directories: &Directories) -> Vec<Record> {
    let listed = list(directories, false).unwrap_or_default();
    listed.into_iter().filter_map(|listed| listed.record).collect()
}

/// The host's other GPUs, as far as their modes are known: of those in use, what the launch of their guest has recorded; of
/// those that nobody has, what they say. One that is unwell or somebody else's has no say.
fn neighbours(preparation: &Preparation, all: &[Found], sysfs: &Path, guests: &[Record]) -> Vec<Neighbour> {
    let mut neighbours = Vec::new();
    for found in all.iter().filter(|found| preparation.members.iter().all(|member| member.address != found.address)) {
        let Some(product) = found.product.filter(|product| !product.family.is_switch() && !product.chip_to_chip) else {
            continue;
        };
        let guest = guests.iter().find(|guest| guest.gpus.contains(&found.address));
        let mode = match guest {
            Some(guest) => guest.gpu_mode.map(ActiveMode::Valid),
            None if found.held_by.is_some() => None,
            None => Claim::take(sysfs, found.address).ok().and_then(|_claim| {
                let mut function = SysfsFunction::open(sysfs, found.address);
                observe(&mut function, product).ok().map(|state| state.active)
            }),
        };
        neighbours.extend(mode.map(|mode| Neighbour {
            address: found.address,
            name: product.name,
            mode,
            guest: guest.map(|guest| guest.name.clone()),
        }));
    }
    neighbours
}
