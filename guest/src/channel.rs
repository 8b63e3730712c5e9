//! The agent's conversation over a port: what waits to be sent, what has arrived, and what a host that leaves undoes.
//!
//! Kept apart from the port itself so that tests can play the host. Requests are read only when everything was sent, so a
//! host that does not listen holds up itself and uses no memory.

use std::io::{self, ErrorKind};

use crate::agent::{self, Guest};
use crate::lines::Lines;

/// How much output of the workload may wait for the host.
const MAX_UNSENT: usize = 256 << 10;
/// How much is read at once.
const CHUNK: usize = 4096;

/// The port, as the conversation needs it: both calls return at once.
pub(crate) trait Wire {
    /// Reads what is there; 0 where no host is connected, `WouldBlock` where nothing is there.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes what there is room for; `WouldBlock` where there is none or no host is connected.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// What came of moving the conversation on.
#[derive(Debug, PartialEq)]
pub(crate) enum Progress {
    /// Everything possible is done until the port says that something changed.
    Waiting,
    /// The host asked for power-off; these bytes, the reply at their end, are still to be sent.
    PowerOff(Vec<u8>),
}

/// A conversation.
#[derive(Debug)]
pub(crate) struct Channel {
    /// The ready event, for as long as no host has had all of it.
    ready: Option<Vec<u8>>,
    output: Vec<u8>,
    input: Lines,
}

impl Channel {
    /// A conversation that opens with the line `ready`.
    pub(crate) fn new(ready: Vec<u8>) -> Self {
        Self { output: ready.clone(), ready: Some(ready), input: Lines::default() }
    }

    /// Sends and answers until the port has no more room or no more requests.
    pub(crate) fn advance(&mut self, wire: &mut impl Wire, guest: &impl Guest) -> io::Result<Progress> {
        let mut buffer = [0; CHUNK];
        loop {
            if !self.send(wire)? {
                return Ok(Progress::Waiting);
            }
            let count = match wire.read(&mut buffer) {
                Ok(0) => {
                    self.host_left();
                    return Ok(Progress::Waiting);
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Waiting),
                Err(error) => return Err(error),
            };
            if self.take(buffer.get(..count).unwrap_or_default(), guest) {
                return Ok(Progress::PowerOff(std::mem::take(&mut self.output)));
            }
        }
    }

    /// Says something unasked. What does not matter that much is dropped while the host does not listen.
    pub(crate) fn say(&mut self, event: &[u8], droppable: bool) {
        if !droppable || self.output.len() + event.len() <= MAX_UNSENT {
            self.output.extend_from_slice(event);
        }
    }

    /// What is still to be sent, when nothing more is.
    pub(crate) fn into_unsent(self) -> Vec<u8> {
        self.output
    }

    /// Forgets what was meant for a host that is gone: half a request, and replies it did not read. The ready event is said
    /// again if it was not said whole.
    pub(crate) fn host_left(&mut self) {
        self.input.clear();
        self.output.clear();
        if let Some(ready) = &self.ready {
            self.output.extend_from_slice(ready);
        }
    }

    /// Sends what waits; false where some of it still does.
    fn send(&mut self, wire: &mut impl Wire) -> io::Result<bool> {
        while !self.output.is_empty() {
            match wire.write(&self.output) {
                Ok(0) => return Ok(false),
                Ok(count) => drop(self.output.drain(..count.min(self.output.len()))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.ready = None;
        Ok(true)
    }

    /// Answers the requests that end in `bytes`; true at a request for power-off, after which nothing is answered.
    fn take(&mut self, bytes: &[u8], guest: &impl Guest) -> bool {
        let Self { output, input, .. } = self;
        let mut power_off = false;
        input.push(bytes, |line| {
            if !power_off {
                let answer = agent::answer(line, guest);
                output.extend_from_slice(&answer.line);
                power_off = answer.power_off;
            }
        });
        power_off
    }
}

#[cfg(test)]
mod tests;
