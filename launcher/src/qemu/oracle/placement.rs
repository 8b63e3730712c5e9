//! Where firmware has placed the PCI devices: the writes to configuration space that lead there. QEMU's tables depend on it, so
//! whoever wants the tables that firmware got from another QEMU has to make these writes first.

use std::collections::VecDeque;
use std::fmt;

use super::error::OracleError;
use super::session::Session;

/// A write of 32 bits to the configuration space of a PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ConfigWrite {
    /// Bus, device and function: `bus << 8 | device << 3 | function`.
    pub function: u16,
    /// The register, a multiple of 4.
    pub register: u8,
    /// What is written.
    pub value: u32,
}

impl ConfigWrite {
    /// CONFIG_ADDRESS of PCI configuration mechanism 1.
    pub(super) fn address(function: u16, register: u8) -> u32 {
        1 << 31 | u32::from(function) << 8 | u32::from(register)
    }
}

/// `BUS:DEVICE.FUNCTION/REGISTER=VALUE`, all in hex: what the simulator reads.
impl fmt::Display for ConfigWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, register, value } = self;
        write!(f, "{:02x}:{:02x}.{:x}/{register:x}={value:x}", function >> 8, function >> 3 & 0x1f, function & 7)
    }
}

const ID: u8 = 0;
const COMMAND: u8 = 0x04;
/// I/O, memory and bus master. OVMF switches them on for as long as it reads the tables (edk2
/// `OvmfPkg/AcpiPlatformDxe/PciDecoding.c`); the machine is looked at a moment later.
const DECODING: u32 = 7;
const HEADER_TYPE: u8 = 0x0c;
const BUS_NUMBERS: u8 = 0x18;
/// The upper half of a bridge's I/O window register is its secondary status.
const IO_WINDOW: u8 = 0x1c;
/// Base address registers of a device.
const BARS: [u8; 6] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24];
/// Bus numbers, base address registers and windows of a bridge (PCI-to-PCI Bridge Architecture Specification 1.2, 3.2).
const BRIDGE: [u8; 9] = [BUS_NUMBERS, 0x10, 0x14, IO_WINDOW, 0x20, 0x24, 0x28, 0x2c, 0x30];
/// What the chipset has beside: PCIEXBAR, its upper half first, of the host bridge; PMBASE, ACPI_CNTL and RCBA of the bridge to
/// LPC (Intel 316966, 5.1.13; Intel 316972, 13.1). The tables name these addresses.
const CHIPSET: [(u16, u32, &[u8]); 2] =
    [(0, 0x29c0_8086, &[0x64, 0x60]), (0x1f << 3, 0x2918_8086, &[0x40, 0x44, 0xf0])];

/// Reads it of a machine that stands still.
pub(super) fn read(session: &mut Session) -> Result<Vec<ConfigWrite>, OracleError> {
    let mut writes = Vec::new();
    let mut buses = VecDeque::from([0_u16]);
    while let Some(bus) = buses.pop_front() {
        for function in functions(session, bus)? {
            let is_bridge = session.config(function, HEADER_TYPE)? >> 16 & 0x7f == 1;
            let id = session.config(function, ID)?;
            let chipset = CHIPSET.iter().find(|(place, known, _)| (*place, *known) == (function, id));
            let registers = if is_bridge { &BRIDGE[..] } else { &BARS[..] };
            let more = chipset.map_or(&[][..], |(.., registers)| registers);
            // A device answers at its addresses once it has them.
            for register in registers.iter().chain(more).chain(&[COMMAND]) {
                let value = session.config(function, *register)?;
                // Ones written to a status register would clear it.
                let has_status = *register == COMMAND || (is_bridge && *register == IO_WINDOW);
                let value = if has_status { value & 0xffff } else { value };
                let value = if *register == COMMAND { value | DECODING } else { value };
                writes.push(ConfigWrite { function, register: *register, value });
            }
            let behind = session.config(function, BUS_NUMBERS)? >> 8 & 0xff;
            if is_bridge && behind > u32::from(bus) {
                buses.extend(u16::try_from(behind));
            }
        }
    }
    Ok(writes)
}

/// The functions of a bus.
fn functions(session: &mut Session, bus: u16) -> Result<Vec<u16>, OracleError> {
    const NONE: u32 = u32::MAX;
    let mut found = Vec::new();
    for device in 0..32_u16 {
        let first = bus << 8 | device << 3;
        if session.config(first, ID)? == NONE {
            continue;
        }
        found.push(first);
        if session.config(first, HEADER_TYPE)? >> 16 & 0x80 == 0 {
            continue;
        }
        for function in first + 1..first + 8 {
            if session.config(function, ID)? != NONE {
                found.push(function);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_text() {
        let write = ConfigWrite { function: 0x01_fb, register: 0x10, value: 0xfe00_000c };
        assert_eq!(write.to_string(), "01:1f.3/10=fe00000c");
        assert_eq!(ConfigWrite::address(write.function, write.register), 0x8001_fb10);
    }
}
