//! A machine that runs: its console, its agent's port, and QEMU's monitor, as the host has them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spec::agent::{CONSOLE_READY, Identity};

use crate::setup::Setup;

/// TCG on a busy machine: a boot takes 4 s on an idle one.
const TO_START: Duration = Duration::from_secs(600);
/// How long the agent may take to answer.
const TO_ANSWER: Duration = Duration::from_secs(180);
const INTERVAL: Duration = Duration::from_millis(20);

/// What a machine has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not said that it is ready.
    Starting,
    /// It has, and runs.
    Ready,
    /// QEMU has ended.
    Ended,
    /// Its firmware goes round in a loop of a few instructions: how firmware stops that has no console to say so.
    StandsStill,
}

/// How often, and how long apart, the processor is looked at before it counts as standing still.
const LOOKS: usize = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// A dead loop of firmware (edk2 `CpuDeadLoop`) is shorter than this many bytes.
const LOOP_BYTES: u64 = 64;

/// A machine that was started.
#[derive(Debug)]
pub struct Machine {
    setup: Setup,
    qemu: Child,
    monitor: BufReader<UnixStream>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Machine {
    /// Starts it.
    pub fn start(setup: Setup) -> Self {
        let words = setup.arguments.iter().flat_map(|(option, value)| [Some(option), value.as_ref()]);
        let mut command = Command::new(&setup.program[0]);
        command.args(&setup.program[1..]).args(words.flatten()).envs(setup.environment.clone());
        let errors = fs::File::create(setup.path("errors")).unwrap();
        let mut qemu = command.stdin(Stdio::null()).stderr(errors).spawn().unwrap();
        let has_ended = |qemu: &mut Child| qemu.try_wait().is_ok_and(|status| status.is_some());
        while !setup.path("qmp").exists() && !has_ended(&mut qemu) {
            std::thread::sleep(INTERVAL);
        }
        let Some(monitor) = Some(()).filter(|()| !has_ended(&mut qemu)).and_then(|()| connect(&setup.path("qmp")))
        else {
            let _ = qemu.kill();
            let _ = qemu.wait();
            panic!("QEMU did not start: {}", fs::read_to_string(setup.path("errors")).unwrap_or_default());
        };
        let mut machine = Self { setup, qemu, monitor: BufReader::new(monitor) };
        let mut greeting = String::new();
        let greeted = machine.monitor.read_line(&mut greeting).is_ok();
        // A device that QEMU does not take ends it with a word on its standard error.
        if !greeted || machine.qmp("qmp_capabilities", &json!({})).is_err() {
            let errors = fs::read_to_string(machine.setup.path("errors")).unwrap_or_default();
            panic!("QEMU did not start: {errors}");
        }
        machine
    }

    /// What it was started from.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What has come on the serial line until now.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.setup.path("console")).unwrap_or_default()).into_owned()
    }

    /// What it has come to.
    pub fn state(&mut self) -> State {
        if self.qemu.try_wait().unwrap().is_some() {
            State::Ended
        } else if self.console().split_once(CONSOLE_READY).is_some_and(|(_, rest)| rest.contains('\n')) {
            State::Ready
        } else {
            State::Starting
        }
    }

    /// Waits until the guest is ready or QEMU has ended.
    pub fn wait_for_start(&mut self) -> State {
        self.wait(TO_START, |state| state != State::Starting)
    }

