//! Extended capabilities of a function: the list of PCI Express Base Specification 6.0, 7.6, walked with a bound, because it is the
//! device's own word.

use super::access::{AccessError, Function};

/// Where extended capabilities begin, and the most that are looked at.
const FIRST: u16 = 0x100;
const MAX_CAPABILITIES: usize = 64;

/// The offset of the first capability of this kind that `is_it`, which is given the offset and reads what it needs.
pub(super) fn find<F: Function + ?Sized>(
    function: &mut F,
    kind: u32,
    mut is_it: impl FnMut(&mut F, u16) -> Result<bool, AccessError>,
) -> Result<Option<u16>, AccessError> {
    let mut at = FIRST;
    for _ in 0..MAX_CAPABILITIES {
        let header = function.config_read32(at)?;
        if header == 0 || header == u32::MAX {
            break;
        }
        if header & 0xffff == kind && is_it(function, at)? {
            return Ok(Some(at));
        }
        // The last two bits of a place are reserved, and no capability lies outside of extended space.
        at = u16::try_from(header >> 20 & 0xffc).unwrap_or(0);
        if at < FIRST {
            break;
        }
    }
    Ok(None)
}
