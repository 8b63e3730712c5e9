//! The transport of Hopper and LS10: memory behind an address and a data register, and two queues for each channel.
#![allow(clippy::cast_possible_truncation, reason = "a packet has few words")]

use std::time::Duration;

use super::{Chip, FSP_TIME, Model};

const CHANNELS: usize = 8;
const WORDS: usize = 2048;
const ADDRESS_MASK: u32 = 0x00ff_ffff;
const WRITE_INCREMENT: u32 = 1 << 24;
const READ_INCREMENT: u32 = 1 << 25;

#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    control: u32,
    command_head: u32,
    command_tail: u32,
    message_head: u32,
    message_tail: u32,
}

#[derive(Debug)]
pub(super) struct Emem {
    words: Vec<u32>,
    channels: [Channel; CHANNELS],
    /// A request that is being worked on: its channel, and when it is done.
    pending: Option<(usize, Duration)>,
}

impl Default for Emem {
    fn default() -> Self {
        Self { words: vec![0; WORDS], channels: [Channel::default(); CHANNELS], pending: None }
    }
}

impl Emem {
    pub(super) fn leave_stale_request(&mut self) {
        self.channels[2].command_head = 2048;
        self.channels[2].command_tail = 2056;
    }

    fn at(&mut self, byte: u32) -> Option<&mut u32> {
        self.words.get_mut((byte / 4) as usize)
    }
}

/// The channel and register that an offset means: control, data, or one of four pointers.
fn decode(offset: u32) -> Option<(usize, u32)> {
    let (base, first) = match offset {
        0x8f_2ac0..0x8f_2b00 => (0x8f_2ac0, 0),
        0x8f_2c00..0x8f_2c40 => (0x8f_2c00, 2),
        0x8f_2c80..0x8f_2cc0 => (0x8f_2c80, 4),
        _ => return None,
    };
    let word = (offset - base) / 4;
    Some(((word / 2) as usize, first + word % 2))
}

impl Model {
    fn has_emem(&self) -> bool {
        matches!(self.chip, Chip::Gh100 | Chip::Ls10)
    }

    pub(super) fn emem_read(&mut self, offset: u32) -> Option<u32> {
        let (index, register) = decode(offset).filter(|_| self.has_emem())?;
        self.finish_request();
        let channel = self.emem.channels[index];
        Some(match register {
            0 => channel.control,
            1 => {
                let value = self.emem.at(channel.control & ADDRESS_MASK).copied().unwrap_or(0);
                if channel.control & READ_INCREMENT != 0 {
                    self.emem.channels[index].control += 4;
                }
                value
            }
            2 => channel.command_head,
            3 => channel.command_tail,
            4 => channel.message_head,
            _ => channel.message_tail,
        })
    }

    pub(super) fn emem_write(&mut self, offset: u32, value: u32) -> bool {
        let Some((index, register)) = decode(offset).filter(|_| self.has_emem()) else { return false };
        self.finish_request();
        let done_at = self.clock + FSP_TIME;
        let channel = &mut self.emem.channels[index];
        match register {
            0 => channel.control = value,
            1 => {
                let control = channel.control;
                if control & WRITE_INCREMENT != 0 {
                    channel.control += 4;
                }
                if let Some(word) = self.emem.at(control & ADDRESS_MASK) {
                    *word = value;
                }
            }
            2 => {
                channel.command_head = value;
                // Writing the head rings; pointers that are made equal ask for nothing.
                if channel.command_head != channel.command_tail {
                    self.emem.pending = Some((index, done_at));
                }
            }
            3 => channel.command_tail = value,
            4 => channel.message_head = value,
            _ => channel.message_tail = value,
        }
        true
    }

    fn finish_request(&mut self) {
        let Some((index, _)) = self.emem.pending.filter(|(_, done_at)| self.clock >= *done_at) else { return };
        self.emem.pending = None;
        self.busy += FSP_TIME;
        let Channel { command_head: head, command_tail: tail, .. } = self.emem.channels[index];
        let packet: Vec<u32> = (head..=tail).step_by(4).filter_map(|byte| self.emem.at(byte).copied()).collect();
        self.emem.channels[index].command_head = tail;
        let Some(response) = self.answer(index, &packet) else { return };
        let window = (index * 1024) as u32;
        for (byte, word) in (window..).step_by(4).zip(&response) {
            if let Some(place) = self.emem.at(byte) {
                *place = *word;
            }
        }
        self.emem.channels[index].message_head = window;
        self.emem.channels[index].message_tail = window + 4 * (response.len() as u32 - 1);
    }
}
