//! The vCPUs of a simulated VM: real KVM vCPUs that hold the state QEMU gives them and never run.
#![allow(
    unsafe_code,
    reason = "fills structures by ioctl and maps the run page of a vCPU, as KVM's interface wants it"
)]

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::{kvm_debugregs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_xcrs, kvm_xsave};
use nix::errno::Errno;
use nix::libc;
use nix::poll::ppoll;
use nix::sys::signal::{SigSet, SigmaskHow};
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{KVM_GET_MSRS, kvm_read};
use crate::real;

/// One vCPU.
#[derive(Debug, Clone)]
pub(crate) struct Vcpu {
    /// Its file descriptor, QEMU's.
    pub(crate) fd: RawFd,
    /// The id QEMU gave it (its APIC id).
    pub(crate) id: u64,
    run: Option<Arc<RunPage>>,
}

impl Vcpu {
    /// A vCPU that QEMU has just created.
    pub(crate) fn new(fd: RawFd, id: u64) -> Self {
        Self { fd, id, run: RunPage::map(fd).map(Arc::new) }
    }

    /// Its run page; `None` where it could not be mapped.
    pub(crate) fn run_page(&self) -> Option<Arc<RunPage>> {
        self.run.clone()
    }
}

/// `struct kvm_run` and the page of port data behind it, mapped a second time beside QEMU's own mapping.
#[derive(Debug)]
pub(crate) struct RunPage(NonNull<libc::c_void>);

// SAFETY: the page is shared with the kernel and with QEMU's threads and only ever touched through an atomic.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl RunPage {
    const SIZE: usize = 2 * 4096;
    /// The offset of `immediate_exit` in `struct kvm_run`.
    const IMMEDIATE_EXIT: usize = 1;
    /// The offset of `tdx.get_quote.ret`.
    const RETURNED: usize = 48;

    fn map(fd: RawFd) -> Option<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a descriptor that KVM has just returned; nothing else is touched.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, protection, libc::MAP_SHARED, fd, 0) };
        (page != libc::MAP_FAILED).then(|| NonNull::new(page).map(Self))?
    }

    /// Fills it as KVM does when a guest writes 32 bits to a port (`struct kvm_run`, KVM_EXIT_IO).
    pub(crate) fn output(&self, port: u16, value: u32) {
        const EXIT_IO: u32 = 2;
        const OUT: u8 = 1;
        const DATA_OFFSET: u64 = 4096;
        // APIC_DEFAULT_PHYS_BASE, enabled, of the boot processor: QEMU takes over what KVM says here.
        const APIC_BASE: u64 = 0xfee0_0900;
        self.store(8, &EXIT_IO.to_le_bytes());
        self.store(24, &APIC_BASE.to_le_bytes());
        self.store(32, &[OUT, 4]);
        self.store(34, &port.to_le_bytes());
        self.store(36, &1_u32.to_le_bytes());
        self.store(40, &DATA_OFFSET.to_le_bytes());
        self.store(4096, &value.to_le_bytes());
    }

    /// Fills it as KVM does when a TD asks for a quote (`struct kvm_run`, KVM_EXIT_TDX).
    pub(crate) fn get_quote(&self, gpa: u64, size: u64) {
        const EXIT_TDX: u32 = 40;
        // TDVMCALL_GET_QUOTE, and what is returned where nobody handles it: TDVMCALL_STATUS_SUBFUNC_UNSUPPORTED.
        const GET_QUOTE: u64 = 0x10002;
        const UNSUPPORTED: u64 = 0x8000_0000_0000_0003;
        self.store(8, &EXIT_TDX.to_le_bytes());
        for (offset, value) in [(32, 0), (40, GET_QUOTE), (Self::RETURNED, UNSUPPORTED), (56, gpa), (64, size)] {
            self.store(offset, &value.to_le_bytes());
        }
    }

    /// What QEMU has returned to a TD that asked for a quote.
    pub(crate) fn quote_returned(&self) -> u64 {
        let byte = |offset: usize| {
            // SAFETY: inside the mapped pages, which live as long as `self`; a byte has no alignment to keep.
            unsafe { AtomicU8::from_ptr(self.0.as_ptr().cast::<u8>().add(Self::RETURNED + offset)) }
                .load(Ordering::SeqCst)
        };
        u64::from_le_bytes(std::array::from_fn(byte))
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        for (place, byte) in (offset..Self::SIZE).zip(bytes) {
            // SAFETY: inside the mapped pages, which live as long as `self`; a byte has no alignment to keep.
            unsafe { AtomicU8::from_ptr(self.0.as_ptr().cast::<u8>().add(place)) }.store(*byte, Ordering::SeqCst);
        }
    }

    pub(crate) fn immediate_exit(&self) -> bool {
        // SAFETY: inside the mapped pages, which live as long as `self`; a byte has no alignment to keep.
        let byte = unsafe { AtomicU8::from_ptr(self.0.as_ptr().cast::<u8>().add(Self::IMMEDIATE_EXIT)) };
        byte.load(Ordering::SeqCst) != 0
    }

    /// What KVM_RUN does for a guest that never leaves guest mode by itself: waits until a signal comes or QEMU asks for an
    /// immediate exit. There is no moment at which such a request could be missed.
    pub(crate) fn wait(&self) -> Errno {
        let Ok(before) = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return Errno::EINTR };
        if !self.immediate_exit() {
            let _ = ppoll(&mut [], None, Some(before));
        }
        let _ = before.thread_set_mask();
        Errno::EINTR
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this size and not handed out since.
        unsafe { libc::munmap(self.0.as_ptr(), Self::SIZE) };
    }
}

