//! The watchdog that the configuration names: given its driver, armed before the guest says that it is ready, and fed by the loop
//! that is the guest's life (`supervisor`), never by a thread that would go on while all else hangs.
//!
//! ABI: Linux `Documentation/watchdog/watchdog-api.rst`. Whoever has the host can end the guest at any time: the device gives him nothing
//! that he does not have.
#![allow(unsafe_code, reason = "the time after which a watchdog acts is set by an ioctl")]

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use spec::watchdog::Watchdog as Terms;

use crate::failure::{Failure, OrFail as _, Stage};

/// The only one: a second device gets no driver (`admission`).
const DEVICE: &str = "/dev/watchdog0";
/// How often it is fed in the time that it waits: a beat that comes late is no reason to stop.
const BEATS: u32 = 4;

nix::ioctl_readwrite!(set_timeout, b'W', 6, i32);

/// An armed watchdog. It is never disarmed: a guest that powers off is gone before it acts.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Never closed: the kernel would say on the console that it goes on.
    device: ManuallyDrop<File>,
    interval: Duration,
    due: Instant,
}

impl Watchdog {
    /// Arms it.
    pub(crate) fn arm(terms: Terms) -> Result<Self, Failure> {
        let device = OpenOptions::new().write(true).open(DEVICE).or_fail_doing(Stage::Watchdog, DEVICE)?;
        let wanted = i32::try_from(terms.timeout_s).unwrap_or(i32::MAX);
        let mut seconds = wanted;
        // SAFETY: WDIOC_SETTIMEOUT reads and writes one int, for which `seconds` is valid, and keeps no address of it.
        unsafe { set_timeout(device.as_raw_fd(), &raw mut seconds) }
            .or_fail_doing(Stage::Watchdog, "setting its time")?;
        if seconds != wanted {
            let reason = format_args!("it waits for {seconds} s, the configuration says {wanted}");
            return Err(Failure::new(Stage::Watchdog, reason));
        }
        Self::fed(device, terms)
    }

    fn fed(device: File, terms: Terms) -> Result<Self, Failure> {
        let interval = Duration::from_secs(terms.timeout_s.into()) / BEATS;
        let mut watchdog = Self { device: ManuallyDrop::new(device), interval, due: Instant::now() };
        watchdog.feed()?;
        Ok(watchdog)
    }

    /// Feeds it where that is due. Returns how long until it is due again.
    pub(crate) fn feed(&mut self) -> Result<Duration, Failure> {
        let now = Instant::now();
        if self.due <= now {
            // Any byte but the one that announces that it is to be disarmed, which is a 'V'.
            self.device.write_all(&[0]).or_fail_doing(Stage::Watchdog, "feeding it")?;
            self.due = now + self.interval;
        }
        Ok(self.due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_when_it_is_due_and_never_told_to_stop() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let fed = || std::fs::read(file.path()).unwrap();
        let device = OpenOptions::new().append(true).open(file.path()).unwrap();
        let mut watchdog = Watchdog::fed(device, Terms { timeout_s: 400 }).unwrap();
        assert_eq!(fed(), [0], "at the start");
        let left = watchdog.feed().unwrap();
        assert!(left > Duration::from_secs(98) && left <= Duration::from_secs(100), "{left:?}");
        assert_eq!(fed(), [0], "not yet due");
        watchdog.due = Instant::now();
        watchdog.feed().unwrap();
        assert_eq!(fed(), [0, 0]);
        assert!(watchdog.feed().unwrap() > Duration::from_secs(98));
    }
}
