//! Answers the host's requests: `spec::agent` as a function from a line to a line.
//!
//! Kept apart from the port so that it can be tested without one. Nothing here changes what the guest is; the one thing a
//! request can do is to ask for power-off.

use spec::agent::{Event, Identity, Measurements, Method, Reply, Request, Uptime};

use crate::failure::one_line;
use crate::lines::TooLong;

/// What the agent needs to know of the guest.
pub(crate) trait Guest {
    /// Who the guest is, now.
    fn identity(&self) -> Identity;
    /// Its measurements, read anew.
    fn measurements(&self) -> Result<Measurements, String>;
    /// How long the kernel has been up.
    fn uptime_ms(&self) -> u64;
}

/// What to do after a line.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    /// The reply, with its newline.
    pub(crate) line: Vec<u8>,
    /// Power off once it is sent.
    pub(crate) power_off: bool,
}

/// Answers one line of the host.
pub(crate) fn answer(line: Result<&[u8], TooLong>, guest: &impl Guest) -> Answer {
    let request = line
        .map_err(|error| error.to_string())
        .and_then(|line| serde_json::from_slice::<Request>(line).map_err(|error| format!("not a request: {error}")));
    match request {
        Ok(request) => {
            let reply = match result(request.method, guest) {
                Ok(result) => Reply { id: request.id, result: Some(result), error: None },
                Err(error) => Reply { id: request.id, result: None, error: Some(error) },
            };
            Answer { line: encode(&reply), power_off: request.method == Method::PowerOff }
        }
        // The text quotes the host's own words, which can be as long as a line.
        Err(error) => {
            Answer { line: encode(&Reply { id: 0, result: None, error: Some(one_line(error)) }), power_off: false }
        }
    }
}

/// The event that says that the guest is ready.
pub(crate) fn ready(guest: &impl Guest) -> Vec<u8> {
    encode(&Event::Ready { identity: guest.identity() })
}

/// One line of JSON.
pub(crate) fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    // These types have string keys and no floats: they always have a JSON form.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

fn result(method: Method, guest: &impl Guest) -> Result<serde_json::Value, String> {
    match method {
        Method::Identity => serde_json::to_value(guest.identity()),
        Method::Measurements => serde_json::to_value(guest.measurements()?),
        Method::Uptime => serde_json::to_value(Uptime { uptime_ms: guest.uptime_ms() }),
        Method::PowerOff => Ok(serde_json::Value::Object(serde_json::Map::new())),
    }
    .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