/// Everything about a vCPU that can reach its VMSA.
pub(crate) struct Registers {
    pub(crate) general: kvm_regs,
    pub(crate) special: kvm_sregs,
    pub(crate) debug: kvm_debugregs,
    pub(crate) extended_control: kvm_xcrs,
    pub(crate) extended_state: kvm_xsave,
    pub(crate) msrs: ModelSpecific,
}

/// The model-specific registers that are part of a VMSA.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ModelSpecific {
    pub(crate) star: u64,
    pub(crate) lstar: u64,
    pub(crate) cstar: u64,
    pub(crate) syscall_mask: u64,
    pub(crate) kernel_gs_base: u64,
    pub(crate) sysenter_cs: u64,
    pub(crate) sysenter_esp: u64,
    pub(crate) sysenter_eip: u64,
    pub(crate) pat: u64,
    pub(crate) xss: u64,
}

impl Registers {
    /// Reads them from KVM.
    pub(crate) fn read(fd: RawFd) -> Result<Self, Errno> {
        Ok(Self {
            general: query::<kvm_regs, 0x81>(fd)?,
            special: query::<kvm_sregs, 0x83>(fd)?,
            debug: query::<kvm_debugregs, 0xa1>(fd)?,
            extended_state: query::<kvm_xsave, 0xa4>(fd)?,
            extended_control: query::<kvm_xcrs, 0xa6>(fd)?,
            msrs: ModelSpecific {
                star: msr(fd, 0xc000_0081)?,
                lstar: msr(fd, 0xc000_0082)?,
                cstar: msr(fd, 0xc000_0083)?,
                syscall_mask: msr(fd, 0xc000_0084)?,
                kernel_gs_base: msr(fd, 0xc000_0102)?,
                sysenter_cs: msr(fd, 0x174)?,
                sysenter_esp: msr(fd, 0x175)?,
                sysenter_eip: msr(fd, 0x176)?,
                pat: msr(fd, 0x277)?,
                // A host without XSAVES has no IA32_XSS; its guests have none either.
                xss: msr(fd, 0xda0).unwrap_or(0),
            },
        })
    }
}

/// A KVM request that only fills a structure; its size is part of the request number, so that KVM cannot write past it.
fn query<T: FromBytes + IntoBytes, const NUMBER: u8>(fd: RawFd) -> Result<T, Errno> {
    const { assert!(size_of::<T>() < 1 << 14) };
    #[allow(clippy::cast_possible_truncation, reason = "below 2^14, as just asserted")]
    let request = kvm_read(NUMBER, size_of::<T>() as u32);
    let mut value = T::new_zeroed();
    // SAFETY: KVM fills at most the size that is encoded in the request, which is that of `value`.
    unsafe { real::ioctl_pointer(fd, request, std::ptr::from_mut(&mut value).cast()) }?;
    Ok(value)
}

fn msr(fd: RawFd, index: u32) -> Result<u64, Errno> {
    #[repr(C)]
    struct OneMsr {
        count: u32,
        padding: u32,
        entry: kvm_msr_entry,
    }
    let mut request = OneMsr { count: 1, padding: 0, entry: kvm_msr_entry { index, ..Default::default() } };
    // SAFETY: the layout of `struct kvm_msrs` with one entry, and `count` says so.
    let read = unsafe { real::ioctl_pointer(fd, KVM_GET_MSRS, std::ptr::from_mut(&mut request).cast()) }?;
    if read == 1 { Ok(request.entry.data) } else { Err(Errno::EINVAL) }
}
