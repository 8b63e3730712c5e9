//! What was read from a device, written to it and done with it, kept line by line: so that a device that somebody else has can
//! be looked at again without it.
//!
//! `Traced` records what passes through it. `Recorded` answers as the device did: each register gives the values that it
//! gave, in their order, and its last one from then on, so that a program that waits otherwise still finds its way.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spec::PciAddress;

use super::access::{AccessError, Event, Function, ResetKind};
use super::product::{Product, product};
use super::resizable::BarSize;

/// The version of the format.
const SCHEMA: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// The first one: what the device is, and where.
    Device {
        /// The version of the format.
        schema: u32,
        /// Where it is.
        address: PciAddress,
        /// PCI device number.
        device_id: u16,
        /// PCI subsystem number, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subsystem_id: Option<u16>,
    },
    /// A register of BAR 0 was read.
    Read {
        /// In bytes.
        offset: u32,
        /// What it held.
        value: u32,
    },
    /// A register of BAR 0 was written.
    Write {
        /// In bytes.
        offset: u32,
        /// What was written.
        value: u32,
    },
    /// Configuration space was read.
    Config {
        /// In bytes.
        offset: u16,
        /// What it held.
        value: u32,
    },
    /// The device was woken, and is kept awake.
    Pin,
    /// It was reset.
    Reset {
        /// How.
        kind: ResetKind,
    },
    /// A BAR was given another size.
    Resize {
        /// Its register.
        bar: u8,
        /// How many MiB it has, as the exponent of a power of two.
        exponent: u8,
    },
    /// Time passed.
    Sleep {
        /// How much.
        microseconds: u64,
    },
    /// The system refused something.
    Failed {
        /// What.
        what: String,
    },
}

/// The lines of a trace, the first of which names a device that is known.
pub fn entries(text: &str) -> Result<Vec<Entry>, TraceError> {
    let line = |(index, text): (usize, &str)| {
        serde_json::from_str::<Entry>(text)
            .map_err(|error| TraceError::Line { line: index + 1, reason: error.to_string() })
    };
    let entries = text.lines().enumerate().map(line).collect::<Result<Vec<_>, _>>()?;
    match entries.first() {
        Some(Entry::Device { schema: SCHEMA, device_id, subsystem_id, .. })
            if product(*device_id, *subsystem_id).is_some() =>
        {
            Ok(entries)
        }
        _ => Err(TraceError::Device),
    }
}

/// A device that is written about.
#[derive(Debug)]
pub struct Traced<F, W> {
    inner: F,
    to: W,
    /// The first thing that could not be written.
    lost: Option<io::Error>,
}

impl<F: Function, W: Write> Traced<F, W> {
    /// Begins a trace of `inner`.
    pub fn new(inner: F, product: Product, to: W) -> Self {
        let address = inner.address();
        let mut traced = Self { inner, to, lost: None };
        let Product { device_id, subsystem_id, .. } = product;
        traced.write_down(&Entry::Device { schema: SCHEMA, address, device_id, subsystem_id });
        traced
    }

    /// Ends the trace; the error is the first of those that cost lines.
    pub fn finish(mut self) -> io::Result<()> {
        match self.lost.take() {
            Some(error) => Err(error),
            None => self.to.flush(),
        }
    }

    fn write_down(&mut self, entry: &Entry) {
        let line = serde_json::to_string(entry).map_err(io::Error::other);
        if let Err(error) = line.and_then(|line| writeln!(self.to, "{line}")) {
            self.lost.get_or_insert(error);
        }
    }

    fn noted<T>(&mut self, result: Result<T, AccessError>, entry: impl FnOnce(&T) -> Entry) -> Result<T, AccessError> {
        self.write_down(&match &result {
            Ok(value) => entry(value),
            Err(error) => Entry::Failed { what: error.action.clone() },
        });
        result
    }
}

impl<F: Function, W: Write> Function for Traced<F, W> {
    fn address(&self) -> PciAddress {
        self.inner.address()
    }

    fn read32(&mut self, offset: u32) -> Result<u32, AccessError> {
        let result = self.inner.read32(offset);
        self.noted(result, |value| Entry::Read { offset, value: *value })
    }

    fn write32(&mut self, offset: u32, value: u32) -> Result<(), AccessError> {
        let result = self.inner.write32(offset, value);
        self.noted(result, |()| Entry::Write { offset, value })
    }

    fn config_read32(&mut self, offset: u16) -> Result<u32, AccessError> {
        let result = self.inner.config_read32(offset);
        self.noted(result, |value| Entry::Config { offset, value: *value })
    }

