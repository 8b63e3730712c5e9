//! The security processor: a request packet in, a response packet out, knobs in between.

use super::{Chip, Model};
use crate::fault::Fault;

/// The channel for tools; 1 is the one for resets.
pub(super) const TOOLS: usize = 2;
const RESETS: usize = 1;
/// Couple the next secondary-bus reset, once.
const COUPLE_RESET: u32 = 0x0001_0104;
const MCTP_SINGLE: u32 = 0xc000_0000;
const PRC_REQUEST: u32 = 0x1310_de7e;
const PRC_RESPONSE: u32 = 0x1510_de7e;
const ERROR_UNKNOWN_KNOB: u32 = 0x1e3;
const ERROR_MALFORMED: u32 = 0x1;
const ERROR_FORBIDDEN: u32 = 0x8;

impl Model {
    /// What the security processor answers on a channel; `None` where it is silent.
    pub(super) fn answer(&mut self, channel: usize, packet: &[u32]) -> Option<Vec<u32>> {
        if self.has(Fault::SilentFsp) || self.has(Fault::Recovery) {
            return None;
        }
        let (error, data) = self.handle(channel, packet);
        let mut response = vec![MCTP_SINGLE, PRC_RESPONSE, 3, 0x13, error];
        response.extend(data);
        Some(response)
    }

    fn handle(&mut self, channel: usize, packet: &[u32]) -> (u32, Option<u32>) {
        let [MCTP_SINGLE, PRC_REQUEST, message, rest @ ..] = packet else { return (ERROR_MALFORMED, None) };
        let knob = (message >> 16 & 0xff) as u8;
        match (message & 0xffff, rest) {
            (_, []) if *message == COUPLE_RESET && channel == RESETS && self.chip == Chip::Gh100 => self.couple(),
            _ if channel != TOOLS => (ERROR_MALFORMED, None),
            (0x020c, []) => self.read_knob(knob),
            (0x020d, [value]) => self.write_knob(knob, (value & 0xffff) as u16),
            _ => (ERROR_MALFORMED, None),
        }
    }

    /// Without the knob that allows it, it does not.
    fn couple(&mut self) -> (u32, Option<u32>) {
        self.coupled = self.knobs.get(&36).is_some_and(|allowed| *allowed != 0);
        (if self.coupled { 0 } else { ERROR_FORBIDDEN }, None)
    }

    fn read_knob(&self, knob: u8) -> (u32, Option<u32>) {
        for key in &self.faults {
            if let Fault::RefusedReads(code) = key.0 {
                return (code, None);
            }
        }
        let garbage = if self.has(Fault::GarbageHighHalf) { 0xa5a5_0000 } else { 0 };
        match self.knobs.get(&knob) {
            Some(value) if !self.is_unknown(knob) => (0, Some(u32::from(*value) | garbage)),
            _ => (ERROR_UNKNOWN_KNOB, None),
        }
    }

    fn write_knob(&mut self, knob: u8, value: u16) -> (u32, Option<u32>) {
        if self.is_unknown(knob) || !self.knobs.contains_key(&knob) {
            return (ERROR_UNKNOWN_KNOB, None);
        }
        if self.has(Fault::Forbidden(knob)) {
            return (ERROR_FORBIDDEN, None);
        }
        self.knobs.insert(knob, value);
        self.note_violations();
        (0, None)
    }

    fn is_unknown(&self, knob: u8) -> bool {
        self.has(Fault::OldFirmware) && [44, 45].contains(&knob) && matches!(self.chip, Chip::Gh100 | Chip::Ls10)
    }
}
