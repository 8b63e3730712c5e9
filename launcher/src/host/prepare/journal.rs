//! The journal: every change that `host restore` will undo, on the disk before it is made.
//!
//! It is replaced as a whole each time, so a power cut leaves the old one or the new one. It holds numbers, addresses and
//! names of modules and drivers, never paths; it lies in a directory that only its owner can read.

use std::io;

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::machine::Machine;

/// One change that was made or begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The boot it was made in: what the kernel holds is gone with that.
    pub boot_id: String,
    /// Whether it is made again at each start of the host, by the files that were written.
    pub lasting: bool,
    /// Whether it was seen to end.
    pub finished: bool,
    /// The change.
    pub change: Change,
}

/// The changes, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    schema: u32,
    entries: Vec<Entry>,
}

impl Journal {
    /// Reads what is to be undone. Changes that ended with an earlier boot are left out.
    pub(super) fn open(machine: &impl Machine, boot_id: &str) -> io::Result<Self> {
        let Some(text) = machine.journal()? else { return Ok(Self { schema: 1, entries: Vec::new() }) };
        let mut journal = Self::parse(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        journal
            .entries
            .retain(|entry| entry.boot_id == boot_id || entry.lasting || matches!(entry.change, Change::File { .. }));
        Ok(journal)
    }

    /// Reads the text of a journal.
    pub fn parse(text: &str) -> Result<Self, String> {
        let journal: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if journal.schema != 1 {
            return Err(format!("schema {} is not known: this program reads schema 1", journal.schema));
        }
        match journal.entries.iter().flat_map(|entry| entry.change.names()).find(|name| !is_name(name)) {
            Some(name) => Err(format!("\"{name}\" names no module, parameter or driver")),
            None => Ok(journal),
        }
    }

    /// The changes, the oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn push(&mut self, machine: &mut impl Machine, entry: Entry) -> io::Result<()> {
        self.entries.push(entry);
        self.keep(machine)
    }

    /// The last change was made, perhaps otherwise than it was begun.
    pub(super) fn finish(&mut self, machine: &mut impl Machine, change: Change) -> io::Result<()> {
        if let Some(last) = self.entries.last_mut() {
            last.change = change;
            last.finished = true;
        }
        self.keep(machine)
    }

    pub(super) fn remove(&mut self, machine: &mut impl Machine, index: usize) -> io::Result<()> {
        self.entries.remove(index);
        self.keep(machine)
    }

    fn keep(&self, machine: &mut impl Machine) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        machine.keep_journal((!self.entries.is_empty()).then_some(text.as_str()))
    }
}

impl Change {
    /// The words of it that become parts of paths or arguments.
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Module { name, added, parameters } => {
                added.iter().chain(parameters).map(String::as_str).chain([name.as_str()]).collect()
            }
            Self::Bind { driver, driver_override, .. } => {
                [driver, driver_override].into_iter().flatten().map(String::as_str).collect()
            }
            Self::HugePages { .. } | Self::Grant { .. } | Self::File { .. } => Vec::new(),
        }
    }
}

/// Whether `name` can be one part of a path, and no option.
fn is_name(name: &str) -> bool {
    let clean = |c: u8| c.is_ascii_alphanumeric() || b"-_=.+".contains(&c);
    !name.starts_with(['-', '.']) && !name.is_empty() && name.bytes().all(clean)
}
