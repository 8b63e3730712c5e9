//! The VMSA that KVM measures for a vCPU: `sev_es_sync_vmsa` and what KVM's SVM code had put into the VMCB before it.
//!
//! The offsets are those of `struct sev_es_save_area` (`arch/x86/include/asm/svm.h`; AMD 24593, table B-4). The real vCPU that
//! the values come from is a plain one on whatever CPU the host has, so the changes that SVM makes to what QEMU asked for
//! are made here. PKRU and the shadow-stack registers are zero in every launch and not read.

use kvm_bindings::{kvm_dtable, kvm_segment};
use nix::errno::Errno;

use crate::refusal::Refusal;
use crate::vcpu::Registers;

/// EFER.SVME, which SVM needs in every VMCB.
const EFER_SVME: u64 = 1 << 12;
/// CR4.MCE, which KVM takes from the host; every host that runs SNP has it set.
const CR4_MCE: u64 = 1 << 6;
/// CR0.NW and CR0.CD, which KVM does not let a guest have.
const CR0_NW_CD: u64 = 1 << 29 | 1 << 30;
/// DR7 after reset.
const DR7_RESET: u64 = 0x400;

/// A page under construction.
struct Page([u8; 4096]);

impl Page {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn put_u64(&mut self, offset: usize, value: u64) {
        self.put(offset, &value.to_le_bytes());
    }

    /// `svm_set_segment`.
    fn put_segment(&mut self, offset: usize, segment: &kvm_segment) {
        let present = segment.present & u8::from(segment.unusable == 0);
        let attributes = u16::from(segment.type_ & 0xf)
            | u16::from(segment.s & 1) << 4
            | u16::from(segment.dpl & 3) << 5
            | u16::from(present & 1) << 7
            | u16::from(segment.avl & 1) << 8
            | u16::from(segment.l & 1) << 9
            | u16::from(segment.db & 1) << 10
            | u16::from(segment.g & 1) << 11;
        self.put(offset, &segment.selector.to_le_bytes());
        self.put(offset + 2, &attributes.to_le_bytes());
        self.put(offset + 4, &segment.limit.to_le_bytes());
        self.put_u64(offset + 8, segment.base);
    }

    fn put_table(&mut self, offset: usize, table: &kvm_dtable) {
        self.put(offset + 4, &u32::from(table.limit).to_le_bytes());
        self.put_u64(offset + 8, table.base);
    }
}

/// The page, or the refusal of a vCPU whose debug registers are in use.
pub(super) fn page(registers: &Registers, sev_features: u64) -> Result<[u8; 4096], Refusal> {
    if registers.debug.dr7 & !DR7_RESET != 0 {
        return Err(Refusal::new(Errno::EINVAL, "a vCPU has breakpoints set in DR7"));
    }
    let mut page = Page([0; 4096]);
    put_segments(&mut page, registers);
    put_control(&mut page, registers);
    put_general(&mut page, registers);
    page.put_u64(0x3b0, sev_features);
    put_extended(&mut page, registers);
    Ok(page.0)
}

fn put_segments(page: &mut Page, registers: &Registers) {
    let special = &registers.special;
    let segments = [&special.es, &special.cs, &special.ss, &special.ds, &special.fs, &special.gs]
        .into_iter()
        .zip((0..).step_by(16));
    segments.for_each(|(segment, offset)| page.put_segment(offset, segment));
    page.put_table(0x60, &special.gdt);
    page.put_segment(0x70, &special.ldt);
    page.put_table(0x80, &special.idt);
    page.put_segment(0x90, &special.tr);
    page.put(0xcb, &[special.ss.dpl & 3]);
}

fn put_control(page: &mut Page, registers: &Registers) {
    let Registers { special, debug, msrs, .. } = registers;
    page.put_u64(0xd0, special.efer | EFER_SVME);
    page.put_u64(0x140, msrs.xss);
    page.put_u64(0x148, special.cr4 | CR4_MCE);
    page.put_u64(0x150, special.cr3);
    page.put_u64(0x158, special.cr0 & !CR0_NW_CD);
    page.put_u64(0x160, debug.dr7 | DR7_RESET);
    page.put_u64(0x168, debug.dr6);
    page.put_u64(0x200, msrs.star);
    page.put_u64(0x208, msrs.lstar);
    page.put_u64(0x210, msrs.cstar);
    page.put_u64(0x218, msrs.syscall_mask);
    page.put_u64(0x220, msrs.kernel_gs_base);
    page.put_u64(0x228, msrs.sysenter_cs);
    page.put_u64(0x230, msrs.sysenter_esp);
    page.put_u64(0x238, msrs.sysenter_eip);
    page.put_u64(0x268, msrs.pat);
}

