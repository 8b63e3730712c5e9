//! A modelled GPU beside the server: a process of `tests/fakegpu` that serves one device of one server.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running model.
#[derive(Debug)]
pub(crate) struct Model {
    child: Child,
    pub(crate) socket: PathBuf,
    log: PathBuf,
}

impl Model {
    /// Starts `fakegpu WORDS`, whose first word is the device, as number `index` of the server whose files are in `directory`.
    pub(crate) fn start(program: &Path, directory: &Path, index: usize, words: &[String]) -> Self {
        let (socket, log) = (directory.join(format!("gpu{index}.sock")), directory.join(format!("gpu{index}.log")));
        let _ = std::fs::remove_file(&socket);
        let (device, faults) = words.split_first().unwrap();
        let mut command = Command::new(program);
        command.args(["--model", device, "--serial", &index.to_string(), "--socket"]).arg(&socket).args(faults);
        command.stdin(Stdio::null()).stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the model of a GPU does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, socket, log }
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
