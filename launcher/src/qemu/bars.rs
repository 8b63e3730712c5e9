//! Where firmware finds room for the BARs of passed functions, how much they need, and what it must be told.
//!
//! Each function has a root port of its own, whose window begins where the function's largest BAR is aligned and holds all
//! its prefetchable BARs. An H100's is 128 GiB and 48 MiB, so that the next one begins 256 GiB after it: half of the room
//! between large BARs is lost (seen with OVMF 2026.08 and devices with an H100's BARs; `fakegpu`, `rooms`).

use spec::Tee;

use crate::host::PciFunction;

const GIB: u64 = 1 << 30;
/// Room for the small BARs of everything else.
const RESERVE: u64 = GIB;

/// The room that firmware has for 64-bit BARs.
struct Room {
    /// By itself.
    default: u64,
    /// At most, when it is told to.
    largest: u64,
    reason: &'static str,
}

/// AmdSevX64 sizes its page tables for 40 bits of addresses, whatever the processor has; an eighth of that is room for BARs,
/// and half of it can be (edk2 `OvmfPkg/Library/PlatformInitLib/MemDetect.c`).
const AMD_SEV: Room = Room {
    default: 128 * GIB,
    largest: 512 * GIB,
    reason: "AmdSevX64 firmware sizes its page tables for 40 address bits, in which 512 GiB are room for BARs",
};
/// IntelTdxX64 uses 46 bits, and the same eighth of them, which the ACPI tables name too.
const INTEL_TDX: Room = Room {
    default: 8192 * GIB,
    largest: 8192 * GIB,
    reason: "IntelTdxX64 firmware has 8 TiB for BARs with 46 address bits",
};

/// BARs for which there is no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// What they need, in GiB.
    pub needed_gib: u64,
    /// Why there is less.
    pub reason: &'static str,
    /// How many of the functions, from the first on, find room.
    pub fitting: usize,
}

/// What the firmware of a guest in `tee` is to be told of the room for BARs, in MiB; nothing where it has enough by itself.
pub fn window(tee: Tee, functions: &[&PciFunction]) -> Result<Option<u64>, NoRoom> {
    let room = match tee {
        // SeaBIOS places what fits, and Linux the rest.
        Tee::None => return Ok(None),
        Tee::Snp => AMD_SEV,
        Tee::Tdx => INTEL_TDX,
    };
    let needed = needed(functions);
    if needed <= room.default {
        return Ok(None);
    }
    if needed <= room.largest {
        return Ok(Some(room.largest >> 20));
    }
    let fits = |count: &usize| functions.get(..*count).is_some_and(|some| self::needed(some) <= room.largest);
    let fitting = (0..functions.len()).rev().find(fits).unwrap_or(0);
    Err(NoRoom { needed_gib: needed.div_ceil(GIB), reason: room.reason, fitting })
}

/// The room that the functions take together, each behind its port, in the order in which firmware places them: the ones
/// with the largest alignment first.
fn needed(functions: &[&PciFunction]) -> u64 {
    let mut ports: Vec<_> = functions.iter().map(|function| port(&function.prefetchable_bars)).collect();
    ports.sort_by_key(|(alignment, _)| std::cmp::Reverse(*alignment));
    let end =
        ports.into_iter().fold(0_u64, |end, (alignment, size)| end.next_multiple_of(alignment).saturating_add(size));
    // Less than a default window is never worth a reserve: it has the small ones' place already.
    if end > 0 { end.saturating_add(RESERVE) } else { 0 }
}

/// The alignment and size of a root port's window over these BARs.
fn port(bars: &[u64]) -> (u64, u64) {
    const GRANULE: u64 = 1 << 20;
    let mut sorted: Vec<_> = bars.iter().copied().filter(|bar| bar.is_power_of_two()).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let size = sorted.iter().fold(0_u64, |end, bar| end.next_multiple_of(*bar).saturating_add(*bar));
    (sorted.first().copied().unwrap_or(1).max(GRANULE), size.next_multiple_of(GRANULE))
}
