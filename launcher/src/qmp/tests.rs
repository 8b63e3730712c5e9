use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;

use super::*;

/// A session whose QEMU is a script: the test writes what QEMU would.
fn session() -> (Qmp, UnixStream) {
    let (qmp, theirs) = Qmp::pair().unwrap();
    (qmp, UnixStream::from(theirs))
}

fn received(qmp: &mut Qmp) -> Vec<Message> {
    qmp.receive().unwrap().unwrap()
}

// Lines as QEMU 11.1.3 prints them.
const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": "Debian 1:11.1.3"}, "capabilities": ["oob"]}}"#;
const SHUTDOWN: &str = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;

#[test]
fn a_session_matches_replies_to_commands() {
    let (mut qmp, mut qemu) = session();
    writeln!(qemu, "{GREETING}").unwrap();
    assert_eq!(received(&mut qmp), [Message::Greeting { version: [11, 1, 3] }]);

    qmp.execute("qmp_capabilities", None);
    qmp.execute("query-status", Some(json!({"a": 1})));
    let mut sent = [0; 1000];
    let length = qemu.read(&mut sent).unwrap();
    let sent: Vec<Value> = sent[..length]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(sent[0], json!({"execute": "qmp_capabilities", "id": 1}));
    assert_eq!(sent[1], json!({"execute": "query-status", "id": 2, "arguments": {"a": 1}}));

    // Out of order, with an event between, cut in the middle of a line, as sockets do.
    let text =
        format!("{{\"return\": {{\"status\": \"running\"}}, \"id\": 2}}\r\n{SHUTDOWN}\r\n{{\"error\": {{\"class\": ");
    qemu.write_all(text.as_bytes()).unwrap();
    let messages = received(&mut qmp);
    assert_eq!(messages[0], Message::Reply { command: "query-status", result: Ok(json!({"status": "running"})) });
    assert!(
        matches!(&messages[1], Message::Event { name, data } if name == "SHUTDOWN" && data["reason"] == "guest-reset")
    );
    qemu.write_all(b"\"GenericError\", \"desc\": \"no\"}, \"id\": 1}\n").unwrap();
    assert_eq!(received(&mut qmp), [Message::Reply { command: "qmp_capabilities", result: Err("no".to_owned()) }]);

    drop(qemu);
    assert_eq!(qmp.receive().unwrap(), None);
}

#[test]
fn garbage_and_unasked_replies_change_nothing() {
    let (mut qmp, mut qemu) = session();
    qmp.execute("query-status", None);
    for line in [
        "hello",
        "[]",
        "{}",
        "{\"return\": 1}",
        "{\"return\": 1, \"id\": 99}",
        "{\"id\": \"1\", \"return\": 1}",
        "\u{0}",
    ] {
        writeln!(qemu, "{line}").unwrap();
        assert!(matches!(received(&mut qmp)[..], [Message::Unreadable(_)]), "{line}");
    }
    writeln!(qemu, "{{\"return\": 1, \"id\": 1}}").unwrap();
    assert_eq!(received(&mut qmp), [Message::Reply { command: "query-status", result: Ok(json!(1)) }]);
    // A reply counts once.
    writeln!(qemu, "{{\"return\": 1, \"id\": 1}}").unwrap();
    assert!(matches!(received(&mut qmp)[..], [Message::Unreadable(_)]));
}

#[test]
fn a_line_without_end_is_dropped_and_the_next_is_read() {
    let (mut qmp, mut qemu) = session();
    let writer = std::thread::spawn(move || {
        qemu.write_all(&vec![b'x'; MAX_LINE + 100]).unwrap();
        writeln!(qemu, "\n{SHUTDOWN}").unwrap();
    });
    let mut messages = Vec::new();
    while let Some(new) = qmp.receive().unwrap() {
        messages.extend(new);
    }
    writer.join().unwrap();
    assert!(matches!(&messages[..], [Message::Unreadable(_), Message::Event { .. }]), "{messages:?}");
}

#[test]
fn a_peer_that_does_not_read_blocks_nothing() {
    let (mut qmp, mut qemu) = session();
    for _ in 0..20_000 {
        qmp.execute("query-status", None);
    }
    assert!(qmp.has_unsent());
    let reader = std::thread::spawn(move || {
        let mut total = 0;
        let mut buffer = vec![0; 1 << 16];
        while total < 20_000 {
            let length = qemu.read(&mut buffer).unwrap();
            total += buffer[..length].iter().filter(|byte| **byte == b'\n').count();
        }
        total
    });
    while qmp.has_unsent() {
        qmp.flush();
    }
    assert_eq!(reader.join().unwrap(), 20_000);
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut pending = BTreeMap::from([(1, "query-status")]);
        parse(Line::Whole(&bytes), &mut pending);
    }

    #[test]
    fn foreign_json_never_panics(text in r#"\{("(QMP|event|id|return|error|data|version|qemu)": ?([0-9]{1,3}|"[a-z]{0,3}"|\{\}|null),? ?){0,5}\}"#) {
        let mut pending = BTreeMap::from([(1, "query-status")]);
        parse(Line::Whole(text.as_bytes()), &mut pending);
    }
}
