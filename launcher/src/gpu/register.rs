//! Registers of BAR 0 with their meaning. A value that stands for an error never passes as data.

use super::access::{AccessError, Function, wait_until};
use super::firewall;
use super::mode::{ActiveMode, Mode};
use super::product::Family;

/// PMC_BOOT_0: identifies the chip; what it reads when the device is unwell says how.
const PMC_BOOT_0: u32 = 0;
/// What `boot_register` reads when the firmware has booted.
const BOOTED: u32 = 0xff;

/// Why a device cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    /// The system refused.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Configuration space reads all ones.
    #[error("does not answer: configuration space reads all ones, as when it is asleep in D3cold or off the bus")]
    Absent,
    /// Registers read all ones.
    #[error("register {0:#x} reads all ones: the link is down, or the device keeps BAR 0 closed")]
    Closed(u32),
    /// Blackwell's firewall of BAR 0 has not opened.
    #[error("keeps BAR 0 closed by its firewall, also after {seconds} s")]
    Firewall {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The security processor stopped the device.
    #[error("has a security fault (PMC_BOOT_0 reads {0:#x})")]
    SecurityFault(u32),
    /// The firmware is in recovery.
    #[error("is in recovery mode: its firmware did not start")]
    Recovery,
    /// The firmware has not booted in time.
    #[error("has not booted within {seconds} s (register {offset:#x} reads {value:#x}, expected 0xff)")]
    NotBooted {
        /// The boot register.
        offset: u32,
        /// What it read last.
        value: u32,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A register reads an error value.
    #[error("register {offset:#x} reads {value:#x}, which stands for an error")]
    ErrorValue {
        /// The register.
        offset: u32,
        /// What it read.
        value: u32,
    },
}

/// Reads a register whose value is data.
pub fn read<F: Function + ?Sized>(function: &mut F, offset: u32) -> Result<u32, Unwell> {
    match function.read32(offset)? {
        u32::MAX => Err(Unwell::Closed(offset)),
        value if value >> 16 == 0xbadf => Err(Unwell::ErrorValue { offset, value }),
        value => Ok(value),
    }
}

/// Whether the device answers and its security processor is at work. Does not wait.
pub fn check_alive<F: Function + ?Sized>(function: &mut F, family: Family) -> Result<(), Unwell> {
    if function.config_read32(0)? & 0xffff == 0xffff {
        return Err(Unwell::Absent);
    }
    match function.read32(PMC_BOOT_0)? {
        u32::MAX => return Err(Unwell::Closed(PMC_BOOT_0)),
        value @ (0xbadf_0200 | 0xbad0_0200) => return Err(Unwell::SecurityFault(value)),
        value if value >> 16 == 0xbadf => return Err(Unwell::ErrorValue { offset: PMC_BOOT_0, value }),
        0 if family == Family::Hopper => return Err(Unwell::Recovery),
        _ => {}
    }
    let in_recovery = match family {
        Family::Hopper => read(function, 0x2_0120)? & 1 << 30 != 0,
        Family::NvSwitch3 => read(function, 0x6_6120)? & 1 << 30 != 0,
        Family::Blackwell | Family::BlackwellWorkstation => read(function, 0x8a_a128)? & 0xff > 1,
    };
    if in_recovery { Err(Unwell::Recovery) } else { Ok(()) }
}

/// Waits until the device's firmware has booted, then checks that it is well.
pub fn wait_for_boot<F: Function + ?Sized>(function: &mut F, family: Family) -> Result<(), Unwell> {
    firewall::wait(function, family)?;
    let register = family.boot_register();
    let mut last = 0;
    let booted = wait_until(function, register.limit, |function| {
        last = function.read32(register.offset)?;
        Ok::<_, AccessError>(last == BOOTED)
    })?;
    // What is wrong is worth more than that it took too long.
    check_alive(function, family)?;
    if booted {
        return Ok(());
    }
    Err(Unwell::NotBooted { offset: register.offset, value: last, seconds: register.limit.as_secs() })
}

/// The mode the device is in. Only the bits that are defined are looked at.
pub fn active_mode<F: Function + ?Sized>(function: &mut F, family: Family) -> Result<ActiveMode, Unwell> {
    let confidential = |bits: u32| match bits & 3 {
        0 => ActiveMode::Valid(Mode::Off),
        1 => ActiveMode::Valid(Mode::On),
        3 => ActiveMode::Valid(Mode::Devtools),
        _ => ActiveMode::Invalid,
    };
    Ok(match family {
        Family::Hopper => {
            let value = read(function, 0x11_82cc)?;
            if value >> 5 & 3 == 1 { ActiveMode::Valid(Mode::Ppcie) } else { confidential(value) }
        }
        Family::Blackwell | Family::BlackwellWorkstation => confidential(read(function, 0x590)?),
        Family::NvSwitch3 if read(function, 0x2_8c50)? & 1 != 0 => ActiveMode::Valid(Mode::Ppcie),
        Family::NvSwitch3 => ActiveMode::Valid(Mode::Off),
    })
}

/// The device's serial number (PDI).
pub fn serial<F: Function + ?Sized>(function: &mut F) -> Result<u64, Unwell> {
    let low = read(function, 0x82_0344)?;
    let high = read(function, 0x82_0348)?;
    Ok(u64::from(high) << 32 | u64::from(low))
}
