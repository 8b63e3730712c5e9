//! Configuration space: identity, BARs of true size, power management, PCI Express with function-level reset, MSI-X, and
//! the vendor's own capabilities.
#![allow(clippy::cast_possible_truncation, reason = "registers are taken apart into bytes")]

use super::{Chip, FIREWALL_TIME, Model, Reset};
use crate::fault::Fault;

/// Bytes of configuration space.
pub const CONFIG_BYTES: usize = 4096;
const BAR0: usize = 0x10;
/// The power management capability and its control register.
const POWER: usize = 0x40;
const POWER_CONTROL: usize = POWER + 4;
/// The PCI Express capability and its control register.
const EXPRESS: usize = 0x60;
const DEVICE_CONTROL: usize = EXPRESS + 8;
/// The MSI-X capability.
const MSI_X: usize = 0xa0;
/// Interrupts of a GPU (as `lspci` shows of an H100).
pub const INTERRUPTS: u32 = 9;
/// The vendor's capability in extended configuration space.
const VENDOR: usize = 0x100;
/// The Resizable BAR capability of Blackwell's, behind the vendor's (PCI Express Base Specification 6.0, 7.8.6), and its control register.
const RESIZABLE: usize = 0x120;
const RESIZABLE_CONTROL: usize = RESIZABLE + 8;
/// The sizes that the memory BAR can have besides the one it has: 8 GiB to 256 GiB, each as a bit for so many MiB. That 8 GiB is one of
/// them is told of B200; the others are taken to be.
const SIZES: std::ops::RangeInclusive<u8> = 13..=18;
/// Registers that a driver can write as they are: command, interrupt line, device control, link control, MSI-X control.
const WRITABLE: [std::ops::Range<usize>; 5] = [0x04..0x06, 0x3c..0x3d, DEVICE_CONTROL..0x6a, 0x70..0x72, 0xa2..0xa4];

/// The board that a device is on where nothing else is said.
pub const SUBSYSTEM: u16 = 0x16c1;

/// A BAR: its number and its size. All are 64 bits wide and prefetchable.
pub type Bar = (u32, u64);

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The BARs of a product, as `lspci` shows them of real ones.
pub fn bars(chip: Chip, device_id: u16) -> &'static [Bar] {
    match (chip, device_id) {
        (Chip::Ls10, _) => &[(0, 32 * MIB)],
        (Chip::Gh100, 0x2335 | 0x233b) => &[(0, 16 * MIB), (2, 256 * GIB), (4, 32 * MIB)],
        (Chip::Gh100, _) | (Chip::Gb202, _) => &[(0, 16 * MIB), (2, 128 * GIB), (4, 32 * MIB)],
        (Chip::Gb100, _) => &[(0, 16 * MIB), (2, 256 * GIB), (4, 32 * MIB)],
    }
}

/// The registers.
#[derive(Debug)]
pub(super) struct Config(Box<[u8; CONFIG_BYTES]>);

impl Config {
    pub(super) fn new(chip: Chip, device_id: u16, subsystem_id: u16) -> Self {
        let mut bytes = Box::new([0; CONFIG_BYTES]);
        let mut put = |at: usize, words: &[u8]| bytes[at..at + words.len()].copy_from_slice(words);
        put(0x00, &(u32::from(device_id) << 16 | 0x10de).to_le_bytes());
        put(0x06, &0x10_u16.to_le_bytes()); // status: there is a list of capabilities
        put(0x08, &[0xa1]);
        put(0x09, if chip == Chip::Ls10 { &[0x00, 0x80, 0x06] } else { &[0x00, 0x02, 0x03] });
        for (index, _) in bars(chip, device_id) {
            put(BAR0 + 4 * *index as usize, &[0x0c]); // 64-bit, prefetchable
        }
        put(0x2c, &(u32::from(subsystem_id) << 16 | 0x10de).to_le_bytes());
        put(0x34, &[0x40]);
        put(POWER, &[0x01, 0x60, 0x03, 0x00]); // power management, version 3
        put(POWER_CONTROL, &[0x08]); // a return from D3hot is no reset
        put(EXPRESS, &[0x10, 0xa0, 0x02, 0x00]); // PCI Express, version 2, endpoint
        put(EXPRESS + 4, &(1_u32 << 28 | 0x8000).to_le_bytes()); // it can be reset by function
        put(MSI_X, &[0x11, 0x00, INTERRUPTS as u8 - 1, 0x00]);
        put(MSI_X + 4, &0x00b9_0000_u32.to_le_bytes()); // the table, in BAR 0
        put(MSI_X + 8, &0x00ba_0000_u32.to_le_bytes()); // pending bits, there too
        match chip {
            // Designated vendor-specific (id 0x23, version 1): vendor, revision, length; then its own number, 0.
            Chip::Gb100 => {
                put(VENDOR, &(0x0001_0023_u32 | (RESIZABLE as u32) << 20).to_le_bytes());
                put(VENDOR + 4, &(0x10de_u32 | 0x018 << 20).to_le_bytes());
                put(RESIZABLE, &0x0001_0015_u32.to_le_bytes());
                put(RESIZABLE_CONTROL, &(2_u32 | 1 << 5).to_le_bytes()); // one BAR, at register 2
            }
            // Vendor-specific (id 0xb, version 1): its number 1, revision 1, length.
            Chip::Gh100 | Chip::Gb202 => {
                put(VENDOR, &0x0001_000b_u32.to_le_bytes());
                put(VENDOR + 4, &(0x1_u32 | 1 << 16 | 0x018 << 20).to_le_bytes());
            }
            Chip::Ls10 => {}
        }
        Self(bytes)
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }
}

