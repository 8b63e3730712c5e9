//! The process between a supervisor and a QEMU that is the first of its PID namespace: it tells QEMU's number, waits, and ends
//! as QEMU ends. The kernel kills it with the supervisor, and QEMU with it.
#![allow(
    unsafe_code,
    reason = "descriptors are closed by their numbers, and a process ends without running destructors"
)]

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, Signal, raise, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Waits for `child` to end, and ends likewise. `alive` stays open meanwhile.
pub(super) fn and_end_like(child: Pid, alive: &OwnedFd) -> ! {
    // Whoever waits for the end of a pipe or a lock waits for QEMU alone.
    let kept = alive.as_raw_fd().cast_unsigned();
    for (first, last) in
        [(0, kept.wrapping_sub(1)), (kept + 1, u32::MAX)].into_iter().filter(|(first, last)| first <= last)
    {
        // SAFETY: this process runs nothing but this function any more, which uses no descriptor.
        unsafe { nix::libc::close_range(first, last, 0) };
    }
    let code = loop {
        match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => break code,
            Ok(WaitStatus::Signaled(_, how, _)) => {
                die_of(how);
                break 128 + how as i32;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => break 1,
        }
    };
    // SAFETY: ends the process at once; what exit(3) would run belongs to the supervisor that this was forked from.
    unsafe { nix::libc::_exit(code) }
}

fn die_of(how: Signal) {
    // SAFETY: the default handler is no code of ours.
    let _ = unsafe { signal(how, SigHandler::SigDfl) };
    let _ = raise(how);
}
