//! Power-off: the only way in which PID 1 ends.

use nix::sys::reboot::{RebootMode, reboot};

/// The host asked the guest to power off.
#[derive(Debug)]
pub(crate) struct PowerOffRequested;

/// Writes out what is to be written and powers off. The root file system and everything below it is read-only or in
/// memory, so there is nothing to unmount.
pub(crate) fn power_off() -> ! {
    nix::unistd::sync();
    // A host without power management leaves the guest running: it then waits, and does nothing more.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    loop {
        nix::unistd::pause();
    }
}
