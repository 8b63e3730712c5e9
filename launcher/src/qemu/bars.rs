//! Where firmware finds room for the BARs of passed functions, how much they need, and what it must be told.
//!
//! Each function has a root port of its own, whose window begins where the function's largest BAR is aligned and holds all
//! its prefetchable BARs. An H100's is 128 GiB and 48 MiB, so that the next one begins 256 GiB after it: half of the room
//! between large BARs is lost (seen with OVMF 2026.08 and devices with an H100's BARs; `fakegpu`, `rooms`).

use spec::Tee;

use crate::gpu::resizable::bars_in_guest;
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
    reason: String,
}

/// The most address bits by which firmware makes room. AmdSevX64 sizes its page tables for 40, whatever the processor has, because it
/// uses no pages of 1 GiB; IntelTdxX64 uses 46 (edk2 `OvmfPkg/Library/PlatformInitLib/MemDetect.c`).
const AMD_SEV_BITS: u32 = 40;
const INTEL_TDX_BITS: u32 = 46;
/// What a CPU model of QEMU has where it is told nothing (`TCG_PHYS_ADDR_BITS`).
const DEFAULT_BITS: u32 = 40;
/// What no processor has more of, and no x86 page table reaches beyond.
const MOST_BITS: u32 = 52;

impl Room {
    /// On a host whose processor has that many address bits; 0 where that is not known.
    fn of(tee: Tee, host_bits: u32) -> Self {
        let host_bits = if (1..=MOST_BITS).contains(&host_bits) { host_bits } else { MOST_BITS };
        let gib = |bytes: u64| format!("{} GiB", bytes / GIB);
        match tee {
            // An eighth of all addresses is room by itself, and half of them can be.
            Tee::Snp => {
                let all = 1 << host_bits.min(AMD_SEV_BITS);
                let (half, bits) = (gib(all / 2), host_bits.min(AMD_SEV_BITS));
                let reason = format!(
                    "AmdSevX64 firmware sizes its page tables for {bits} address bits, in which {half} are room for BARs"
                );
                Self { default: all / 8, largest: all / 2, reason }
            }
            // The same eighth, which the ACPI tables name too. It is not told of more: that would be measured.
            Tee::Tdx => {
                let bits = host_bits.min(INTEL_TDX_BITS);
                let all = 1 << bits;
                let reason = format!("IntelTdxX64 firmware has {} for BARs with {bits} address bits", gib(all / 8));
                Self { default: all / 8, largest: all / 8, reason }
            }
            // SeaBIOS places what fits, and Linux the rest; memory is in the other half.
            Tee::None => {
                let half = 1 << (host_bits - 1);
                let reason =
                    format!("the processor has {host_bits} address bits, of which {} are room for BARs", gib(half));
                Self { default: half, largest: half, reason }
            }
        }
    }
}

/// BARs for which there is no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// What they need, in GiB.
    pub needed_gib: u64,
    /// Why there is less.
    pub reason: String,
    /// How many of the functions, from the first on, find room.
    pub fitting: usize,
}

/// What the firmware of a guest in `tee` is to be told of the room for BARs, in MiB; nothing where it has enough by itself.
/// `host_bits` is how many address bits the host's processor has; 0 where that is not known.
pub fn window(tee: Tee, host_bits: u32, functions: &[&PciFunction]) -> Result<Option<u64>, NoRoom> {
    let room = Room::of(tee, host_bits);
    let needed = needed(tee, functions);
    if needed <= room.default {
        return Ok(None);
    }
    if needed <= room.largest {
        return Ok(Some(room.largest >> 20));
    }
    let fits = |count: &usize| functions.get(..*count).is_some_and(|some| self::needed(tee, some) <= room.largest);
    let fitting = (0..functions.len()).rev().find(fits).unwrap_or(0);
    Err(NoRoom { needed_gib: needed.div_ceil(GIB), reason: room.reason, fitting })
}

/// The most memory, in GiB, that an SNP guest may have beside the room of so many MiB that its firmware is `told` of: it is aligned to its own
/// size, behind memory, and ends within the addresses that firmware reaches (edk2 `OvmfPkg/Library/PlatformInitLib/MemDetect.c`).
pub fn most_memory_gib(host_bits: u32, told: u64) -> u64 {
    let reach_mib = Room::of(Tee::Snp, host_bits).largest >> 19;
    (reach_mib.saturating_sub(told) >> 10).saturating_sub(HOLE_GIB)
}

/// What of q35's first 4 GiB is no memory, where there is more of it than that.
const HOLE_GIB: u64 = 2;

/// What firmware of a guest in `tee` is told where the functions need more room than it has by itself, in MiB; nothing where it is
/// never told.
pub(super) fn larger_window(tee: Tee) -> Option<u64> {
    let room = Room::of(tee, 0);
    (room.largest > room.default).then_some(room.largest >> 20)
}

