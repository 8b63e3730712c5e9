//! Breaking and mending a device while it is in use: one command a line on a socket, one line of JSON back.
//!
//! `break FAULT`, `mend FAULT`, `mend` (all), `session`, `stale-request`, `invalid-mode`, `sleep`, `show`. Every answer
//! is the device's state after the command, or what is wrong with it.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::fault::Fault;
use crate::model::Model;
use crate::server::Shared;

/// Answers commands about one device, until the process ends.
pub fn listen(socket: &Path, device: Shared) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away has its answer or does not want it.
            let _ = converse(&stream, &device);
        }
    });
    Ok(())
}

fn converse(stream: &UnixStream, device: &Shared) -> io::Result<()> {
    let mut writer = stream;
    for line in BufReader::new(stream).lines() {
        let answer = device.with(|model| obey(model, line.as_deref().unwrap_or_default()));
        writeln!(writer, "{answer}")?;
    }
    Ok(())
}

/// Carries out one command.
pub fn obey(model: &mut Model, line: &str) -> Value {
    let words: Vec<&str> = line.split_whitespace().collect();
    let fault = |word: &str| word.parse::<Fault>();
    match words.as_slice() {
        ["break", word] => match fault(word) {
            Ok(fault) => model.break_with(fault),
            Err(error) => return json!({ "error": error.to_string() }),
        },
        ["mend", word] => match fault(word) {
            Ok(fault) => model.take_away(fault),
            Err(error) => return json!({ "error": error.to_string() }),
        },
        ["mend"] => model.mend(),
        ["session"] => model.open_session(),
        ["stale-request"] => model.leave_stale_request(),
        ["invalid-mode"] => model.leave_invalid_mode(),
        ["sleep"] => model.idle(),
        ["show"] => {}
        _ => return json!({ "error": format!("\"{line}\" is no command") }),
    }
    show(model)
}

fn show(model: &Model) -> Value {
    let faults: Vec<_> = model.faults.iter().map(|key| key.0.to_string()).collect();
    let resets: Vec<_> = model.resets.iter().map(|kind| format!("{kind:?}").to_lowercase()).collect();
    let knobs: serde_json::Map<String, Value> =
        model.knobs.iter().map(|(knob, value)| (knob.to_string(), json!(value))).collect();
    json!({
        "device_id": format!("{:04x}", model.device_id()),
        "serial": format!("{:016x}", model.serial()),
        "active": model.active(),
        "session": model.has_session(),
        "faults": faults,
        "resets": resets,
        "knobs": knobs,
        "violations": model.violations,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::product;

    #[test]
    fn a_device_is_broken_and_mended_by_words() {
        let mut model = product("h100", 3).unwrap();
        for fault in Fault::all() {
            let word = fault.to_string();
            assert_eq!(obey(&mut model, &format!("break {word}"))["faults"], json!([word]));
            assert_eq!(obey(&mut model, &format!("mend {word}"))["faults"], json!([]));
        }
        assert_eq!(obey(&mut model, "invalid-mode")["active"], 2);
        assert_eq!(obey(&mut model, "session")["session"], true);
        assert!(obey(&mut model, "break it")["error"].as_str().unwrap().contains("never-boots"));
        assert!(obey(&mut model, "dance")["error"].is_string());
    }

    #[test]
    fn the_socket_answers_with_the_state() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control");
        listen(&path, Shared::new("gpu0", product("b200", 0).unwrap())).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        (&stream).write_all(b"break recovery\nshow\n").unwrap();
        let lines: Vec<_> = BufReader::new(&stream).lines().take(2).map(Result::unwrap).collect();
        let shown: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!((&shown["device_id"], &shown["faults"]), (&json!("2901"), &json!(["recovery"])));
    }
}
