//! What KVM knows about a guest's memory: which slots have a guest_memfd, which pages are private, which were given content.
//!
//! Kept apart from the launch commands because both TEEs go through the same `kvm_gmem_populate` and share its rules
//! (`virt/kvm/guest_memfd.c`, `virt/kvm/kvm_main.c`, Linux 7.3). No memory is held here, only page numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use nix::errno::Errno;

use crate::abi::{MemoryAttributes, MemoryRegion2};
use crate::firmware::Memory;
use crate::refusal::Refusal;
use crate::user_memory;

/// The size of the only pages that a launch adds.
pub(crate) const PAGE_SIZE: u64 = PAGE_BYTES as u64;
/// The same, as the size of a buffer.
pub(crate) const PAGE_BYTES: usize = 4096;
/// `KVM_MEM_GUEST_MEMFD`.
pub(crate) const MEM_GUEST_MEMFD: u32 = 1 << 2;
/// `KVM_MEMORY_ATTRIBUTE_PRIVATE`, the only attribute.
pub(crate) const ATTRIBUTE_PRIVATE: u64 = 1 << 3;

/// A set of page numbers, as disjoint ranges that do not touch each other.
#[derive(Debug, Default)]
struct PageSet(BTreeMap<u64, u64>);

impl PageSet {
    fn insert(&mut self, pages: Range<u64>) {
        let (mut start, mut end) = (pages.start, pages.end);
        // Whatever overlaps or touches becomes part of the new range.
        while let Some((&s, &e)) = self.0.range(..=end).next_back().filter(|(_, e)| **e >= start) {
            self.0.remove(&s);
            (start, end) = (start.min(s), end.max(e));
        }
        self.0.insert(start, end);
    }

    fn remove(&mut self, pages: Range<u64>) {
        while let Some((&s, &e)) = self.0.range(..pages.end).next_back().filter(|(_, e)| **e > pages.start) {
            self.0.remove(&s);
            if s < pages.start {
                self.0.insert(s, pages.start);
            }
            if e > pages.end {
                self.0.insert(pages.end, e);
            }
        }
    }

    /// Whether `page` is in the set, and up to where (exclusive) that answer stays the same.
    fn run_at(&self, page: u64) -> (bool, u64) {
        match self.0.range(..=page).next_back() {
            Some((_, &end)) if end > page => (true, end),
            _ => (false, self.0.range(page..).next().map_or(u64::MAX, |(&start, _)| start)),
        }
    }
}

/// Why no page could be given content, with the page's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpopulatable {
    /// No slot with a guest_memfd has the page.
    NoSlot(u64),
    /// The page is shared.
    Shared(u64),
    /// The page was given content before.
    HasContent(u64),
}

impl From<Unpopulatable> for Refusal {
    /// With the error that `kvm_gmem_populate` gives.
    fn from(why: Unpopulatable) -> Self {
        match why {
            Unpopulatable::NoSlot(page) => Self::new(Errno::EINVAL, format!("no guest_memfd slot has page {page:#x}")),
            Unpopulatable::Shared(page) => Self::new(Errno::EINVAL, format!("page {page:#x} is not private")),
            Unpopulatable::HasContent(page) => {
                Self::new(Errno::EEXIST, format!("page {page:#x} was given content before"))
            }
        }
    }
}

#[derive(Debug)]
struct Slot {
    pages: Range<u64>,
    userspace_addr: u64,
    guest_memfd: bool,
}

/// The memory of one VM as KVM sees it.
#[derive(Debug, Default)]
pub(crate) struct GuestMemory {
    slots: BTreeMap<u32, Slot>,
    private: PageSet,
    populated: PageSet,
}

