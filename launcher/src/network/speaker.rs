//! A process that speaks for a NIC, while it runs: its end, and what it has said.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::child::Child;
use crate::supervise::Stderr;

/// A pipe of 64 KiB is empty after so many reads (`Stderr::receive`).
const READS_OF_A_PIPE: usize = 17;

/// One that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Speaker {
    nic: usize,
    child: Child,
    stderr: Option<Stderr>,
    status: Option<ExitStatus>,
}

/// How one has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Over {
    /// The NIC it spoke for.
    pub(crate) nic: usize,
    /// Whether it may be that QEMU has closed its socket: it exits with 0 then, and crashes now and then where somebody was connected
    /// (passt 0.0~git20250503, 11 times of 60).
    pub(crate) perhaps_with_qemu: bool,
    /// Its exit status.
    pub(crate) status: String,
    /// The last lines it printed.
    pub(crate) words: Vec<String>,
}

impl Speaker {
    /// Listens to one that was started; what it prints goes to `log` too.
    pub(crate) fn new(nic: usize, mut child: Child, log: File) -> io::Result<Self> {
        let stderr = child.take_stderr().map(|pipe| Stderr::new(pipe, log)).transpose()?;
        Ok(Self { nic, child, stderr, status: None })
    }

    /// Readable when it has ended.
    pub(crate) fn end(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    /// Readable when it has said something; none where it has closed its mouth.
    pub(crate) fn words(&self) -> Option<BorrowedFd<'_>> {
        self.stderr.as_ref().filter(|stderr| stderr.is_open()).map(Stderr::as_fd)
    }

    /// Reads what it has said.
    pub(crate) fn hear(&mut self) {
        if let Some(stderr) = &mut self.stderr {
            stderr.receive();
        }
    }

    /// Whether its end was told.
    pub(crate) fn is_over(&self) -> bool {
        self.status.is_some()
    }

    /// How it ended, once.
    pub(crate) fn over(&mut self) -> io::Result<Option<Over>> {
        if self.is_over() {
            return Ok(None);
        }
        let Some(status) = self.child.ended()? else { return Ok(None) };
        self.status = Some(status);
        // Nobody writes any more, and what there is fits into a pipe.
        (0..READS_OF_A_PIPE).for_each(|_| self.hear());
        let words = self.stderr.as_ref().map(Stderr::tail).unwrap_or_default();
        let perhaps_with_qemu = status.success() || status.signal().is_some();
        Ok(Some(Over { nic: self.nic, perhaps_with_qemu, status: status.to_string(), words }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::child;

    /// What becomes of a speaker that runs this script.
    fn over(script: &str) -> Over {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let child = child::spawn(&argv, &BTreeMap::new(), vec![]).unwrap();
        let mut speaker = Speaker::new(1, child, tempfile::tempfile().unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(over) = speaker.over().unwrap() {
                return over;
            }
            assert!(Instant::now() < deadline, "{script}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn one_that_fails_by_itself_is_not_taken_for_one_that_goes_with_qemu() {
        for (script, perhaps_with_qemu) in [("exit 0", true), ("kill -SEGV $$", true), ("echo no >&2; exit 1", false)] {
            let over = over(script);
            assert_eq!((over.nic, over.perhaps_with_qemu), (1, perhaps_with_qemu), "{script}: {over:?}");
            assert_eq!(over.words.concat(), if perhaps_with_qemu { "" } else { "no" });
        }
    }
}
