//! Which VMs run and which have run, and clearing away what a killed supervisor left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use spec::Outcome;

use super::record::{FILE_NAME, LAST, now};
use super::{Directories, Exit, Lock, Phase, Record, StateError, is_name};

/// A VM in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Whether its supervisor lives.
    pub running: bool,
    /// What is known about it; none for a moment after its launch.
    pub record: Option<Record>,
}

/// The VMs that run, by name; with `exited`, also those that have run and whose last record is kept.
pub fn list(directories: &Directories, exited: bool) -> Result<Vec<Listed>, StateError> {
    directories.check()?;
    let mut all = Vec::new();
    for name in names(&directories.run, ".lock")? {
        match Lock::try_take(directories, &name)? {
            None => {
                let record = Record::read(&directories.running(&name).join(FILE_NAME));
                all.push(Listed { name, running: true, record });
            }
            Some(lock) => clear(directories, &name, lock),
        }
    }
    if exited {
        for name in names(&directories.state, "")? {
            let record = Record::read(&directories.kept(&name).join(LAST));
            if record.is_some() && !all.iter().any(|listed| listed.name == name) {
                all.push(Listed { name, running: false, record });
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// What is known of VM `name`, which must run.
pub(crate) fn running(directories: &Directories, name: &str) -> Result<Record, StateError> {
    directories.check()?;
    let not_running = || StateError::NotRunning { name: name.to_owned() };
    if !is_name(name) || !list(directories, false)?.iter().any(|listed| listed.name == name) {
        return Err(not_running());
    }
    Record::read(&directories.running(name).join(FILE_NAME)).ok_or_else(not_running)
}

/// What was kept of the last VM of this name that has ended.
pub(crate) fn last(directories: &Directories, name: &str) -> Option<Record> {
    Record::read(&directories.kept(name).join(LAST))
}

fn names(directory: &Path, ending: &str) -> Result<BTreeSet<String>, StateError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(StateError::io("read", directory)(error)),
    };
    let name = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(ending).map(str::to_owned);
    Ok(entries.flatten().filter_map(name).filter(|name| is_name(name)).collect())
}

/// Clears away what a supervisor left that could not do it itself. `lock` shows that there is none.
pub(crate) fn clear(directories: &Directories, name: &str, lock: Lock) {
    sweep(directories, name);
    drop(lock);
}

/// The same for a caller that holds the lock and keeps it.
pub(crate) fn sweep(directories: &Directories, name: &str) {
    let directory = directories.running(name);
    if let Some(mut record) = Record::read(&directory.join(FILE_NAME)).filter(|record| record.exit.is_none()) {
        record.phase = Phase::Exited;
        record.exit = Some(Exit {
            code: Outcome::Internal.code(),
            summary: "the supervisor was killed, and QEMU with it".to_owned(),
            last_words: Vec::new(),
            ended_at: now(),
        });
        let _ = record.save_last(&directories.kept(name));
    }
    let _ = fs::remove_dir_all(&directory);
    // A write that was cut off by the kill.
    for entry in fs::read_dir(directories.kept(name)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') && name.ends_with(".new") {
            let _ = fs::remove_file(entry.path());
        }
    }
}