    fn pin_power(&mut self) -> Result<(), AccessError> {
        let result = self.inner.pin_power();
        self.noted(result, |()| Entry::Pin)
    }

    fn reset(&mut self, kind: ResetKind) -> Result<(), AccessError> {
        let result = self.inner.reset(kind);
        self.noted(result, |()| Entry::Reset { kind })
    }

    fn resize_bar(&mut self, bar: u8, size: BarSize) -> Result<(), AccessError> {
        let result = self.inner.resize_bar(bar, size);
        self.noted(result, |()| Entry::Resize { bar, exponent: size.0 })
    }

    fn bus_peers(&self) -> Vec<PciAddress> {
        self.inner.bus_peers()
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn sleep(&mut self, time: Duration) {
        self.inner.sleep(time);
        self.write_down(&Entry::Sleep { microseconds: u64::try_from(time.as_micros()).unwrap_or(u64::MAX) });
    }

    fn note(&mut self, event: &Event) {
        self.inner.note(event);
    }
}

/// A trace that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A line is none of a trace.
    #[error("line {line} of the trace is malformed: {reason}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It does not begin with a device, or not with one that is known.
    #[error("the trace does not begin with a known device and schema {SCHEMA}")]
    Device,
}

/// A device as it was recorded.
#[derive(Clone, Debug)]
pub struct Recorded {
    address: PciAddress,
    product: Product,
    registers: BTreeMap<u32, VecDeque<u32>>,
    config: BTreeMap<u16, VecDeque<u32>>,
    clock: Duration,
}

impl Recorded {
    /// Reads a trace.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut lines = entries(text)?.into_iter();
        let Some(Entry::Device { address, device_id, subsystem_id, .. }) = lines.next() else {
            return Err(TraceError::Device);
        };
        let product = product(device_id, subsystem_id).ok_or(TraceError::Device)?;
        let (mut registers, mut config) = (BTreeMap::new(), BTreeMap::new());
        for entry in lines {
            match entry {
                Entry::Read { offset, value } => push(&mut registers, offset, value),
                Entry::Config { offset, value } => push(&mut config, offset, value),
                _ => {}
            }
        }
        Ok(Self { address, product, registers, config, clock: Duration::ZERO })
    }

    /// What it is.
    pub fn product(&self) -> Product {
        self.product
    }

    fn next<K: Ord + std::fmt::LowerHex>(
        address: PciAddress,
        values: &mut BTreeMap<K, VecDeque<u32>>,
        key: &K,
    ) -> Result<u32, AccessError> {
        let missing = || AccessError {
            address,
            action: format!("the trace has no value of {key:#x}"),
            source: io::ErrorKind::NotFound.into(),
        };
        let queue = values.get_mut(key).ok_or_else(missing)?;
        let last = queue.front().copied().ok_or_else(missing)?;
        if queue.len() > 1 {
            queue.pop_front();
        }
        Ok(last)
    }
}

fn push<K: Ord>(values: &mut BTreeMap<K, VecDeque<u32>>, key: K, value: u32) {
    values.entry(key).or_default().push_back(value);
}

impl Function for Recorded {
    fn address(&self) -> PciAddress {
        self.address
    }

    fn read32(&mut self, offset: u32) -> Result<u32, AccessError> {
        Self::next(self.address, &mut self.registers, &offset)
    }

    fn write32(&mut self, _: u32, _: u32) -> Result<(), AccessError> {
        Ok(())
    }

    fn config_read32(&mut self, offset: u16) -> Result<u32, AccessError> {
        Self::next(self.address, &mut self.config, &offset)
    }

    fn pin_power(&mut self) -> Result<(), AccessError> {
        Ok(())
    }

    fn reset(&mut self, _: ResetKind) -> Result<(), AccessError> {
        Ok(())
    }

    fn resize_bar(&mut self, _: u8, _: BarSize) -> Result<(), AccessError> {
        Ok(())
    }

    fn bus_peers(&self) -> Vec<PciAddress> {
        Vec::new()
    }

    fn now(&self) -> Duration {
        self.clock
    }

    fn sleep(&mut self, time: Duration) {
        self.clock += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_a_trace_or_an_error(text in ".{0,200}", head in any::<bool>()) {
            let first = r#"{"op":"device","schema":1,"address":"0000:01:00.0","device_id":9008}"#;
            let text = if head { format!("{first}\n{text}") } else { text };
            if let Ok(mut recorded) = Recorded::parse(&text) {
                let _ = recorded.read32(0);
            }
        }
    }
}