fn put_general(page: &mut Page, registers: &Registers) {
    let general = &registers.general;
    page.put_u64(0x170, general.rflags);
    page.put_u64(0x178, general.rip);
    page.put_u64(0x1d8, general.rsp);
    page.put_u64(0x1f8, general.rax);
    page.put_u64(0x308, general.rcx);
    page.put_u64(0x310, general.rdx);
    page.put_u64(0x318, general.rbx);
    page.put_u64(0x328, general.rbp);
    page.put_u64(0x330, general.rsi);
    page.put_u64(0x338, general.rdi);
    let numbered =
        [general.r8, general.r9, general.r10, general.r11, general.r12, general.r13, general.r14, general.r15];
    numbered.into_iter().zip((0x340..).step_by(8)).for_each(|(value, offset)| page.put_u64(offset, value));
}

/// XCR0 and the floating-point state, from the layout of XSAVE (Intel SDM 1, 13.4) to that of the VMSA.
fn put_extended(page: &mut Page, registers: &Registers) {
    let xcr0 = registers.extended_control.xcrs.iter().find(|xcr| xcr.xcr == 0).map_or(1, |xcr| xcr.value);
    page.put_u64(0x3e8, xcr0);
    let area: Vec<u8> = registers.extended_state.region.iter().flat_map(|word| word.to_le_bytes()).collect();
    let field = |offset: usize, length: usize| area.get(offset..offset + length).unwrap_or_default();
    page.put(0x400, field(16, 8)); // x87_dp
    page.put(0x408, field(24, 4)); // mxcsr
    page.put(0x40c, field(4, 2)); // x87_ftw
    page.put(0x40e, field(2, 2)); // x87_fsw
    page.put(0x410, field(0, 2)); // x87_fcw
    page.put(0x412, field(6, 2)); // x87_fop
    page.put(0x418, field(8, 8)); // x87_rip
    for register in 0..8 {
        page.put(0x420 + register * 8, field(32 + register * 16, 8));
        page.put(0x460 + register * 2, field(40 + register * 16, 2));
    }
    page.put(0x470, field(160, 256)); // XMM
    const YMM: u64 = 1 << 2;
    let in_use = u64::from_le_bytes(field(512, 8).try_into().unwrap_or_default());
    if in_use & YMM != 0 {
        page.put(0x570, field(576, 256));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcpu::ModelSpecific;
    use kvm_bindings::{kvm_debugregs, kvm_regs, kvm_sregs, kvm_xcr, kvm_xcrs, kvm_xsave};

    fn segment(type_: u8, s: u8, selector: u16, base: u64) -> kvm_segment {
        kvm_segment { base, limit: 0xffff, selector, type_, present: 1, s, ..Default::default() }
    }

    /// A vCPU as QEMU resets it, where CR0, CR4 and EFER are still what the architecture says.
    fn reset(signature: u64, eip: u64) -> Registers {
        let data = segment(3, 1, 0, 0);
        let table = kvm_dtable { limit: 0xffff, ..Default::default() };
        let mut extended_state = kvm_xsave::default();
        extended_state.region[0] = 0x37f;
        extended_state.region[6] = 0x1f80;
        let mut extended_control = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        extended_control.xcrs[0] = kvm_xcr { xcr: 0, value: 1, ..Default::default() };
        Registers {
            general: kvm_regs { rip: eip & 0xffff, rdx: signature, rflags: 2, ..Default::default() },
            special: kvm_sregs {
                cs: segment(0xb, 1, 0xf000, eip & 0xffff_0000),
                ds: data,
                es: data,
                fs: data,
                gs: data,
                ss: data,
                tr: segment(0xb, 0, 0, 0),
                ldt: segment(2, 0, 0, 0),
                gdt: table,
                idt: table,
                cr0: 0x6000_0010,
                ..Default::default()
            },
            debug: kvm_debugregs { dr6: 0xffff_0ff0, dr7: DR7_RESET, ..Default::default() },
            extended_control,
            extended_state,
            msrs: ModelSpecific { pat: 0x0007_0406_0007_0406, ..Default::default() },
        }
    }

    #[test]
    fn reset_vcpus_give_the_pages_that_igvm_tools_give() {
        let vectors =
            [("vmsa_bsp_qemu_epyc-v4_feat1.bin", 0xffff_fff0), ("vmsa_ap_qemu_epyc-v4_feat1_eip80b004.bin", 0x80_b004)];
        for (name, eip) in vectors {
            let Some(expected) = crate::test_vectors::read(&format!("snp/igvm/{name}")) else { return };
            let page = page(&reset(0x80_0f12, eip), 1).unwrap();
            let different = (0..4096).filter(|offset| page.get(*offset) != expected.get(*offset)).collect::<Vec<_>>();
            assert!(different.is_empty(), "{name}: offsets {different:x?}");
        }
    }

    #[test]
    fn a_vcpu_with_breakpoints_is_refused() {
        let mut registers = reset(0, 0);
        registers.debug.dr7 = 0x401;
        assert_eq!(page(&registers, 1).unwrap_err().errno, Errno::EINVAL);
    }
}
