//! What changed between two locks, for people.

use std::collections::BTreeMap;
use std::fmt;

use spec::lock::{Lock, Package};
use spec::release_date;

/// The difference between two locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockDiff {
    /// Packages only the new lock has.
    pub added: Vec<Package>,
    /// Packages only the old lock has.
    pub removed: Vec<Package>,
    /// Packages that are another file now: old, new.
    pub changed: Vec<(Package, Package)>,
    /// Suites whose release file is older than before. A mirror that lags, or an attack: worth a warning each.
    pub rolled_back: Vec<RolledBack>,
}

/// A suite that went back in time between two locks. Its `Display` is one line for people, without a newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The suite.
    pub suite: String,
    /// The date of its release file in the old lock, as it is written there.
    pub was: String,
    /// The date in the new lock.
    pub is: String,
}

/// Compares two locks.
pub fn diff(old: &Lock, new: &Lock) -> LockDiff {
    let by_name = |lock: &Lock| -> BTreeMap<String, Package> {
        lock.package.iter().map(|package| (package.name.clone(), package.clone())).collect()
    };
    let (mut before, after) = (by_name(old), by_name(new));
    let mut diff = LockDiff::default();
    for (name, package) in after {
        match before.remove(&name) {
            None => diff.added.push(package),
            Some(was) if was.sha256 != package.sha256 => diff.changed.push((was, package)),
            Some(_) => {}
        }
    }
    diff.removed = before.into_values().collect();
    for release in &new.release {
        let was = old.release.iter().find(|was| was.suite == release.suite);
        if let Some(was) = was.filter(|was| release_date::parse(&release.date) < release_date::parse(&was.date)) {
            let (was, is) = (was.date.clone(), release.date.clone());
            diff.rolled_back.push(RolledBack { suite: release.suite.clone(), was, is });
        }
    }
    diff
}

impl LockDiff {
    /// Whether both locks hold the same files, and no suite went back in time.
    pub fn is_empty(&self) -> bool {
        let Self { added, removed, changed, rolled_back } = self;
        added.is_empty() && removed.is_empty() && changed.is_empty() && rolled_back.is_empty()
    }
}

impl fmt::Display for RolledBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { suite, was, is } = self;
        write!(f, "{suite}: the release file of {is} is older than the one before, of {was}")
    }
}

impl fmt::Display for LockDiff {
    /// One line for each package: `+` added, `-` removed, `~` changed, `!` a suite that went back in time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for package in &self.added {
            writeln!(f, "+ {} {} ({} bytes)", package.name, package.version, package.size)?;
        }
        for package in &self.removed {
            writeln!(f, "- {} {} ({} bytes)", package.name, package.version, package.size)?;
        }
        for (was, is) in &self.changed {
            writeln!(f, "~ {} {} -> {} ({} -> {} bytes)", is.name, was.version, is.version, was.size, is.size)?;
        }
        for suite in &self.rolled_back {
            writeln!(f, "! {suite}")?;
        }
        Ok(())
    }
}
