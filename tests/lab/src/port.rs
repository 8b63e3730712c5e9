//! The virtio port over which the server is told what to do: `lab-agent` of the recipe is at its other end.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64ct::{Base64, Encoding as _};

/// How much longer than its limit a command may take to be answered: the machine that emulates the server may be busy.
const SLACK: Duration = Duration::from_secs(180);

/// What a command gave.
#[derive(Debug)]
pub struct Run {
    /// The exit code; 124 if the time limit ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Asserts the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Asserts that it wrote each of `texts`, to whichever of the two.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stdout.contains(text) || self.stderr.contains(text), "no \"{text}\" in {self:#?}");
        }
        self
    }

    /// The JSON on standard output.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }
}

/// The host's end of the port.
#[derive(Debug)]
pub(crate) struct Port(BufReader<UnixStream>);

impl Port {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Waits until the agent says that it is there; the error says why it does not.
    pub(crate) fn wait_until_ready(&mut self, patience: Duration) -> Result<(), String> {
        match self.line(patience)?.as_str() {
            "ready" => Ok(()),
            other => Err(format!("the agent says \"{other}\"")),
        }
    }

    /// Runs a script for `bash` in the server.
    pub(crate) fn run(&mut self, script: &str, limit: Duration) -> Result<Run, String> {
        let line = format!("{} {}\n", limit.as_secs(), Base64::encode_string(script.as_bytes()));
        self.0.get_mut().write_all(line.as_bytes()).map_err(|error| error.to_string())?;
        let answer = self.line(limit + SLACK)?;
        let mut words = answer.split(' ');
        let code = words.next().and_then(|code| code.parse().ok()).ok_or_else(|| format!("no code in \"{answer}\""))?;
        let mut text = || {
            let bytes = words.next().and_then(|word| Base64::decode_vec(word).ok());
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok_or("the answer is not base64")
        };
        Ok(Run { code, stdout: text()?, stderr: text()? })
    }

    fn line(&mut self, patience: Duration) -> Result<String, String> {
        self.0.get_ref().set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => Err("the server is gone".to_owned()),
            Ok(_) => Ok(line.trim_end_matches('\n').to_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(format!("no answer in {patience:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}
