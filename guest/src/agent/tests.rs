use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use spec::Tee;
use spec::agent::{Binding, Configuration, MAX_LINE};

use super::*;

struct Fixed;

impl Guest for Fixed {
    fn identity(&self) -> Identity {
        Identity {
            guest_version: "0.1.0".to_owned(),
            kernel_release: "7.3.4".to_owned(),
            root_hash: spec::Sha256Digest([0xab; 32]),
            tee: Tee::None,
            hostname: "web".to_owned(),
            configuration: Configuration { binding: Binding::Absent, digest: None },
            uptime_ms: 5,
        }
    }

    fn measurements(&self) -> Result<Measurements, String> {
        Ok(Measurements { tee: Tee::None, registers: BTreeMap::new() })
    }

    fn uptime_ms(&self) -> u64 {
        7
    }
}

fn ask(line: &str) -> (Value, bool) {
    let answer = answer(Ok(line.as_bytes()), &Fixed);
    assert_eq!(answer.line.last(), Some(&b'\n'));
    assert_eq!(answer.line.iter().filter(|byte| **byte == b'\n').count(), 1);
    (serde_json::from_slice(&answer.line).unwrap(), answer.power_off)
}

#[test]
fn each_method_has_its_answer() {
    let (reply, power_off) = ask(r#"{"id":3,"method":"identity"}"#);
    assert_eq!(reply["id"], 3);
    assert_eq!(reply["result"]["root_hash"], "ab".repeat(32));
    assert_eq!(reply["result"]["configuration"], json!({"binding": "absent"}));
    assert!(!power_off);
    assert_eq!(ask(r#"{"id":4,"method":"uptime"}"#).0, json!({"id": 4, "result": {"uptime_ms": 7}}));
    let (reply, _) = ask(r#"{"id":5,"method":"measurements"}"#);
    assert_eq!(reply, json!({"id": 5, "result": {"tee": "none", "registers": {}}}));
    assert_eq!(ask(r#"{"id":6,"method":"power-off"}"#), (json!({"id": 6, "result": {}}), true));
}

#[test]
fn what_is_no_request_gets_an_error_and_does_nothing() {
    for line in [
        "hello",
        "{}",
        "[]",
        "null",
        r#"{"id":1}"#,
        r#"{"id":-1,"method":"power-off"}"#,
        r#"{"id":1.5,"method":"power-off"}"#,
        r#"{"id":1,"method":"reboot"}"#,
        r#"{"id":1,"method":"PowerOff"}"#,
        r#"{"id":1,"method":"power-off","force":true}"#,
        r#"{"id":1,"id":2,"method":"power-off"}"#,
        r#"{"id":1,"method":"power-off"} {"id":2}"#,
    ] {
        let (reply, power_off) = ask(line);
        assert_eq!(reply["id"], 0, "{line}");
        assert!(
            reply["error"].as_str().is_some_and(|error| !error.is_empty()) && reply.get("result").is_none(),
            "{line}"
        );
        assert!(!power_off, "{line}");
    }
    let answer = answer(Err(TooLong), &Fixed);
    assert!(String::from_utf8(answer.line).unwrap().contains("longer than 65536 bytes"));
}

#[test]
fn the_ready_event_is_the_specs() {
    let line = ready(&Fixed);
    let event: Event = serde_json::from_slice(&line).unwrap();
    assert_eq!(event, Event::Ready { identity: Fixed.identity() });
    assert!(line.starts_with(br#"{"event":"ready","identity":{"#));
}

#[test]
fn a_reply_never_quotes_a_whole_long_line() {
    let method = "\\u0001".repeat(MAX_LINE / 7);
    let answer = answer(Ok(format!(r#"{{"id":1,"method":"{method}"}}"#).as_bytes()), &Fixed);
    assert!(answer.line.len() < 1000, "{} bytes", answer.line.len());
}

proptest! {
    #[test]
    fn any_line_gets_one_short_reply(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\{\"id\":[0-9]{1,3},\"method\":\"[a-z-]{0,12}\"\\}") {
        for line in [bytes.as_slice(), text.as_bytes()] {
            let answer = answer(Ok(line), &Fixed);
            prop_assert!(answer.line.len() <= MAX_LINE);
            prop_assert!(serde_json::from_slice::<Reply>(&answer.line).is_ok());
        }
    }
}
