//! A QEMU that lives on after the launch can be supervised: QMP answers, vCPUs stop and go on, a reset launches anew.

mod simulated;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use simulated::{Laboratory, Running, vector};

const FIRMWARE: &str = "snp/launch-digest/debian_2026.08+ds-2_OVMF.amdsev.fd";

/// A QMP connection.
struct Monitor {
    stream: BufReader<UnixStream>,
    events: Vec<String>,
}

impl Monitor {
    fn connect(laboratory: &Laboratory) -> Self {
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(laboratory.path("qmp")) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut monitor = Self { stream: BufReader::new(stream), events: Vec::new() };
        assert!(monitor.line()["QMP"].is_object());
        monitor.execute("qmp_capabilities");
        monitor
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn execute(&mut self, command: &str) -> Value {
        let request = json!({ "execute": command }).to_string();
        writeln!(self.stream.get_mut(), "{request}").unwrap();
        loop {
            let mut line = self.line();
            if let Some(event) = line["event"].as_str() {
                self.events.push(event.to_owned());
                continue;
            }
            assert!(line["error"].is_null(), "{command}: {line}");
            return line["return"].take();
        }
    }
}

fn start(laboratory: &Laboratory, command: &mut Command) -> Running {
    let socket = format!("unix:{},server=on,wait=off", laboratory.path("qmp").display());
    Running(command.env("TEESIM_KEEP_RUNNING", "1").args(["-qmp", &socket]).spawn().unwrap())
}

#[test]
fn a_launched_guest_stops_goes_on_resets_and_quits() {
    let (Some(laboratory), Some(firmware)) = (Laboratory::open(), vector(FIRMWARE)) else { return };
    let mut qemu = start(&laboratory, &mut laboratory.snp(&firmware, "EPYC-v4", 4, "policy=0x30000"));
    let mut monitor = Monitor::connect(&laboratory);
    assert_eq!(monitor.execute("query-status")["status"], "running");
    let sev = monitor.execute("query-sev");
    assert_eq!((&sev["sev-type"], &sev["snp-policy"]), (&json!("sev-snp"), &json!(0x3_0000)));
    let first = laboratory.report();
    assert_eq!(first["launch"], 1);
    for _ in 0..20 {
        monitor.execute("stop");
        assert_eq!(monitor.execute("query-status")["status"], "paused");
        monitor.execute("cont");
        assert_eq!(monitor.execute("query-status")["status"], "running");
    }
    monitor.execute("quit");
    assert!(qemu.0.wait().unwrap().success());
}

#[test]
fn a_reset_is_a_second_launch_with_the_same_digest() {
    let Some(laboratory) = Laboratory::open_with_qemu(11, 0, "reset of confidential guests") else { return };
    let Some(firmware) = vector(FIRMWARE) else { return };
    let mut command = laboratory.snp(&firmware, "EPYC-v4", 2, "policy=0x30000");
    command.args(["-action", "reboot=reset"]);
    let mut qemu = start(&laboratory, &mut command);
    let mut monitor = Monitor::connect(&laboratory);
    let first = laboratory.report();
    monitor.execute("system_reset");
    let deadline = Instant::now() + Duration::from_secs(20);
    while laboratory.report()["launch"] != 2 {
        assert!(Instant::now() < deadline, "no second launch");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(laboratory.report()["launch_digest"], first["launch_digest"]);
    assert_eq!(monitor.execute("query-status")["status"], "running");
    assert!(monitor.events.iter().any(|event| event == "RESET"), "{:?}", monitor.events);
    monitor.execute("quit");
    assert!(qemu.0.wait().unwrap().success());
}