impl Model {
    /// Reads configuration space; all ones where nothing answers.
    pub fn config_read(&self, offset: u16) -> u32 {
        let mut bytes = [0; 4];
        self.config_read_bytes(usize::from(offset), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Reads any bytes of configuration space.
    pub fn config_read_bytes(&self, offset: usize, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = if self.awake { self.config.byte(at) | self.status(at) | self.sizes(at) } else { 0xff };
        }
    }

    /// Bits that follow from the device's state: the firewall of BAR 0, the security fault.
    fn status(&self, at: usize) -> u8 {
        let firewall = self.firewall_is_up();
        let fault = self.has(Fault::SecurityFault);
        match (self.chip, at.wrapping_sub(VENDOR)) {
            (Chip::Gb100, 0x0a) if firewall => 1 << 4, // +0x8, bit 20
            (Chip::Gb202, 0x17) if firewall => 1,      // +0x14, bit 24
            (Chip::Gb100, 0x14) | (Chip::Gh100 | Chip::Gb202, 0x10) if fault => 0x02,
            _ => 0,
        }
    }

    /// The size of the memory BAR, and those that it can have, where these can be read.
    fn sizes(&self, at: usize) -> u8 {
        let Some(shift) = at.checked_sub(RESIZABLE + 4).filter(|_| self.chip == Chip::Gb100) else { return 0 };
        let size = self.memory_exponent();
        let offered = SIZES.chain([size]).fold(0_u32, |bits, exponent| bits | 1 << (exponent + 4));
        let registers = u64::from(offered) | u64::from(size) << 40;
        if shift < 8 { (registers >> (8 * shift)) as u8 } else { 0 }
    }

    fn memory_exponent(&self) -> u8 {
        let memory = self.bars().into_iter().find(|(index, _)| *index == 2).map_or(MIB, |(_, size)| size);
        (memory / MIB).trailing_zeros() as u8
    }

    /// A write to the size of the memory BAR, as the exponent of a power of two MiB. A size that is not offered leaves it as it is.
    pub fn resize(&mut self, exponent: u8) {
        self.sizes_asked.push(exponent);
        let is_offered = SIZES.contains(&exponent) || exponent == self.memory_exponent();
        if is_offered && !self.has(Fault::ResizeIgnored) {
            self.resized_bar = Some(MIB << exponent);
        }
    }

    /// Whether BAR 0 is closed by the firewall, as Blackwell's is for a moment after each reset.
    pub(super) fn firewall_is_up(&self) -> bool {
        let has = matches!(self.chip, Chip::Gb100 | Chip::Gb202);
        has && (self.has(Fault::FirewallStays) || self.clock + super::BOOT_TIME < self.booted_at + FIREWALL_TIME)
    }

    /// Writes configuration space. Returns the reset that the write asked for, where it did; it has happened then.
    pub fn config_write_bytes(&mut self, offset: usize, data: &[u8]) -> Option<Reset> {
        if !self.awake && !(POWER_CONTROL..POWER_CONTROL + 2).contains(&offset) {
            return None;
        }
        for (at, byte) in (offset..).zip(data) {
            self.write_byte(at, *byte);
        }
        // Device control, bit 15: function-level reset. It reads as zero.
        let high = &mut self.config.0[DEVICE_CONTROL + 1];
        if *high & 0x80 == 0 {
            return None;
        }
        *high &= 0x7f;
        self.reset(Reset::Function);
        Some(Reset::Function)
    }

    fn write_byte(&mut self, at: usize, byte: u8) {
        if at == POWER_CONTROL {
            self.config.0[at] = self.config.0[at] & !3 | byte & 3;
            self.set_d3hot(byte & 3 == 3);
        } else if at == RESIZABLE_CONTROL + 1 && self.chip == Chip::Gb100 {
            self.resize(byte & 0x3f);
        } else if (BAR0..BAR0 + 24).contains(&at) {
            let (register, shift) = ((at - BAR0) / 4, 8 * ((at - BAR0) % 4));
            let mask = self.bar_mask(register as u32);
            let fixed = self.config.byte(at) & !((mask >> shift) as u8);
            self.config.0[at] = byte & (mask >> shift) as u8 | fixed;
        } else if WRITABLE.iter().any(|range| range.contains(&at)) {
            self.config.0[at] = byte;
        }
    }

    /// The bits of a BAR register that can be written.
    fn bar_mask(&self, register: u32) -> u32 {
        for (index, size) in self.bars() {
            let mask = !(size - 1);
            match register.checked_sub(index) {
                Some(0) => return (mask & 0xffff_ffff) as u32,
                Some(1) => return (mask >> 32) as u32,
                _ => {}
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_tell_their_size_as_the_specification_says() {
        for (id, bytes) in [(0x2330_u16, 128_u64 << 30), (0x2335, 256 << 30)] {
            let mut model = Model::new(Chip::Gh100, id);
            for at in (0x10..0x28).step_by(4) {
                model.config_write_bytes(at, &[0xff; 4]);
            }
            let size = |model: &Model, at| {
                let (low, high) = (u64::from(model.config_read(at)), u64::from(model.config_read(at + 4)));
                !((high << 32 | low) & !0xf) + 1
            };
            assert_eq!((size(&model, 0x10), size(&model, 0x18), size(&model, 0x20)), (16 << 20, bytes, 32 << 20));
        }
    }

    #[test]
    fn the_memory_bar_of_blackwell_takes_an_offered_size_and_keeps_it_in_a_bus_reset() {
        let mut model = Model::new(Chip::Gb100, 0x2901);
        let size = |model: &Model| model.config_read(0x128) >> 8 & 0x3f;
        assert_eq!((model.config_read(0x100) >> 20, model.config_read(0x120), size(&model)), (0x120, 0x1_0015, 18));
        assert_eq!(model.config_read(0x124), 0x3f << 17, "8 GiB to 256 GiB");
        for (asked, got) in [(13, 13), (12, 13), (18, 18), (13, 13)] {
            model.config_write_bytes(0x128, &(0x22_u32 | asked << 8).to_le_bytes());
            assert_eq!(size(&model), got, "{asked}");
        }
        model.reset(Reset::Bus);
        assert_eq!((size(&model), model.bars()[1]), (13, (2, 8 << 30)));
        model.break_with(Fault::ResizeIgnored);
        model.config_write_bytes(0x129, &[18]);
        assert_eq!(size(&model), 13);
        model.reset(Reset::Reenumerate);
        assert_eq!(size(&model), 18);
    }

    #[test]
    fn a_device_in_d3hot_reads_all_ones_and_wakes() {
        let mut model = Model::new(Chip::Gh100, 0x2330);
        model.config_write_bytes(POWER_CONTROL, &[3]);
        assert_eq!((model.bar0_read(0), model.config_read(0)), (u32::MAX, 0x2330_10de));
        model.config_write_bytes(POWER_CONTROL, &[0]);
        assert_eq!(model.bar0_read(0), 0x1800_00a1);
    }

    #[test]
    fn the_firewall_of_blackwell_drops_by_itself_before_it_has_booted() {
        let mut model = Model::new(Chip::Gb100, 0x2901);
        assert!(!model.firewall_is_up());
        model.reset(Reset::Bus);
        assert_eq!((model.config_read(0x108) >> 20 & 1, model.bar0_read(0)), (1, u32::MAX));
        model.advance(FIREWALL_TIME);
        assert_eq!((model.config_read(0x108) >> 20 & 1, model.bar0_read(0x20_00bc)), (0, 0x11));
    }
}
