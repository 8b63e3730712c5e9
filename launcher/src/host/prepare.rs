//! Making a host ready for guests, and making it as it was: what can be changed while it runs.
//!
//! `steps` decides from facts what is to be done and what stands in the way; `prepare` does it, writing each change down
//! before it is made; `restore` undoes what is written down, the last change first, after a crash or a power cut as well.
//! What somebody else has changed meanwhile is left as it is, and named.

mod change;
mod device;
mod files;
mod foresee;
mod journal;
mod machine;
mod modules;
mod place;
mod wish;

use std::fmt;
use std::io;

use serde::Serialize;
use spec::{Diagnostic, Outcome, PciAddress, Sha256Digest};

use crate::state::StateError;

pub use change::{Change, Pool, Undone};
pub use device::Device;
pub use files::PersistentFile;
pub use foresee::after;
pub use journal::{Entry, Journal};
pub use machine::{LocalMachine, Machine, Rights};
pub use place::{journal, lock};
pub use wish::{Preparation, steps};

/// A group of users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u32,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Step {
    /// Load a module.
    LoadModule {
        /// Its name.
        name: String,
        /// `name=value`, each.
        parameters: Vec<String>,
        /// All modules that this loads, in order; it is the last.
        adds: Vec<String>,
    },
    /// Give a PCI function to vfio-pci.
    Bind {
        /// The function.
        address: PciAddress,
        /// Vendor and device number.
        id: String,
        /// The driver that has it now.
        driver: Option<String>,
        /// The disks behind it, which go with it.
        disks: Vec<String>,
    },
    /// Set huge pages aside.
    HugePages {
        /// Where.
        pool: Pool,
        /// How many there are.
        before: u64,
        /// How many there shall be.
        after: u64,
    },
    /// Let a group open a device.
    Grant {
        /// The device.
        device: Device,
        /// The group.
        group: Group,
    },
    /// Write a file that makes the same at each start of the host.
    Write {
        /// The file.
        file: PersistentFile,
        /// Its content.
        content: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadModule { name, parameters, adds } => {
                write!(f, "load      module {name}")?;
                parameters.iter().try_for_each(|parameter| write!(f, " {parameter}"))?;
                let others: Vec<_> = adds.iter().filter(|added| *added != name).map(String::as_str).collect();
                if others.is_empty() { Ok(()) } else { write!(f, ", and with it {}", others.join(", ")) }
            }
            Self::Bind { address, id, driver, disks } => {
                let driver = driver.as_deref().unwrap_or("nobody");
                write!(f, "bind      {address} [{id}] to vfio-pci, from {driver}")?;
                if disks.is_empty() { Ok(()) } else { write!(f, ": the host loses {}", disks.join(", ")) }
            }
            Self::HugePages { pool, before, after } => {
                let place = pool.node.map_or(String::new(), |node| format!(" on node {node}"));
                write!(f, "set aside {after} huge pages of {} KiB{place}, instead of {before}", pool.size_kib)
            }
            Self::Grant { device, group } => write!(f, "grant     {device} to the group {}", group.name),
            Self::Write { file, content } => {
                write!(f, "write     /{}", file.path())?;
                content.lines().skip(1).try_for_each(|line| write!(f, "\n            {line}"))
            }
        }
    }
}

/// A change that failed. What was done before it is in the journal.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The journal cannot be read or written: without it nothing is changed.
    #[error("cannot use the journal of changes to this host")]
    Journal(#[source] io::Error),
    /// The journal's directory is not private.
    #[error(transparent)]
    Directory(#[from] StateError),
    /// Another process changes the host.
    #[error("another process of bullion is changing this host")]
    Taken,
    /// A function is in use after all.
    #[error("{address} is in use: {reason}")]
    InUse {
        /// The function.
        address: PciAddress,
        /// Who uses it.
        reason: String,
    },
    /// A step failed.
    #[error("this step failed: {}", squeezed(.step))]
    Step {
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A line of a table as a part of a sentence.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Diagnostic for PrepareError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Directory(error) => error.outcome(),
            _ => Outcome::HostCannot,
        }
    }

    fn hint(&self) -> Option<String> {
        let denied = |source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied;
        match self {
            Self::Journal(source) | Self::Step { source, .. } if denied(source) => Some("run it as root".to_owned()),
            Self::Journal(source) if source.kind() == io::ErrorKind::InvalidData => {
                Some("it was written by another version: undo its changes with that one".to_owned())
            }
            Self::Step { .. } => Some("what was done before is undone by `bullion host restore`".to_owned()),
            Self::Directory(error) => error.hint(),
            Self::Taken => Some("wait until it has ended".to_owned()),
            Self::Journal(_) | Self::InUse { .. } => None,
        }
    }
}

