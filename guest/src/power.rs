//! Power-off: the only way in which PID 1 ends.

use nix::sys::reboot::{RebootMode, reboot};

/// The host asked the guest to power off.
#[derive(Debug)]
pub(crate) struct PowerOffRequested;

/// Powers off. What could be written to is in memory or on scratch, whose key goes with it: there is nothing to write out,
/// and nothing to unmount.
pub(crate) fn power_off() -> ! {
    // A host without power management leaves the guest running: it then waits, and does nothing more.
    let _ = reboot(RebootMode::RB_POWER_OFF);
    loop {
        nix::unistd::pause();
    }
}
