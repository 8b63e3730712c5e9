//! The first state of a vCPU as KVM launches it: one VMSA page (AMD 24593, table B-4; Linux `struct sev_es_save_area`).

use super::cpu::CpuSignature;
use super::profile::Profile;
use crate::firmware::{PAGE_BYTES, Page};

/// Where every x86 processor starts.
pub const BSP_EIP: u32 = 0xffff_fff0;

/// Which vCPU a page is for, as far as its first state tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The boot processor, which starts at the reset vector.
    Bsp,
    /// An application processor, which starts where the firmware's reset block says.
    Ap {
        /// CS:IP as one address.
        eip: u32,
    },
}

/// Everything that varies between VMSA pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmsa<'a> {
    /// Which vCPU.
    pub role: Role,
    /// The signature of its CPU model.
    pub signature: CpuSignature,
    /// SEV_FEATURES; zero for SEV-ES.
    pub sev_features: u64,
    /// What the VMM does differently.
    pub profile: &'a Profile,
}

/// A segment register.
struct Segment {
    offset: usize,
    selector: u16,
    attributes: u16,
    base: u32,
}

impl Vmsa<'_> {
    /// The page.
    pub fn page(&self) -> Page {
        let mut page = [0; PAGE_BYTES];
        for segment in self.segments() {
            put(&mut page, segment.offset, &segment.selector.to_le_bytes());
            put(&mut page, segment.offset.saturating_add(2), &segment.attributes.to_le_bytes());
            put(&mut page, segment.offset.saturating_add(4), &0xffff_u32.to_le_bytes());
            put(&mut page, segment.offset.saturating_add(8), &u64::from(segment.base).to_le_bytes());
        }
        for (offset, value) in self.registers() {
            put(&mut page, offset, &value.to_le_bytes());
        }
        put(&mut page, 0x408, &self.profile.mxcsr.to_le_bytes());
        put(&mut page, 0x410, &self.profile.x87_fcw.to_le_bytes());
        page
    }

    fn eip(&self) -> u32 {
        match self.role {
            Role::Bsp => BSP_EIP,
            Role::Ap { eip } => eip,
        }
    }

    /// All limits are 0xffff.
    fn segments(&self) -> [Segment; 10] {
        let data = |offset, attributes| Segment { offset, selector: 0, attributes, base: 0 };
        let cs_attributes = match self.role {
            Role::Bsp => self.profile.bsp_cs_attributes,
            Role::Ap { .. } => self.profile.ap_cs_attributes,
        };
        [
            data(0x00, 0x93), // ES
            Segment { offset: 0x10, selector: 0xf000, attributes: cs_attributes, base: self.eip() & 0xffff_0000 },
            data(0x20, self.profile.ss_attributes),
            data(0x30, 0x93), // DS
            data(0x40, 0x93), // FS
            data(0x50, 0x93), // GS
            data(0x60, 0),    // GDTR
            data(0x70, 0x82), // LDTR
            data(0x80, 0),    // IDTR
            data(0x90, self.profile.tr_attributes),
        ]
    }

    /// The 64-bit fields that are not zero, by offset.
    fn registers(&self) -> [(usize, u64); 11] {
        [
            (0x0d0, 0x1000),                         // EFER: KVM sets SVME
            (0x148, 0x40),                           // CR4: KVM sets MCE
            (0x158, 0x10),                           // CR0: ET; KVM clears CD and NW
            (0x160, 0x400),                          // DR7
            (0x168, 0xffff_0ff0),                    // DR6
            (0x170, 0x2),                            // RFLAGS
            (0x178, u64::from(self.eip() & 0xffff)), // RIP
            (0x268, self.profile.g_pat),
            (0x310, self.profile.rdx.unwrap_or(u64::from(self.signature.0))),
            (0x3b0, self.sev_features),
            (0x3e8, 0x1), // XCR0
        ]
    }
}

/// Writes `value` at `offset`, which every caller takes from the layout of the page.
fn put(page: &mut Page, offset: usize, value: &[u8]) {
    if let Some(slot) = page.get_mut(offset..).and_then(|tail| tail.get_mut(..value.len())) {
        slot.copy_from_slice(value);
    }
}
