//! What happened to the devices of this host, counted across runs: resets, changes of mode, errors of the security processor.
//!
//! A counter that begins anew with each command tells Prometheus nothing. What a run counts is added, at its end, to a file in the
//! state directory of its user: under a lock, by a new file in its place. A run that is killed loses its own counts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use spec::PciAddress;

use super::access::{AccessError, Event, Function, ResetKind};
use super::mode::{ActiveMode, Mode};
use super::resizable::BarSize;
use crate::state::{Directories, StateError, open_lock, write_atomically};

/// The file in the state directory. No VM has a name with a dot.
const FILE_NAME: &str = "gpu-counters.json";
const LOCK_NAME: &str = "gpu-counters.lock";
/// More than any counter of events that take a millisecond each comes to, and still exact as a floating-point number.
const LARGEST: u64 = 1 << 53;

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// As it should.
    Success,
    /// Otherwise.
    Failure,
}

impl Ending {
    /// The word of Prometheus labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// A kind of reset, and how many ended how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resets {
    /// The kind.
    pub kind: ResetKind,
    /// How they ended, as far as the kernel tells.
    pub result: Ending,
    /// How many.
    pub count: u64,
}

/// A change of mode, and how often it ended how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transitions {
    /// The mode before: one of the four, or `invalid`.
    pub from: String,
    /// The mode that was wanted.
    pub to: Mode,
    /// Whether it was verified.
    pub result: Ending,
    /// How many.
    pub count: u64,
}

/// Errors of one code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RpcErrors {
    /// As `FspError::code` has it: the processor's own in hex, or a word.
    pub code: String,
    /// How many.
    pub count: u64,
}

/// What happened to one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counters {
    /// Resets.
    pub resets: Vec<Resets>,
    /// Changes of mode.
    pub transitions: Vec<Transitions>,
    /// How long the last change that was verified took, in milliseconds, from its first write on.
    pub last_transition_ms: Option<u64>,
    /// Errors of the security processor. That it does not know a knob is none: it is how old firmware is told.
    pub rpc_errors: Vec<RpcErrors>,
}

impl Counters {
    fn reset(&mut self, kind: ResetKind, result: Ending, count: u64) {
        match self.resets.iter_mut().find(|known| known.kind == kind && known.result == result) {
            Some(known) => add(&mut known.count, count),
            None => self.resets.push(Resets { kind, result, count }),
        }
    }

    fn transition(&mut self, from: &str, to: Mode, result: Ending, count: u64) {
        let same = |known: &&mut Transitions| known.from == from && known.to == to && known.result == result;
        match self.transitions.iter_mut().find(same) {
            Some(known) => add(&mut known.count, count),
            None => self.transitions.push(Transitions { from: from.to_owned(), to, result, count }),
        }
    }

    fn rpc_error(&mut self, code: &str, count: u64) {
        match self.rpc_errors.iter_mut().find(|known| known.code == code) {
            Some(known) => add(&mut known.count, count),
            None => self.rpc_errors.push(RpcErrors { code: code.to_owned(), count }),
        }
    }

    fn merge(&mut self, other: &Self) {
        other.resets.iter().for_each(|new| self.reset(new.kind, new.result, new.count));
        other.transitions.iter().for_each(|new| self.transition(&new.from, new.to, new.result, new.count));
        other.rpc_errors.iter().for_each(|new| self.rpc_error(&new.code, new.count));
        self.last_transition_ms = other.last_transition_ms.or(self.last_transition_ms);
    }
}

fn add(to: &mut u64, count: u64) {
    *to = to.saturating_add(count).min(LARGEST);
}

/// What happened, by device. A device is known by its place: one that is exchanged goes on with its predecessor's counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tallied {
    schema: u32,
    devices: BTreeMap<PciAddress, Counters>,
}

impl Default for Tallied {
    fn default() -> Self {
        Self { schema: 1, devices: BTreeMap::new() }
    }
}

impl Tallied {
    /// Reads the text of the file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if read.schema == 1 { Ok(read) } else { Err(format!("schema {} is not known", read.schema)) }
    }

    /// What was counted until now; nothing where nothing was, or the file cannot be understood.
    pub fn read(directories: &Directories) -> Self {
        let text = fs::read_to_string(directories.state.join(FILE_NAME)).unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    /// What happened to the device there.
    pub fn of(&self, address: PciAddress) -> Option<&Counters> {
        self.devices.get(&address)
    }
}

/// What happens in this run.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<BTreeMap<PciAddress, Counters>>>);

impl Tally {
    /// The device, counted from now on.
    pub fn count<F: Function>(&self, function: F) -> Counted<F> {
        Counted { inner: function, tally: self.clone(), begun: None }
    }

    fn with(&self, address: PciAddress, change: impl FnOnce(&mut Counters)) {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(devices.entry(address).or_default());
    }

