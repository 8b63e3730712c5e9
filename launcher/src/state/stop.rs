//! Stopping a VM from another process: by asking its supervisor, harder each time.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::record::FILE_NAME;
use super::{Directories, ProcessId, StateError, list, running};

/// What it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The supervisor ended by itself when asked.
    InTime,
    /// It had to be told that there is no more time.
    Hurried,
    /// It had to be killed; QEMU ended with it.
    Killed,
}

/// How long a supervisor may take once it was told to hurry.
const HURRY: Duration = Duration::from_secs(4);

/// Stops VM `name`, giving its guest `timeout` (default: what its description says) to shut down.
pub fn stop(directories: &Directories, name: &str, timeout: Option<Duration>) -> Result<Stopped, StateError> {
    let not_running = || StateError::NotRunning { name: name.to_owned() };
    let record = running(directories, name)?;
    let path = directories.running(name).join(FILE_NAME);
    let pid = record.supervisor.pid;
    let failed = |source: rustix::io::Errno| StateError::io("signal the supervisor of", &path)(source.into());
    let process = Pid::from_raw(pid).ok_or_else(not_running)?;
    // First the descriptor, then the comparison: what it names cannot change in between.
    let pidfd = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(Stopped::InTime),
        Err(error) => return Err(failed(error)),
    };
    if ProcessId::of(pid) != Some(record.supervisor) {
        return Ok(Stopped::InTime);
    }
    // The supervisor has its own deadline, after which it kills: the second signal comes when that was missed.
    let own = Duration::from_secs(record.stop_timeout_s).saturating_add(HURRY);
    let steps = [
        (Signal::TERM, timeout.unwrap_or(own), Stopped::InTime),
        (Signal::TERM, HURRY, Stopped::Hurried),
        (Signal::KILL, HURRY, Stopped::Killed),
    ];
    for (signal, time, stopped) in steps {
        match pidfd_send_signal(&pidfd, signal) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(stopped),
            Err(error) => return Err(failed(error)),
        }
        if ends_within(&pidfd, time) {
            // Clears away what a killed supervisor left.
            list(directories, false)?;
            return Ok(stopped);
        }
    }
    Err(StateError::Stuck { name: name.to_owned(), pid })
}

fn ends_within(pidfd: &impl AsFd, time: Duration) -> bool {
    // A time that no clock reaches is no deadline.
    let deadline = Instant::now().checked_add(time);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| PollTimeout::try_from(left).ok()).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return false,
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}