/// Carries out steps in their order. `boot_id` is that of this boot; `lasting` says that files make the same at each start.
/// Stops at the first that fails.
pub fn prepare(
    machine: &mut impl Machine,
    steps: &[Step],
    boot_id: &str,
    mut done: impl FnMut(&Step),
) -> Result<(), PrepareError> {
    let mut journal = Journal::open(machine, boot_id).map_err(PrepareError::Journal)?;
    let lasting = steps.iter().any(|step| matches!(step, Step::Write { .. }));
    for step in steps {
        let failed = |source| PrepareError::Step { step: step.to_string(), source };
        if let Step::Bind { address, driver, disks, .. } = step {
            refuse_in_use(machine, *address, driver.as_deref(), disks)?;
        }
        let Some(mut change) = step.change(machine).map_err(failed)? else { continue };
        let entry = Entry { boot_id: boot_id.to_owned(), lasting, finished: false, change: change.clone() };
        journal.push(machine, entry).map_err(PrepareError::Journal)?;
        let made = match step {
            Step::Write { file, content } => machine.put(file.path(), content),
            _ => change.make(machine),
        };
        // A change that was made in part is noted as far as it came.
        journal.finish(machine, change).map_err(PrepareError::Journal)?;
        made.map_err(failed)?;
        done(step);
    }
    Ok(())
}

/// What no table of the kernel shows, asked just before the driver is unbound.
fn refuse_in_use(
    machine: &impl Machine,
    address: PciAddress,
    driver: Option<&str>,
    disks: &[String],
) -> Result<(), PrepareError> {
    let claimed = disks.iter().find(|disk| machine.is_claimed(disk)).map(|disk| format!("the host uses /dev/{disk}"));
    let user = || Some(format!("{} has its driver's device open", change::driver_user(machine, driver?)?));
    match claimed.or_else(user) {
        Some(reason) => Err(PrepareError::InUse { address, reason }),
        None => Ok(()),
    }
}

impl Step {
    /// The change that it comes to here; none where there is nothing to change.
    fn change(&self, machine: &impl Machine) -> io::Result<Option<Change>> {
        Ok(match self {
            Self::LoadModule { name, parameters, adds } => {
                let absent = |module: &&String| machine.names(&format!("sys/module/{module}")).is_empty();
                let added: Vec<_> = adds.iter().filter(absent).cloned().collect();
                let change = Change::Module { name: name.clone(), parameters: parameters.clone(), added };
                matches!(&change, Change::Module { added, .. } if !added.is_empty()).then_some(change)
            }
            Self::Bind { address, .. } => {
                let driver = machine.link(&format!("{}/driver", change::directory(*address)));
                let driver_override = change::driver_override(machine, *address);
                let is_ours = driver.as_deref() == Some(change::VFIO);
                (!is_ours).then_some(Change::Bind { address: *address, driver, driver_override })
            }
            Self::HugePages { pool, after, .. } => {
                let before = machine.text(&pool.file())?.parse().map_err(io::Error::other)?;
                (before < *after).then_some(Change::HugePages { pool: *pool, before, after: *after })
            }
            Self::Grant { device, group } => {
                let node = device.node(machine).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                let before = machine.rights(&node)?;
                let after = Rights { group: group.number, mode: before.mode | 0o060 };
                (before != after).then_some(Change::Grant { device: *device, before, after })
            }
            Self::Write { file, content } => {
                let before = machine.read(file.path()).ok();
                let after = Sha256Digest::of(content.as_bytes());
                (before.as_deref() != Some(content)).then_some(Change::File { file: *file, before, after })
            }
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module { added, .. } => write!(f, "module {}", added.join(", ")),
            Self::Bind { address, driver, .. } => {
                write!(f, "{address} at vfio-pci, which {} drove", driver.as_deref().unwrap_or("nobody"))
            }
            Self::HugePages { pool, before, after } => {
                let place = pool.node.map_or(String::new(), |node| format!(" on node {node}"));
                write!(f, "{after} huge pages of {} KiB{place}, of which there were {before}", pool.size_kib)
            }
            Self::Grant { device, before, .. } => {
                write!(f, "{device}, which had group {} and mode {:o}", before.group, before.mode)
            }
            Self::File { file, .. } => write!(f, "/{}", file.path()),
        }
    }
}

/// Undoes all that the journal holds, the last change first, and tells of each what came of it. What is in use, or
/// fails, stays in the journal. Returns how many changes that are.
pub fn restore(
    machine: &mut impl Machine,
    boot_id: &str,
    mut told: impl FnMut(&Change, &Undone),
) -> Result<usize, PrepareError> {
    let mut journal = Journal::open(machine, boot_id).map_err(PrepareError::Journal)?;
    let mut busy = 0;
    for (index, entry) in journal.entries().to_vec().into_iter().enumerate().rev() {
        // After another start of the host nobody can tell who has made what is there: only what files have made again is undone.
        let finished = entry.finished && entry.boot_id == boot_id;
        // One that fails must not keep the older ones.
        let undone = entry.change.undo(machine, finished).unwrap_or_else(|error| Undone::Failed(error.to_string()));
        match undone {
            Undone::Busy(_) | Undone::Failed(_) => busy += 1,
            Undone::Done | Undone::Foreign(_) => journal.remove(machine, index).map_err(PrepareError::Journal)?,
        }
        told(&entry.change, &undone);
    }
    // An old journal of which nothing is left to undo.
    if journal.entries().is_empty() {
        machine.keep_journal(None).map_err(PrepareError::Journal)?;
    }
    Ok(busy)
}

/// What `restore` would undo, the oldest change first.
pub fn undoable(machine: &impl Machine, boot_id: &str) -> Result<Journal, PrepareError> {
    Journal::open(machine, boot_id).map_err(PrepareError::Journal)
}
