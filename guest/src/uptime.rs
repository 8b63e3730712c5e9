//! How long the kernel has been up: the one clock of the guest. The host sets the wall clock, so nothing here reads it.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the kernel started.
pub(crate) fn uptime_ms() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let milliseconds = u64::try_from(now.tv_nsec() / 1_000_000).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(milliseconds)
}
