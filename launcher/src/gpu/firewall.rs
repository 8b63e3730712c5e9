//! Blackwell keeps BAR 0 closed for a while after each reset. Configuration space says when it is open: a register that is
//! read before reads all ones, which otherwise means that the link is down.
//!
//! Source: NVIDIA's gpu-admin-tools 82422cc.

use std::time::Duration;

use super::access::{AccessError, Function, wait_until};
use super::capability::find;
use super::product::{Family, NVIDIA};
use super::register::Unwell;

/// How long the firewall may stay up.
const LIMIT: Duration = Duration::from_secs(15);
/// PCI Express: vendor-specific and designated vendor-specific extended capability.
const VENDOR_SPECIFIC: u32 = 0x000b;
const DESIGNATED: u32 = 0x0023;

/// Waits until BAR 0 is open, where the device has a firewall and says so.
pub fn wait<F: Function + ?Sized>(function: &mut F, family: Family) -> Result<(), Unwell> {
    let (kind, register, bit) = match family {
        Family::Blackwell => (DESIGNATED, 0x08, 20),
        Family::BlackwellWorkstation => (VENDOR_SPECIFIC, 0x14, 24),
        Family::Hopper | Family::NvSwitch3 => return Ok(()),
    };
    // Firmware without the capability is awaited by its boot alone.
    let Some(capability) = find(function, kind, |function, at| is_ours(kind, function, at))? else { return Ok(()) };
    let open = wait_until(function, LIMIT, |function| {
        Ok::<_, AccessError>(function.config_read32(capability + register)? >> bit & 1 == 0)
    })?;
    if open {
        return Ok(());
    }
    if function.config_read32(0)? == u32::MAX {
        return Err(Unwell::Absent);
    }
    Err(Unwell::Firewall { seconds: LIMIT.as_secs() })
}

/// Whether it is NVIDIA's own. Designated: vendor 10de, number 0. Vendor-specific: number 1, revision 1.
fn is_ours<F: Function + ?Sized>(kind: u32, function: &mut F, at: u16) -> Result<bool, AccessError> {
    let header = function.config_read32(at + 4)?;
    if kind == VENDOR_SPECIFIC {
        return Ok(header & 0xf_ffff == 0x1_0001);
    }
    Ok(header & 0xffff == u32::from(NVIDIA) && function.config_read32(at + 8)? & 0xffff == 0)
}
