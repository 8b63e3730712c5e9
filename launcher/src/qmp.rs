//! QMP, QEMU's control protocol: one JSON object a line (QEMU documentation, "QEMU Machine Protocol Specification").
//!
//! Only the wire is here: what a message says, and which command a reply belongs to. What follows from it is decided in
//! `life`, and in `qemu::features` for the questions asked before a launch.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde_json::{Map, Value, json};

use crate::channel::Channel;
use crate::lines::Line;

/// The longest line accepted. The longest one asked for, `qom-list-types`, is about 200 KiB.
const MAX_LINE: usize = 2 << 20;

/// What QEMU says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    /// The first line: QEMU's version.
    Greeting {
        /// Major, minor, micro.
        version: [u64; 3],
    },
    /// Something happened.
    Event {
        /// Its name, such as `SHUTDOWN`.
        name: String,
        /// What belongs to it.
        data: Value,
    },
    /// A command ended.
    Reply {
        /// The command.
        command: &'static str,
        /// Its value, or QEMU's description of the error.
        result: Result<Value, String>,
    },
    /// A line that is none of these. It is passed on so that it can be logged; nothing follows from it.
    Unreadable(String),
}

/// The client's end of one QMP session.
#[derive(Debug)]
pub(crate) struct Qmp {
    channel: Channel,
    pending: BTreeMap<u64, &'static str>,
    next_id: u64,
}

impl Qmp {
    /// A new session, and the descriptor that QEMU inherits.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (channel, theirs) = Channel::pair(MAX_LINE)?;
        Ok((Self { channel, pending: BTreeMap::new(), next_id: 1 }, theirs))
    }

    /// Sends a command. Its reply comes as `Message::Reply`.
    pub(crate) fn execute(&mut self, command: &'static str, arguments: Option<Value>) {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.insert(id, command);
        let mut request = json!({ "execute": command, "id": id });
        if let (Some(arguments), Some(map)) = (arguments, request.as_object_mut()) {
            map.insert("arguments".to_owned(), arguments);
        }
        self.channel.send(request.to_string().as_bytes());
    }

    /// Reads what there is, once; `None` when QEMU has closed its end.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Vec<Message>>> {
        let mut messages = Vec::new();
        let pending = &mut self.pending;
        let open = self.channel.receive(|line| messages.push(parse(line, pending)))?;
        Ok((open || !messages.is_empty()).then_some(messages))
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

impl AsFd for Qmp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Reads one line; a reply uses up its entry in `pending`.
fn parse(line: Line<'_>, pending: &mut BTreeMap<u64, &'static str>) -> Message {
    let Line::Whole(line) = line else {
        return Message::Unreadable(format!("a line of more than {MAX_LINE} bytes"));
    };
    let object = serde_json::from_slice::<Map<String, Value>>(line).ok();
    object
        .and_then(|object| understand(object, pending))
        .unwrap_or_else(|| Message::Unreadable(String::from_utf8_lossy(line.get(..200).unwrap_or(line)).into_owned()))
}

fn understand(mut object: Map<String, Value>, pending: &mut BTreeMap<u64, &'static str>) -> Option<Message> {
    if let Some(greeting) = object.get("QMP") {
        let number = |key: &str| greeting.pointer(&format!("/version/qemu/{key}")).and_then(Value::as_u64);
        return Some(Message::Greeting { version: [number("major")?, number("minor")?, number("micro")?] });
    }
    if let Some(name) = object.get("event").and_then(Value::as_str).map(str::to_owned) {
        return Some(Message::Event { name, data: object.remove("data").unwrap_or(Value::Null) });
    }
    let command = object.get("id").and_then(Value::as_u64).and_then(|id| pending.remove(&id))?;
    let result = match (object.remove("return"), object.get("error")) {
        (Some(value), None) => Ok(value),
        (None, Some(error)) => {
            let description = error.get("desc").and_then(Value::as_str).unwrap_or("no description");
            Err(description.chars().take(500).collect())
        }
        _ => return None,
    };
    Some(Message::Reply { command, result })
}

#[cfg(test)]
mod tests;