/// The window for 64-bit BARs, in GiB, that the ACPI tables of an SNP guest with `memory_mib` MiB and passed functions name, so that
/// they depend on no BAR: all the room of firmware that is `told` so many MiB of it. By default QEMU names what is used, from the lowest BAR on;
/// that one is where the room begins, because every size is aligned there. Nothing where QEMU would move memory out of firmware's reach.
pub(super) fn named_by_snp(told: Option<u64>, memory_mib: u64) -> Option<u64> {
    /// Below it memory is where it is always, together with the window (QEMU `hw/i386/pc.c`, `AMD_HT_START`).
    const REACH_GIB: u64 = 1012;
    let room = told.unwrap_or(Room::of(Tee::Snp, 0).default >> 20) >> 10;
    let memory = memory_mib.div_ceil(1 << 10).saturating_add(HOLE_GIB);
    (memory.saturating_add(room) <= REACH_GIB).then_some(room)
}

/// How many address bits the CPU of a guest without a TEE must have for the functions, where a model of QEMU has too few by itself.
/// A guest in a TEE has what its firmware reaches or its host's processor has.
pub fn address_bits(functions: &[&PciFunction]) -> Option<u32> {
    let needed = needed(Tee::None, functions);
    (DEFAULT_BITS..=MOST_BITS).find(|bits| needed <= 1 << (bits - 1)).filter(|bits| *bits > DEFAULT_BITS)
}

/// The room that the functions take together, each behind its port, in the order in which firmware places them: the ones
/// with the largest alignment first; with the sizes that their BARs have by then.
fn needed(tee: Tee, functions: &[&PciFunction]) -> u64 {
    let mut ports: Vec<_> = functions.iter().map(|function| port(&bars_in_guest(tee, function))).collect();
    ports.sort_by_key(|(alignment, _)| std::cmp::Reverse(*alignment));
    let end = ports.into_iter().fold(0_u64, |end, (alignment, size)| aligned(end, alignment).saturating_add(size));
    // Less than a default window is never worth a reserve: it has the small ones' place already.
    if end > 0 { end.saturating_add(RESERVE) } else { 0 }
}

/// The alignment and size of a root port's window over these BARs.
fn port(bars: &[u64]) -> (u64, u64) {
    const GRANULE: u64 = 1 << 20;
    let mut sorted: Vec<_> = bars.iter().copied().filter(|bar| bar.is_power_of_two()).collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let size = sorted.iter().fold(0_u64, |end, bar| aligned(end, *bar).saturating_add(*bar));
    (sorted.first().copied().unwrap_or(1).max(GRANULE), aligned(size, GRANULE))
}

/// Where the next of an alignment is. Devices say what sizes they like: beyond all addresses there is no room.
fn aligned(end: u64, alignment: u64) -> u64 {
    end.checked_next_multiple_of(alignment).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen of QEMU 11.1.3: memory of 498 GiB ends at 500 GiB beside a window of 512 GiB.
    #[test]
    fn a_window_is_named_beside_memory_that_stays_where_it_is() {
        let larger = larger_window(Tee::Snp);
        assert_eq!(larger, Some(512 << 10));
        assert_eq!([Tee::Tdx, Tee::None].map(larger_window), [None, None]);
        let named = |told| [1, 498, 499, 882, 883].map(|gib| named_by_snp(told, gib << 10));
        assert_eq!(named(larger), [Some(512), Some(512), None, None, None]);
        assert_eq!(named(None), [Some(128), Some(128), Some(128), Some(128), None]);
        assert_eq!(named_by_snp(None, u64::MAX), None);
    }

    #[test]
    fn memory_leaves_room_for_the_window_that_firmware_is_told_of() {
        let told = larger_window(Tee::Snp).unwrap();
        assert_eq!([0, 40, 52].map(|bits| most_memory_gib(bits, told)), [510; 3]);
        // A window named beside it is within that.
        assert!((1..=1024).all(|gib| gib <= 510 || named_by_snp(Some(told), gib << 10).is_none()));
        assert_eq!([most_memory_gib(39, told), most_memory_gib(40, u64::MAX)], [0, 0]);
    }

    /// Sizes are a device's own words.
    #[test]
    fn what_reaches_beyond_all_addresses_finds_no_room() {
        assert_eq!(port(&[1 << 63, 1 << 63]), (1 << 63, u64::MAX));
        assert_eq!(port(&[1 << 63, 1 << 63, 1 << 20]), (1 << 63, u64::MAX));
        assert_eq!(port(&[128 * GIB, 32 << 20, 16 << 20]), (128 * GIB, 128 * GIB + (48 << 20)));
    }
}
