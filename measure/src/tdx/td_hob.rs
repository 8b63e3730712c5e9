//! The TD HOB: the list of memory ranges that QEMU hands to firmware, and the first event of RTMR0 (UEFI PI 1.8, volume 3,
//! "HOB Code Definitions"; QEMU `hw/i386/tdvf-hob.c`).

use alloc::vec::Vec;

use crate::digest::Digest384;
use crate::firmware::{FOUR_GIB, TdxLayout, TdxSectionType};

/// Why the TD HOB cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TdHobError {
    /// The firmware has no section for it.
    #[error("firmware has no TD_HOB section")]
    NoSection,
    /// A section of the firmware is not in the guest's memory.
    #[error("a guest with {memory_mib} MiB of memory has none at {gpa:#x}, where firmware needs it")]
    OutsideMemory {
        /// The guest's memory.
        memory_mib: u64,
        /// Where the section starts.
        gpa: u64,
    },
    /// More memory than addresses.
    #[error("{0} MiB of memory do not fit the address space")]
    TooMuchMemory(u64),
}

/// At this size and above, QEMU's q35 machine keeps 2 GiB below 4 GiB; below it, everything.
const Q35_SPLIT_FROM: u64 = 0xb000_0000;
const Q35_LOW_WHEN_SPLIT: u64 = 0x8000_0000;

/// EFI_RESOURCE_SYSTEM_MEMORY: already accepted by the VMM.
const SYSTEM_MEMORY: u32 = 0;
/// EFI_RESOURCE_MEMORY_UNACCEPTED.
const UNACCEPTED: u32 = 7;
/// Present, initialized, tested.
const ATTRIBUTES: u32 = 7;
/// The end of the list, which is not measured.
const END_SIZE: u64 = 8;

/// A range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
    kind: u32,
}

/// The TD HOB of a q35 guest with `memory_mib` MiB, without the HOB that ends it: what firmware measures.
pub fn bytes(layout: &TdxLayout, memory_mib: u64) -> Result<Vec<u8>, TdHobError> {
    let hob = layout.section(TdxSectionType::TD_HOB).ok_or(TdHobError::NoSection)?;
    let ranges = ranges(layout, memory_mib)?;
    let mut list = Vec::new();
    for range in &ranges {
        list.extend(resource(range));
    }
    let total = (list.len() as u64).saturating_add(HANDOFF_SIZE);
    let mut bytes = handoff(hob.gpa.saturating_add(total).saturating_add(END_SIZE));
    bytes.extend(list);
    Ok(bytes)
}

/// The digest of the event "TdxTable".
pub fn digest(layout: &TdxLayout, memory_mib: u64) -> Result<Digest384, TdHobError> {
    bytes(layout, memory_mib).map(|bytes| Digest384::of(&bytes))
}

/// All memory in address order, split where a section was added at launch.
fn ranges(layout: &TdxLayout, memory_mib: u64) -> Result<Vec<Range>, TdHobError> {
    let size = memory_mib.checked_mul(1 << 20).ok_or(TdHobError::TooMuchMemory(memory_mib))?;
    let low_end = if size >= Q35_SPLIT_FROM { Q35_LOW_WHEN_SPLIT } else { size };
    let high_end = FOUR_GIB.checked_add(size.saturating_sub(low_end)).ok_or(TdHobError::TooMuchMemory(memory_mib))?;
    let mut accepted: Vec<_> = layout
        .sections
        .iter()
        .filter(|section| matches!(section.section_type, TdxSectionType::TD_HOB | TdxSectionType::TEMP_MEM))
        .map(|section| (section.gpa, section.gpa.saturating_add(section.mem_size)))
        .collect();
    accepted.sort_unstable();
    let mut ranges = Vec::new();
    let mut next = 0;
    for (start, end) in accepted {
        if end > low_end || start < next {
            return Err(TdHobError::OutsideMemory { memory_mib, gpa: start });
        }
        ranges.push(Range { start: next, end: start, kind: UNACCEPTED });
        ranges.push(Range { start, end, kind: SYSTEM_MEMORY });
        next = end;
    }
    ranges.push(Range { start: next, end: low_end, kind: UNACCEPTED });
    ranges.push(Range { start: FOUR_GIB, end: high_end, kind: UNACCEPTED });
    ranges.retain(|range| range.start < range.end);
    Ok(ranges)
}

const HANDOFF_SIZE: u64 = 56;

/// EFI_HOB_HANDOFF_INFO_TABLE: version 9, everything zero but the end of the list.
fn handoff(end_of_list: u64) -> Vec<u8> {
    const HEADER: [u16; 4] = [1, 56, 0, 0];
    const VERSION_AND_BOOT_MODE: [u32; 2] = [9, 0];
    let memory = [0, 0, 0, 0, end_of_list];
    let mut bytes = Vec::new();
    bytes.extend(HEADER.iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend(VERSION_AND_BOOT_MODE.iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend(memory.iter().flat_map(|value: &u64| value.to_le_bytes()));
    bytes
}

/// EFI_HOB_RESOURCE_DESCRIPTOR without an owner.
fn resource(range: &Range) -> Vec<u8> {
    const HEADER: [u16; 4] = [3, 48, 0, 0];
    let mut bytes = Vec::new();
    bytes.extend(HEADER.iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend([0; 16]);
    bytes.extend([range.kind, ATTRIBUTES].iter().flat_map(|value| value.to_le_bytes()));
    bytes.extend([range.start, range.end.saturating_sub(range.start)].iter().flat_map(|value| value.to_le_bytes()));
    bytes
}