impl GuestMemory {
    /// The checks of `kvm_set_memory_region` that concern a guest_memfd; `memfd_size` is the size of the file, where it is one.
    pub(crate) fn check_region(&self, region: &MemoryRegion2, memfd_size: Option<u64>) -> Result<(), Errno> {
        if region.flags & MEM_GUEST_MEMFD == 0 || region.memory_size == 0 {
            return Ok(());
        }
        // Slots with a guest_memfd cannot be changed, only deleted.
        if self.slots.contains_key(&region.slot) {
            return Err(Errno::EINVAL);
        }
        let size = memfd_size.ok_or(Errno::EBADF)?;
        let end = region.guest_memfd_offset.checked_add(region.memory_size).ok_or(Errno::EINVAL)?;
        if !region.guest_memfd_offset.is_multiple_of(PAGE_SIZE) || end > size {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// Notes a region that KVM has accepted.
    pub(crate) fn set_region(&mut self, region: &MemoryRegion2) {
        if region.memory_size == 0 {
            self.slots.remove(&region.slot);
            return;
        }
        let first = region.guest_phys_addr / PAGE_SIZE;
        let pages = first..first.saturating_add(region.memory_size / PAGE_SIZE);
        let guest_memfd = region.flags & MEM_GUEST_MEMFD != 0;
        self.slots.insert(region.slot, Slot { pages, userspace_addr: region.userspace_addr, guest_memfd });
    }

    /// Where QEMU has `length` bytes of what the guest shares with it, from `gpa` on.
    fn shared(&self, gpa: u64, length: usize) -> Option<u64> {
        let last = gpa.checked_add(u64::try_from(length).ok()?)?.checked_sub(1)?;
        let slot = self.slots.values().find(|slot| slot.pages.contains(&(gpa / PAGE_SIZE)))?;
        slot.pages.contains(&(last / PAGE_SIZE)).then_some(())?;
        slot.userspace_addr.checked_add(gpa.checked_sub(slot.pages.start.checked_mul(PAGE_SIZE)?)?)
    }

    /// `kvm_vm_ioctl_set_mem_attributes`.
    pub(crate) fn set_attributes(&mut self, attributes: &MemoryAttributes) -> Result<(), Errno> {
        let MemoryAttributes { address, size, attributes, flags } = *attributes;
        let end = address.checked_add(size).ok_or(Errno::EINVAL)?;
        let aligned = address.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE);
        if flags != 0 || attributes & !ATTRIBUTE_PRIVATE != 0 || size == 0 || !aligned {
            return Err(Errno::EINVAL);
        }
        let pages = address / PAGE_SIZE..end / PAGE_SIZE;
        if attributes & ATTRIBUTE_PRIVATE != 0 {
            self.private.insert(pages);
        } else {
            // The discard that follows a conversion is an fallocate, which is not seen here: it is taken as done.
            self.populated.remove(pages.clone());
            self.private.remove(pages);
        }
        Ok(())
    }

    /// How many of the `count` pages from `first` on could be given content now, as `kvm_gmem_populate` counts them: to the
    /// end of the slot at most, and to the first page that is shared or has content. An error where that is none.
    pub(crate) fn populatable(&self, first: u64, count: u64) -> Result<u64, Unpopulatable> {
        let slot = self.slots.values().find(|slot| slot.pages.contains(&first)).filter(|slot| slot.guest_memfd);
        let Some(slot) = slot else {
            return Err(Unpopulatable::NoSlot(first));
        };
        let mut end = slot.pages.end.min(first.saturating_add(count));
        let (private, private_end) = self.private.run_at(first);
        if !private {
            return Err(Unpopulatable::Shared(first));
        }
        end = end.min(private_end);
        let (populated, empty_end) = self.populated.run_at(first);
        if populated {
            return Err(Unpopulatable::HasContent(first));
        }
        Ok(end.min(empty_end) - first)
    }

    /// Notes that the `count` pages from `first` on have content.
    pub(crate) fn set_populated(&mut self, first: u64, count: u64) {
        self.populated.insert(first..first + count);
    }
}

/// What a guest shares with QEMU. Nothing here is encrypted, so any of its memory will do.
impl Memory for GuestMemory {
    fn read(&self, gpa: u64, buffer: &mut [u8]) -> Option<()> {
        if buffer.is_empty() {
            return Some(());
        }
        user_memory::read_bytes(self.shared(gpa, buffer.len())?, buffer).ok()
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> Option<()> {
        user_memory::write_bytes(self.shared(gpa, bytes.len())?, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn region(slot: u32, gpa: u64, size: u64, flags: u32) -> MemoryRegion2 {
        MemoryRegion2 {
            slot,
            flags,
            guest_phys_addr: gpa,
            memory_size: size,
            userspace_addr: 0,
            guest_memfd_offset: 0,
            guest_memfd: 3,
            pad1: 0,
            pad2: [0; 14],
        }
    }

    fn attributes(address: u64, size: u64, attributes: u64) -> MemoryAttributes {
        MemoryAttributes { address, size, attributes, flags: 0 }
    }

    proptest! {
        #[test]
        fn a_page_set_is_a_set(steps in proptest::collection::vec((any::<bool>(), 0_u64..64, 1_u64..16), 0..40)) {
            let (mut set, mut model) = (PageSet::default(), BTreeSet::new());
            for (add, start, length) in steps {
                let pages = start..start + length;
                if add {
                    set.insert(pages.clone());
                    model.extend(pages);
                } else {
                    set.remove(pages.clone());
                    model.retain(|page| !pages.contains(page));
                }
                for page in 0..90 {
                    let (inside, end) = set.run_at(page);
                    prop_assert_eq!(inside, model.contains(&page));
                    let model_end = (page..100).find(|p| model.contains(p) != inside);
                    prop_assert_eq!(end.min(100), model_end.unwrap_or(100));
                }
            }
        }
    }

    #[test]
    fn only_private_pages_of_a_guest_memfd_slot_can_be_populated_and_only_once() {
        let mut memory = GuestMemory::default();
        memory.set_region(&region(0, 0x1000, 0x4000, MEM_GUEST_MEMFD));
        memory.set_region(&region(1, 0x8000, 0x1000, 0));
        memory.set_attributes(&attributes(0, 0x4000, ATTRIBUTE_PRIVATE)).unwrap();
        assert_eq!(memory.populatable(0, 9), Err(Unpopulatable::NoSlot(0)));
        assert_eq!(memory.populatable(8, 9), Err(Unpopulatable::NoSlot(8)), "the slot there has no guest_memfd");
        assert_eq!(memory.populatable(4, 9), Err(Unpopulatable::Shared(4)));
        assert_eq!(memory.populatable(1, 9), Ok(3), "up to the shared page");
        memory.set_populated(2, 1);
        assert_eq!(memory.populatable(1, 9), Ok(1));
        assert_eq!(memory.populatable(2, 9), Err(Unpopulatable::HasContent(2)));
        memory.set_attributes(&attributes(0x2000, 0x1000, 0)).unwrap();
        memory.set_attributes(&attributes(0x2000, 0x1000, ATTRIBUTE_PRIVATE)).unwrap();
        assert_eq!(memory.populatable(2, 1), Ok(1));
    }

    #[test]
    fn regions_and_attributes_are_refused_as_kvm_refuses_them() {
        let mut memory = GuestMemory::default();
        let wanted = region(0, 0, 0x4000, MEM_GUEST_MEMFD);
        assert_eq!(memory.check_region(&wanted, None), Err(Errno::EBADF));
        assert_eq!(memory.check_region(&wanted, Some(0x3000)), Err(Errno::EINVAL));
        assert_eq!(memory.check_region(&wanted, Some(0x4000)), Ok(()));
        memory.set_region(&wanted);
        assert_eq!(memory.check_region(&wanted, Some(0x4000)), Err(Errno::EINVAL), "immutable");
        for (address, size, bits) in [(1, 0x1000, 8), (0, 0, 8), (0, 0x1001, 8), (0, 0x1000, 9), (!0xfff, 0x2000, 8)] {
            assert_eq!(memory.set_attributes(&attributes(address, size, bits)), Err(Errno::EINVAL));
        }
    }
}
