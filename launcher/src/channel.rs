//! One end of a socket pair that is never waited for: what arrives is cut into lines, what cannot be sent yet is kept.
//!
//! QMP and the agent port are both spoken over this. The other end is a descriptor that QEMU inherits, so there is no
//! socket in the file system that someone else could connect to.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::lines::{Line, Lines};

/// How much is read at a time: a peer that floods one channel must not keep the loop from the others.
const READ_BYTES: usize = 16 << 10;

/// The host's end.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: UnixStream,
    lines: Lines,
    unsent: Vec<u8>,
}

impl Channel {
    /// A new channel that accepts lines of at most `limit` bytes, and the end that QEMU inherits.
    pub(crate) fn pair(limit: usize) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self { stream: ours, lines: Lines::new(limit), unsent: Vec::new() }, theirs.into()))
    }

    /// Reads what there is, once. `false` when the other end is closed.
    pub(crate) fn receive(&mut self, take: impl FnMut(Line<'_>)) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.lines.feed(buffer.get(..length).unwrap_or_default(), take);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
            // A peer that ended with our last line unread resets the connection: that is an end, not a fault.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a line, now or when there is room.
    pub(crate) fn send(&mut self, line: &[u8]) {
        self.unsent.extend_from_slice(line);
        self.unsent.push(b'\n');
        self.flush();
    }

    /// Sends what could not be sent before. A closed peer is noticed by `receive`, so errors are not reported twice.
    pub(crate) fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) if sent > 0 => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => self.unsent.clear(),
            }
        }
    }

    /// Whether `flush` has something to do once there is room.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
