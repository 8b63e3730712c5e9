//! The size of a GPU's memory BAR, where it can be chosen: the Resizable BAR capability (PCI Express Base Specification 6.0, 7.8.6).
//!
//! A B200's is 256 GiB, of which AmdSevX64 firmware has room for one, and a confidential guest's driver needs little of it. With
//! 8 GiB eight of them have room, and the guest's kernel maps them at once (c8s, notes on HGX B200). The kernel changes the size of
//! a function without a driver, by `resourceN_resize`, and believes what it has written; what the device says is read here. QEMU
//! shows a guest the size as it is, and no other (`hw/vfio/pci.c`, `vfio_setup_rebar_ecap`): no guest changes it.

use std::fmt;

use serde::Serialize;
use spec::{PciAddress, Tee};

use super::access::{AccessError, Function};
use super::capability;
use super::product::Family;
use crate::host::PciFunction;

/// The extended capability's number.
const RESIZABLE_BAR: u32 = 0x0015;
/// How many BARs one capability can speak of.
const MAX_BARS: u16 = 6;

/// The BAR that a GPU's memory is behind, by its register.
pub const MEMORY_BAR: u8 = 2;
/// What a confidential guest gets of it.
pub const CONFIDENTIAL: BarSize = BarSize(13);

/// The size of a BAR as the capability and the kernel have it: the exponent of a power of two MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BarSize(pub u8);

impl BarSize {
    /// Of so many bytes; none where that is no power of two of at least 1 MiB.
    pub fn of(bytes: u64) -> Option<Self> {
        let exponent = bytes.checked_ilog2().filter(|_| bytes.is_power_of_two())?.checked_sub(20)?;
        Some(Self(u8::try_from(exponent).ok()?))
    }

    /// In bytes; no BAR is larger than all addresses.
    pub fn bytes(self) -> u64 {
        1_u64.checked_shl(20 + u32::from(self.0)).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for BarSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            exponent @ 0..10 => write!(f, "{} MiB", 1 << exponent),
            exponent => write!(f, "{} GiB", 1_u64.checked_shl(u32::from(exponent) - 10).unwrap_or(u64::MAX)),
        }
    }
}

/// A BAR for which the kernel offers other sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ResizableBar {
    /// Its register.
    pub bar: u8,
    /// Its size.
    pub size: BarSize,
    /// The sizes that it can have: bit n stands for 2^n MiB, as in `resourceN_resize`.
    pub offered: u64,
}

/// A BAR that is given another size before a guest starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// The function.
    pub address: PciAddress,
    /// Its register.
    pub bar: u8,
    /// Its size.
    pub from: BarSize,
    /// The size that it gets.
    pub to: BarSize,
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BAR {} resized from {} to {} while no driver has it", self.bar, self.from, self.to)
    }
}

/// Whether the memory BAR is larger than a guest in `tee` needs it.
fn is_oversized(tee: Tee, function: &PciFunction) -> bool {
    let family = function.product().map(|product| product.family);
    let largest = function.prefetchable_bars.iter().max();
    tee != Tee::None && family == Some(Family::Blackwell) && largest.is_some_and(|bytes| *bytes > CONFIDENTIAL.bytes())
}

/// What is resized of a function before it goes to a guest in `tee`: Blackwell's memory BAR, where it is larger than it needs to be and
/// the kernel offers the size.
pub fn wanted(tee: Tee, function: &PciFunction) -> Option<Resize> {
    let is_it = |bar: &&ResizableBar| bar.bar == MEMORY_BAR && bar.size > CONFIDENTIAL;
    let bar = function.resizable_bars.iter().find(is_it).filter(|_| is_oversized(tee, function))?;
    let address = function.address.parse().ok()?;
    (bar.offered >> CONFIDENTIAL.0 & 1 == 1).then_some(Resize {
        address,
        bar: bar.bar,
        from: bar.size,
        to: CONFIDENTIAL,
    })
}

/// Why a BAR that is larger than it needs to be stays so.
pub fn unwanted(tee: Tee, function: &PciFunction) -> Option<String> {
    let stays = is_oversized(tee, function) && wanted(tee, function).is_none();
    let offer = match function.resizable_bars.iter().find(|bar| bar.bar == MEMORY_BAR) {
        Some(_) => format!("the kernel does not offer {CONFIDENTIAL} in resource{MEMORY_BAR}_resize"),
        None => format!("the kernel has no resource{MEMORY_BAR}_resize for it"),
    };
    stays.then(|| format!("{}: its memory BAR keeps its size: {offer}", function.address))
}

/// The sizes of a function's prefetchable BARs once it goes to a guest in `tee`.
pub fn bars_in_guest(tee: Tee, function: &PciFunction) -> Vec<u64> {
    let mut bars = function.prefetchable_bars.clone();
    if let Some(resize) = wanted(tee, function)
        && let Some(bar) = bars.iter_mut().find(|bytes| **bytes == resize.from.bytes())
    {
        *bar = resize.to.bytes();
    }
    bars
}

/// The size of a BAR as the device's own capability has it; none where it has no such BAR.
pub fn size<F: Function + ?Sized>(function: &mut F, bar: u8) -> Result<Option<BarSize>, AccessError> {
    let Some(capability) = capability::find(function, RESIZABLE_BAR, |_, _| Ok(true))? else { return Ok(None) };
    let control = |function: &mut F, index: u16| function.config_read32(capability + 8 + 8 * index);
    let count = u16::try_from(control(function, 0)? >> 5 & 7).unwrap_or(0).min(MAX_BARS);
    for index in 0..count {
        let register = control(function, index)?;
        if register & 7 == u32::from(bar) {
            return Ok(u8::try_from(register >> 8 & 0x3f).ok().map(BarSize));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::trace::Recorded;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_powers_of_two_mib() {
        assert_eq!((BarSize::of(8 << 30), BarSize(18).bytes()), (Some(CONFIDENTIAL), 256 << 30));
        assert_eq!([BarSize::of(0), BarSize::of(3 << 20), BarSize::of(1 << 19)], [None; 3]);
        assert_eq!(
            [BarSize(6), BarSize(9), BarSize(10), BarSize(18)].map(|size| size.to_string()),
            ["64 MiB", "512 MiB", "1 GiB", "256 GiB"]
        );
        assert_eq!((BarSize(63).bytes(), BarSize(44).bytes()), (u64::MAX, u64::MAX), "larger than all addresses");
    }

    proptest! {
        /// Whatever a device says of itself is a size that a BAR can have, or none, and is read to an end.
        #[test]
        fn any_capabilities_are_a_size_or_none(words in proptest::collection::vec((0x40_u16..0x400, any::<u32>()), 0..40), begins in any::<bool>()) {
            let mut text = r#"{"op":"device","schema":1,"address":"0000:01:00.0","device_id":10497}"#.to_owned();
            let head = begins.then_some((0x40, 0x1_0015)).into_iter();
            for (word, value) in head.chain(words) {
                text.push_str(&format!("\n{{\"op\":\"config\",\"offset\":{},\"value\":{value}}}", 4 * word));
            }
            if let Ok(Some(found)) = size(&mut Recorded::parse(&text).unwrap(), MEMORY_BAR) {
                prop_assert!(found.0 < 64 && found.bytes() >= 1 << 20);
            }
        }
    }
}