    /// The same, or until its firmware stands still.
    pub fn wait_for_start_or_standstill(&mut self) -> State {
        let mut seen: Vec<u64> = Vec::new();
        let deadline = Instant::now() + TO_START;
        loop {
            let state = self.state();
            if state != State::Starting || Instant::now() > deadline {
                return state;
            }
            // Firmware is in the lowest 4 GiB, a running kernel of Linux is not.
            match self.instruction_pointer().filter(|pointer| *pointer < 1 << 32) {
                Some(pointer) if seen.iter().all(|other| other.abs_diff(pointer) < LOOP_BYTES) => seen.push(pointer),
                _ => seen.clear(),
            }
            if seen.len() >= LOOKS {
                return State::StandsStill;
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn instruction_pointer(&mut self) -> Option<u64> {
        let registers = self.monitor("info registers").ok()?;
        let digits = registers.split("RIP=").nth(1)?.split_whitespace().next()?;
        u64::from_str_radix(digits, 16).ok()
    }

    /// Waits until QEMU has ended, no longer than `patience`.
    pub fn wait_for_end(&mut self, patience: Duration) -> State {
        self.wait(patience, |state| state == State::Ended)
    }

    fn wait(&mut self, patience: Duration, is_enough: impl Fn(State) -> bool) -> State {
        let deadline = Instant::now() + patience;
        loop {
            let state = self.state();
            if is_enough(state) || Instant::now() > deadline {
                return state;
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// Waits until the console has `words`.
    pub fn wait_for_words(&mut self, words: &str) -> Result<(), String> {
        let deadline = Instant::now() + TO_ANSWER;
        while !self.console().contains(words) {
            if Instant::now() > deadline || self.qemu.try_wait().unwrap().is_some() {
                return Err(format!("\"{words}\" did not come: {}", self.console()));
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// Runs a monitor command; QEMU's words where it refuses, or where it has ended.
    pub fn qmp(&mut self, command: &str, arguments: &Value) -> Result<Value, String> {
        let request = json!({ "execute": command, "arguments": arguments }).to_string() + "\n";
        self.monitor.get_mut().write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        loop {
            let mut line = String::new();
            if self.monitor.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                return Err("QEMU has ended".to_owned());
            }
            let reply: Value = serde_json::from_str(&line).map_err(|error| error.to_string())?;
            if let Some(error) = reply.get("error") {
                return Err(error.to_string());
            }
            if let Some(value) = reply.get("return") {
                return Ok(value.clone());
            }
        }
    }

    /// Runs a command of the monitor for people.
    pub fn monitor(&mut self, line: &str) -> Result<String, String> {
        let answer = self.qmp("human-monitor-command", &json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// A connection to one of its sockets.
    pub fn connect(&self, name: &str) -> Result<UnixStream, String> {
        connect(&self.setup.path(name)).ok_or_else(|| format!("{name} does not listen"))
    }

    /// Sends bytes to one of its sockets. A guest that does not read them is no fault.
    pub fn send(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let mut socket = self.connect(name)?;
        socket.set_write_timeout(Some(Duration::from_secs(2))).map_err(|error| error.to_string())?;
        let _ = socket.write_all(bytes);
        Ok(())
    }

    /// Who the guest says it is, over a new connection. Asked again where no answer comes: to a guest that has no buffer for it, QEMU does not
    /// say that a host is there (LIMITATIONS, "hangs up on the agent").
    pub fn identity(&mut self) -> Result<Identity, String> {
        let deadline = Instant::now() + TO_ANSWER;
        loop {
            let answer = self.ask_identity();
            let Err(error) = &answer else { return answer };
            if Instant::now() > deadline {
                return answer;
            }
            eprintln!("the agent is asked again: {error}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn ask_identity(&mut self) -> Result<Identity, String> {
        let mut socket = self.connect("agent")?;
        socket.set_read_timeout(Some(TO_ANSWER / 6)).map_err(|error| error.to_string())?;
        socket.write_all(b"\n{\"id\":7777,\"method\":\"identity\"}\n").map_err(|error| error.to_string())?;
        for line in BufReader::new(socket.take(1 << 20)).lines() {
            let line = line.map_err(|error| format!("the agent does not answer: {error}; {}", self.console()))?;
            let reply: Value = serde_json::from_str(&line).unwrap_or_default();
            if reply["id"] == 7777 {
                return serde_json::from_value(reply["result"].clone()).map_err(|error| error.to_string());
            }
        }
        Err(format!("the agent hung up: {}", self.console()))
    }
}

/// Connects to a socket that QEMU makes when it starts.
fn connect(path: &Path) -> Option<UnixStream> {
    let deadline = Instant::now() + TO_ANSWER;
    loop {
        match UnixStream::connect(path) {
            Ok(socket) => return Some(socket),
            Err(_) if Instant::now() < deadline => std::thread::sleep(INTERVAL),
            Err(_) => return None,
        }
    }
}