    /// Adds what has happened to what is kept. Writes nothing where nothing has. The counts begin anew afterwards.
    pub fn save(&self, directories: &Directories) -> Result<(), StateError> {
        let devices = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if devices.is_empty() {
            return Ok(());
        }
        directories.prepare()?;
        let path = directories.state.join(FILE_NAME);
        let lock_path = directories.state.join(LOCK_NAME);
        let _lock = lock(&lock_path).map_err(StateError::io("lock", &lock_path))?;
        let mut all = Tallied::read(directories);
        for (address, counters) in devices {
            all.devices.entry(address).or_default().merge(&counters);
        }
        let text = serde_json::to_vec_pretty(&all).map_err(|error| StateError::io("write", &path)(error.into()))?;
        write_atomically(&path, &text).map_err(StateError::io("write", &path))
    }
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    Flock::lock(open_lock(path)?, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
}

/// A device whose fate is counted.
#[derive(Debug)]
pub struct Counted<F: Function> {
    inner: F,
    tally: Tally,
    /// The change of mode that it is in, and since when.
    begun: Option<(ActiveMode, Mode, Duration)>,
}

impl<F: Function> Counted<F> {
    fn end(&mut self, result: Ending) {
        let Some((from, to, since)) = self.begun.take() else { return };
        let took = self.inner.now().saturating_sub(since);
        self.tally.with(self.inner.address(), |counters| {
            counters.transition(&from.to_string(), to, result, 1);
            if result == Ending::Success {
                counters.last_transition_ms = u64::try_from(took.as_millis()).ok();
            }
        });
    }
}

/// A change that was begun and not verified has failed, also where another device was the reason.
impl<F: Function> Drop for Counted<F> {
    fn drop(&mut self) {
        self.end(Ending::Failure);
    }
}

impl<F: Function> Function for Counted<F> {
    fn address(&self) -> PciAddress {
        self.inner.address()
    }

    fn read32(&mut self, offset: u32) -> Result<u32, AccessError> {
        self.inner.read32(offset)
    }

    fn write32(&mut self, offset: u32, value: u32) -> Result<(), AccessError> {
        self.inner.write32(offset, value)
    }

    fn config_read32(&mut self, offset: u16) -> Result<u32, AccessError> {
        self.inner.config_read32(offset)
    }

    fn pin_power(&mut self) -> Result<(), AccessError> {
        self.inner.pin_power()
    }

    fn reset(&mut self, kind: ResetKind) -> Result<(), AccessError> {
        let result = self.inner.reset(kind);
        let ending = if result.is_ok() { Ending::Success } else { Ending::Failure };
        self.tally.with(self.inner.address(), |counters| counters.reset(kind, ending, 1));
        result
    }

    fn resize_bar(&mut self, bar: u8, size: BarSize) -> Result<(), AccessError> {
        self.inner.resize_bar(bar, size)
    }

    fn bus_peers(&self) -> Vec<PciAddress> {
        self.inner.bus_peers()
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn sleep(&mut self, time: Duration) {
        self.inner.sleep(time);
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Changing { from, to } => self.begun = Some((*from, *to, self.inner.now())),
            Event::Verified(mode) if self.begun.is_some_and(|(_, to, _)| to == *mode) => self.end(Ending::Success),
            Event::Verified(_) => {}
            Event::RpcError(code) => self.tally.with(self.inner.address(), |counters| counters.rpc_error(code, 1)),
        }
        self.inner.note(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn directories(root: &Path) -> Directories {
        Directories { run: root.join("run"), state: root.join("state") }
    }

    fn address(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    #[test]
    fn runs_add_up_also_when_they_end_at_once() {
        let root = tempfile::tempdir().unwrap();
        let directories = directories(root.path());
        let (first, second) = (address("0000:41:00.0"), address("0000:42:00.0"));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let tally = Tally::default();
                        tally.with(first, |counters| counters.reset(ResetKind::Bus, Ending::Success, 1));
                        tally.with(second, |counters| counters.rpc_error("0x202", 2));
                        tally.save(&directories).unwrap();
                        tally.save(&directories).unwrap();
                    }
                });
            }
        });
        let all = Tallied::read(&directories);
        assert_eq!(
            all.of(first).unwrap().resets,
            [Resets { kind: ResetKind::Bus, result: Ending::Success, count: 40 }]
        );
        assert_eq!(all.of(second).unwrap().rpc_errors, [RpcErrors { code: "0x202".to_owned(), count: 80 }]);
    }

    #[test]
    fn a_file_that_is_none_is_begun_anew_and_nothing_writes_none() {
        let root = tempfile::tempdir().unwrap();
        let directories = directories(root.path());
        Tally::default().save(&directories).unwrap();
        assert!(!directories.state.exists(), "nothing has happened");
        directories.prepare().unwrap();
        fs::write(directories.state.join(FILE_NAME), "{\"schema\":2}").unwrap();
        assert_eq!(Tallied::read(&directories), Tallied::default());
        let tally = Tally::default();
        tally.with(address("0000:41:00.0"), |counters| counters.transition("off", Mode::On, Ending::Success, 1));
        tally.save(&directories).unwrap();
        assert!(Tallied::read(&directories).of(address("0000:41:00.0")).is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_counts_or_an_error(text in ".{0,200}", head in any::<bool>()) {
            let text = if head { format!("{{\"schema\":1,\"devices\":{{\"0000:01:00.0\":{text}}}}}") } else { text };
            if let Ok(read) = Tallied::parse(&text) {
                prop_assert_eq!(Tallied::parse(&serde_json::to_string(&read).unwrap()), Ok(read));
            }
        }
    }
}
