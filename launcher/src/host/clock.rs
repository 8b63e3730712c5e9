//! Whether somebody keeps the host's clock: certificates and collateral are judged by it.
#![allow(unsafe_code, reason = "adjtimex(2) takes a pointer, and no crate in use wraps it")]

/// STA_UNSYNC (include/uapi/linux/timex.h).
const UNSYNCHRONISED: i32 = 0x40;

/// Whether a time service keeps the kernel's clock.
pub(super) fn clock_is_kept() -> Option<bool> {
    // SAFETY: a timex of zeros is valid, and with modes = 0 adjtimex(2) only fills it in.
    let (result, status) = unsafe {
        let mut timex: nix::libc::timex = std::mem::zeroed();
        (nix::libc::adjtimex(&raw mut timex), timex.status)
    };
    (result >= 0).then_some(status & UNSYNCHRONISED == 0)
}
