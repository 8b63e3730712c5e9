//! The host's end of the agent port: what `bullion-guest` says, and what it is asked (`spec::agent`).
//!
//! Everything that comes from here is the guest's word about itself, and the guest may be hostile: lines are bounded,
//! foreign lines are reported and dropped, and no answer is waited for longer than its deadline.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use serde_json::Value;
use spec::agent::{Event, MAX_LINE, Method, Reply, Request};

use crate::channel::Channel;
use crate::lines::Line;

/// What came from the guest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Incoming {
    /// The guest said something unasked.
    Event(Event),
    /// A request was answered, or its deadline passed.
    Answer {
        /// What was asked.
        method: Method,
        /// The answer, or why there is none.
        result: Result<Value, String>,
    },
    /// A line that is neither. Nothing follows from it.
    Unreadable(String),
}

/// The agent port.
#[derive(Debug)]
pub(crate) struct Agent {
    channel: Channel,
    pending: BTreeMap<u64, (Method, Instant)>,
    next_id: u64,
}

impl Agent {
    /// A new port, and the descriptor that QEMU inherits.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (channel, theirs) = Channel::pair(MAX_LINE)?;
        Ok((Self { channel, pending: BTreeMap::new(), next_id: 1 }, theirs))
    }

    /// Asks the guest. The answer comes from `receive`, or from `expire` once `timeout` has passed.
    pub(crate) fn ask(&mut self, method: Method, now: Instant, timeout: Duration) {
        let request = Request { id: self.next_id, method };
        self.next_id += 1;
        self.pending.insert(request.id, (method, now + timeout));
        if let Ok(line) = serde_json::to_vec(&request) {
            self.channel.send(&line);
        }
    }

    /// Reads what there is, once; `None` when the port is closed.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Vec<Incoming>>> {
        let mut incoming = Vec::new();
        let pending = &mut self.pending;
        let open = self.channel.receive(|line| incoming.push(parse(line, pending)))?;
        Ok((open || !incoming.is_empty()).then_some(incoming))
    }

    /// The requests whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Incoming> {
        let expired = self.pending.extract_if(.., |_, (_, deadline)| *deadline <= now);
        expired
            .map(|(_, (method, _))| Incoming::Answer {
                method,
                result: Err("the guest did not answer in time".to_owned()),
            })
            .collect()
    }

    /// When `expire` next has something to say.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|(_, deadline)| *deadline).min()
    }

    /// Sends what could not be sent before.
    pub(crate) fn flush(&mut self) {
        self.channel.flush();
    }

    /// Whether there is something left to send.
    pub(crate) fn has_unsent(&self) -> bool {
        self.channel.has_unsent()
    }
}

impl AsFd for Agent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn parse(line: Line<'_>, pending: &mut BTreeMap<u64, (Method, Instant)>) -> Incoming {
    let Line::Whole(line) = line else {
        return Incoming::Unreadable(format!("a line of more than {MAX_LINE} bytes"));
    };
    if let Ok(event) = serde_json::from_slice::<Event>(line) {
        return Incoming::Event(event);
    }
    let answered = serde_json::from_slice::<Reply>(line)
        .ok()
        .and_then(|reply| pending.remove(&reply.id).map(|(method, _)| (method, reply)));
    match answered {
        Some((method, Reply { error: None, result, .. })) => {
            Incoming::Answer { method, result: Ok(result.unwrap_or(Value::Null)) }
        }
        Some((method, Reply { error: Some(error), .. })) => Incoming::Answer { method, result: Err(one_line(&error)) },
        None => Incoming::Unreadable(one_line(&String::from_utf8_lossy(line))),
    }
}

/// A line of a workload, made fit to be shown: tabs stay, other control characters do not.
pub(crate) fn printable(line: &str) -> String {
    line.chars().filter(|c| *c == '\t' || !c.is_control()).collect()
}

/// The guest's words, made fit to be shown: no control characters, not too long.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_answered_once_or_expires() {
        let (mut agent, theirs) = Agent::pair().unwrap();
        let mut guest = UnixStream::from(theirs);
        let now = Instant::now();
        agent.ask(Method::PowerOff, now, Duration::from_secs(1));
        agent.ask(Method::Uptime, now, Duration::from_secs(2));
        let mut sent = [0; 200];
        let length = guest.read(&mut sent).unwrap();
        assert_eq!(&sent[..length], b"{\"id\":1,\"method\":\"power-off\"}\n{\"id\":2,\"method\":\"uptime\"}\n");

        guest.write_all(b"{\"id\":2,\"result\":{\"uptime_ms\":7}}\n{\"id\":2,\"result\":{}}\nxx\n").unwrap();
        let incoming = agent.receive().unwrap().unwrap();
        assert_eq!(incoming[0], Incoming::Answer { method: Method::Uptime, result: Ok(json!({"uptime_ms": 7})) });
        assert!(matches!(incoming[1..], [Incoming::Unreadable(_), Incoming::Unreadable(_)]));

        assert_eq!(agent.deadline(), Some(now + Duration::from_secs(1)));
        assert_eq!(agent.expire(now), []);
        assert!(matches!(
            agent.expire(now + Duration::from_secs(1))[..],
            [Incoming::Answer { method: Method::PowerOff, result: Err(_) }]
        ));
        assert_eq!(agent.deadline(), None);
    }

    #[test]
    fn events_are_read_and_their_text_is_harmless() {
        let (mut agent, theirs) = Agent::pair().unwrap();
        let mut guest = UnixStream::from(theirs);
        guest.write_all(b"{\"event\":\"failed\",\"stage\":\"verity\",\"reason\":\"root hash\"}\n\x1b[2J\n").unwrap();
        let incoming = agent.receive().unwrap().unwrap();
        assert_eq!(
            incoming[0],
            Incoming::Event(Event::Failed { stage: "verity".to_owned(), reason: "root hash".to_owned() })
        );
        assert_eq!(incoming[1], Incoming::Unreadable("[2J".to_owned()));
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(Line::Whole(&bytes), &mut BTreeMap::new());
        }

        #[test]
        fn foreign_json_never_panics(text in r#"\{("(event|id|result|error|stage|reason|identity)": ?([0-9]{1,3}|"[a-z]{0,6}"|\{\}|null),? ?){0,5}\}"#) {
            parse(Line::Whole(text.as_bytes()), &mut BTreeMap::from([(1, (Method::Uptime, Instant::now()))]));
        }
    }
}
