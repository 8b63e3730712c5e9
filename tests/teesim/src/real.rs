//! The C library's own functions, behind the ones this library puts in front of them.
#![allow(
    unsafe_code,
    reason = "looks symbols up by name and calls them with the caller's own arguments; nothing else in the crate can reach the real ioctl"
)]

use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicPtr, Ordering};

use kvm_bindings::kvm_cpuid_entry2;
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, fstat};

use crate::abi::{KVM_GET_SUPPORTED_CPUID, KVM_SET_USER_MEMORY_REGION, MemoryRegion};

/// A function that was looked up once. No allocation, no lock: it may run before the program's own start.
struct Symbol {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Symbol {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicPtr::new(std::ptr::null_mut()) }
    }

    fn get(&self) -> Option<*mut c_void> {
        let mut address = self.address.load(Ordering::Acquire);
        if address.is_null() {
            // SAFETY: `name` ends in NUL; RTLD_NEXT asks for the definition after this library's own.
            address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.address.store(address, Ordering::Release);
        }
        (!address.is_null()).then_some(address)
    }
}

type Open = unsafe extern "C" fn(*const c_char, c_int, libc::mode_t) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, libc::mode_t) -> c_int;
type Ioctl = unsafe extern "C" fn(c_int, c_ulong, *mut c_void) -> c_int;

fn missing() -> c_int {
    Errno::ENOSYS.set();
    -1
}

/// `open`.
///
/// # Safety
/// As for `open(2)`: `path` is the caller's string.
pub(crate) unsafe fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // open64 and open are one function on x86_64.
    static OPEN: Symbol = Symbol::new(c"open64");
    match OPEN.get() {
        // SAFETY: the symbol is the C library's open64, whose third argument is passed in a register whether it is read or not.
        Some(address) => unsafe { std::mem::transmute::<*mut c_void, Open>(address)(path, flags, mode) },
        None => missing(),
    }
}

/// `openat`.
///
/// # Safety
/// As for `openat(2)`: `path` is the caller's string.
pub(crate) unsafe fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    static OPENAT: Symbol = Symbol::new(c"openat64");
    match OPENAT.get() {
        // SAFETY: as for open64.
        Some(address) => unsafe { std::mem::transmute::<*mut c_void, OpenAt>(address)(directory, path, flags, mode) },
        None => missing(),
    }
}

/// `ioctl`.
///
/// # Safety
/// `argument` is what `request` asks for.
pub(crate) unsafe fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    static IOCTL: Symbol = Symbol::new(c"ioctl");
    match IOCTL.get() {
        // SAFETY: the symbol is the C library's ioctl; its one variadic argument is passed in a register.
        Some(address) => unsafe { std::mem::transmute::<*mut c_void, Ioctl>(address)(fd, request, argument) },
        None => missing(),
    }
}

/// The real `ioctl` with a number for an argument.
pub(crate) fn ioctl_number(fd: c_int, request: u32, argument: u64) -> Result<c_int, Errno> {
    // SAFETY: the callers' requests (KVM_CREATE_VM, KVM_CHECK_EXTENSION, KVM_CREATE_VCPU) take a number, not a pointer.
    Errno::result(unsafe { ioctl(fd, c_ulong::from(request), argument as *mut c_void) })
}

/// The real `ioctl` with an argument that QEMU gave for this very request, or that points to a live structure of ours.
///
/// # Safety
/// `argument` points to what `request` asks for.
pub(crate) unsafe fn ioctl_pointer(fd: c_int, request: u32, argument: *mut c_void) -> Result<c_int, Errno> {
    // SAFETY: promised by the caller.
    Errno::result(unsafe { ioctl(fd, c_ulong::from(request), argument) })
}

/// Passes QEMU's own request on. Whatever KVM writes goes where QEMU asked it to.
pub(crate) fn forward(fd: c_int, request: u32, argument: u64) -> Result<c_int, Errno> {
    // SAFETY: the very call that QEMU made; this library only looked at it.
    unsafe { ioctl_pointer(fd, request, argument as *mut c_void) }
}

/// KVM_SET_USER_MEMORY_REGION.
pub(crate) fn set_memory_region(vm: c_int, region: &MemoryRegion) -> Result<c_int, Errno> {
    let region: *const MemoryRegion = region;
    // SAFETY: KVM only reads the structure; the host memory it names is QEMU's, which named it in the request this replaces.
    unsafe { ioctl_pointer(vm, KVM_SET_USER_MEMORY_REGION, region.cast_mut().cast()) }
}

/// KVM_GET_SUPPORTED_CPUID.
pub(crate) fn supported_cpuid(kvm: c_int) -> Result<Vec<kvm_cpuid_entry2>, Errno> {
    // KVM_MAX_CPUID_ENTRIES.
    const LIMIT: u32 = 256;
    #[repr(C)]
    struct Table {
        count: u32,
        padding: u32,
        entries: [kvm_cpuid_entry2; LIMIT as usize],
    }
    let mut table =
        Box::new(Table { count: LIMIT, padding: 0, entries: [kvm_cpuid_entry2::default(); LIMIT as usize] });
    // SAFETY: the layout of `struct kvm_cpuid2`, and `count` says how many entries there is room for.
    unsafe { ioctl_pointer(kvm, KVM_GET_SUPPORTED_CPUID, std::ptr::from_mut(table.as_mut()).cast()) }?;
    Ok(table.entries.iter().take(table.count as usize).copied().collect())
}

/// `fstat` of a descriptor that QEMU named.
pub(crate) fn stat(fd: c_int) -> Result<FileStat, Errno> {
    if fd < 0 {
        return Err(Errno::EBADF);
    }
    // SAFETY: not -1, and only looked at for the length of the call; a number that is not open gives EBADF.
    fstat(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Ends the process at once: no exit handlers, no output.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: always safe to call.
    unsafe { libc::_exit(code) }
}
