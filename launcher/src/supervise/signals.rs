//! Requests to stop, as readable events instead of handlers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Ctrl-C, `bullion stop` and service managers, a closed terminal.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// While this lives, the signals that ask for an end are read from here and do nothing else. For the calling thread and
/// those it starts: a program with more threads blocks the signals in them itself.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    pub(crate) fn block() -> io::Result<Self> {
        let mut mask = SigSet::empty();
        SIGNALS.iter().for_each(|signal| mask.add(*signal));
        let before = mask.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, before })
    }

    /// Waits for `time`, or until a signal comes: its name.
    pub(crate) fn wait(&self, time: Duration) -> io::Result<Option<&'static str>> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(first) = self.take()?.first() {
                return Ok(Some(first));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Rounded up, as asking again in a loop would be.
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The names of the signals that came.
    pub(crate) fn take(&self) -> io::Result<Vec<&'static str>> {
        let mut names = Vec::new();
        while let Some(signal) = self.fd.read_signal()? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            names.push(Signal::try_from(number).map_or("a signal", Signal::as_str));
        }
        Ok(names)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // A request that came when all was over has been met: unblocked, it would kill the program before it reports.
        let _ = self.take();
        let _ = self.before.thread_set_mask();
    }
}
