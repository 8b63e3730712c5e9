//! A modelled GPU beside the server: a process of `tests/fakegpu` that serves one device of one server.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running model.
#[derive(Debug)]
pub(crate) struct Model {
    child: Child,
    pub(crate) socket: PathBuf,
    control: PathBuf,
    log: PathBuf,
}

impl Model {
    /// Starts `fakegpu WORDS`, whose first word is the device, as number `index` of the server whose files are in `directory`.
    pub(crate) fn start(program: &Path, directory: &Path, index: usize, words: &[String]) -> Self {
        let at = |ending: &str| directory.join(format!("gpu{index}.{ending}"));
        let (socket, control, log) = (at("sock"), at("control"), at("log"));
        let (device, faults) = words.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(["--model", device, "--serial", &index.to_string(), "--control"]).arg(&control).arg("--socket");
        command.arg(&socket).args(faults);
        command.stdin(Stdio::null()).stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the model of a GPU does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, socket, control, log }
    }

    /// Tells it what happens to it, in the words of its control socket; gives its state afterwards.
    #[track_caller]
    pub(crate) fn tell(&self, command: &str) -> serde_json::Value {
        let mut stream = UnixStream::connect(&self.control).unwrap();
        writeln!(stream, "{command}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let state: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(state.get("error").is_none(), "{command}: {state}");
        state
    }

    /// What it told of its resets.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
