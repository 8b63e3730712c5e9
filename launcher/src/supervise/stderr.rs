//! What QEMU prints: kept in a file, and its last lines for the report on its death.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ChildStderr;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::agent::one_line;
use crate::lines::{Line, Lines};

const LAST_LINES: usize = 20;
const MAX_LINE: usize = 4096;
const MAX_LOG_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Stderr {
    pipe: Option<ChildStderr>,
    log: File,
    room: usize,
    lines: Lines,
    last: VecDeque<String>,
}

impl Stderr {
    pub(crate) fn new(pipe: ChildStderr, log: File) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { pipe: Some(pipe), log, room: MAX_LOG_BYTES, lines: Lines::new(MAX_LINE), last: VecDeque::new() })
    }

    /// Reads what there is, once.
    pub(crate) fn receive(&mut self) {
        let mut buffer = [0; 4096];
        match self.pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
            Some(Err(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            None | Some(Err(_) | Ok(0)) => self.pipe = None,
            Some(Ok(length)) => self.keep(buffer.get(..length).unwrap_or_default()),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let kept = bytes.get(..self.room.min(bytes.len())).unwrap_or(bytes);
        self.room -= kept.len();
        // A full disk is noticed with the console log; here it costs only this copy.
        let _ = self.log.write_all(kept);
        let last = &mut self.last;
        self.lines.feed(bytes, |line| {
            let Line::Whole(line) = line else { return };
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(one_line(&String::from_utf8_lossy(line)));
        });
    }

    /// The last lines.
    pub(crate) fn tail(&self) -> Vec<String> {
        let rest = one_line(&String::from_utf8_lossy(self.lines.rest()));
        self.last.iter().cloned().chain(Some(rest).filter(|rest| !rest.is_empty())).collect()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// The pipe, or where it is closed the log, which is always ready and never asked for.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_ref().map_or_else(|| self.log.as_fd(), AsFd::as_fd)
    }
}
