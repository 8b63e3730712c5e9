//! The transport of Blackwell: a mailbox with credits.
#![allow(clippy::cast_possible_truncation, reason = "a packet has few words")]

use super::fsp::TOOLS;
use super::{Chip, Model};

const CREDIT: u32 = 1 << 26;
const READY: u32 = 1 << 24;
const ERROR: u32 = 1 << 25;
const TRIGGER: u32 = 1 << 20;
const SIZE: u32 = TRIGGER - 1;

#[derive(Debug, Default)]
pub(super) struct Mnoc {
    /// Words that are still to come.
    expected: usize,
    incoming: Vec<u32>,
    outgoing: std::collections::VecDeque<u32>,
    outgoing_bytes: u32,
    overrun: bool,
}

impl Model {
    pub(super) fn mnoc_read(&mut self, offset: u32) -> Option<u32> {
        if !matches!(self.chip, Chip::Gb100 | Chip::Gb202) {
            return None;
        }
        let mnoc = &mut self.mnoc;
        Some(match offset {
            0x8f_1f84 => {
                let error = if mnoc.overrun { ERROR } else { 0 };
                let ready = if mnoc.expected == 0 { READY } else { 0 };
                ready | CREDIT | error
            }
            0x8f_1f04 => mnoc.outgoing_bytes | if mnoc.outgoing.is_empty() { 0 } else { READY },
            0x8f_1f08 => mnoc.outgoing.pop_front().unwrap_or(0),
            _ => return None,
        })
    }

    pub(super) fn mnoc_write(&mut self, offset: u32, value: u32) {
        if !matches!(self.chip, Chip::Gb100 | Chip::Gb202) {
            return;
        }
        match offset {
            0x8f_1f84 if value & TRIGGER != 0 => {
                self.mnoc.expected = (value & SIZE) as usize / 4;
                self.mnoc.incoming.clear();
            }
            0x8f_1f88 if self.mnoc.expected > 0 => {
                self.mnoc.incoming.push(value);
                self.mnoc.expected -= 1;
                if self.mnoc.expected == 0 {
                    self.mnoc_answer();
                }
            }
            0x8f_1f88 => self.mnoc.overrun = true,
            _ => {}
        }
    }

    fn mnoc_answer(&mut self) {
        let packet = std::mem::take(&mut self.mnoc.incoming);
        if let Some(response) = self.answer(TOOLS, &packet) {
            self.mnoc.outgoing_bytes = 4 * response.len() as u32;
            self.mnoc.outgoing = response.into();
        }
    }
}
