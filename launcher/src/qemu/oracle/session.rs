//! One run of QEMU that is asked: its control channels, its deadline, and its certain end.
//!
//! QEMU gets a QMP monitor and a qtest channel of its own beside whatever the argument list has, and traces which fw_cfg
//! items firmware selects: that is the one sign that the tables are built, and that none was built too early.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ChildStderr;
use std::time::{Duration, Instant};

use measure::fw_cfg::FwCfg;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::error::OracleError;
use super::fw_cfg::Answer;
use super::placement::{self, ConfigWrite};
use super::wire::{self, Directory};
use crate::agent::one_line;
use crate::channel::Channel;
use crate::child::{self, Child};
use crate::lines::{Line, Lines};
use crate::qemu::QemuProgram;
use crate::qemu::arguments::{Arguments, Properties};
use crate::qmp::{Message, Qmp};

const QMP: i32 = 60;
const QTEST: i32 = 61;
/// A qtest answer has two digits a byte.
const MAX_ANSWER: usize = 5 << 20;
const MAX_LINE: usize = 4096;
const LAST_LINES: usize = 5;

pub(super) struct Session {
    program: PathBuf,
    child: Child,
    qmp: Qmp,
    qtest: Channel,
    stderr: Option<ChildStderr>,
    stderr_lines: Lines,
    heard: Heard,
    timeout: Duration,
    deadline: Instant,
}

/// What QEMU has said and nobody has asked for yet.
#[derive(Default)]
struct Heard {
    messages: VecDeque<Message>,
    answers: VecDeque<String>,
    selected: BTreeSet<u16>,
    last_words: VecDeque<String>,
    version: Option<[u64; 3]>,
}

impl Session {
    /// Starts QEMU, its machine standing still.
    pub(super) fn start(
        program: &QemuProgram,
        arguments: Vec<String>,
        mut inherited: Vec<(i32, OwnedFd)>,
        timeout: Duration,
    ) -> Result<Self, OracleError> {
        let run = |source| OracleError::Run { program: program.binary.clone(), source };
        let (qmp, their_qmp) = Qmp::pair().map_err(run)?;
        let (qtest, their_qtest) = Channel::pair(MAX_ANSWER).map_err(run)?;
        inherited.extend([(QMP, their_qmp), (QTEST, their_qtest)]);
        let arguments = arguments.into_iter().chain(control().into_vec()).collect();
        let mut child = child::spawn(&program.argv(arguments), &program.env, inherited).map_err(run)?;
        let stderr = child.take_stderr();
        if let Some(stderr) = &stderr {
            fcntl(stderr, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| run(error.into()))?;
        }
        let mut session = Self {
            program: program.binary.clone(),
            child,
            qmp,
            qtest,
            stderr,
            stderr_lines: Lines::new(MAX_LINE),
            heard: Heard::default(),
            timeout,
            deadline: Instant::now() + timeout,
        };
        session.tell("qmp_capabilities")?;
        Ok(session)
    }

    /// fw_cfg's directory.
    pub(super) fn directory(&mut self) -> Result<Directory, OracleError> {
        let count = self.item(wire::DIRECTORY, 4)?;
        let count = count.first_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes)).min(4096);
        let all = self.item(wire::DIRECTORY, 4 + count * wire::ENTRY_BYTES)?;
        Ok(Directory::parse(all.get(4..).unwrap_or_default()))
    }

    /// Lets the machine run until firmware has selected all of `keys`, and stops it.
    pub(super) fn run_until_selected(&mut self, keys: &[u16]) -> Result<(), OracleError> {
        // What was read so far was read by us.
        self.heard.selected.clear();
        self.tell("cont")?;
        while !keys.iter().all(|key| self.heard.selected.contains(key)) {
            self.hear("firmware to read the ACPI tables")?;
        }
        self.tell("stop")
    }

    /// The files that firmware may measure, and where it has placed the devices.
    pub(super) fn read(&mut self, directory: &Directory) -> Result<Answer, OracleError> {
        let answer = self.files(directory)?;
        Ok(Answer { placement: placement::read(self)?, ..answer })
    }

    /// The files alone.
    pub(super) fn files(&mut self, directory: &Directory) -> Result<Answer, OracleError> {
        let mut fw_cfg = FwCfg::default();
        for name in FwCfg::NAMES {
            let entry = directory.find(name).map(|entry| (entry.key, entry.size));
            let item = (name == FwCfg::BOOT_MENU).then_some((FwCfg::BOOT_MENU_SELECTOR, 2));
            if let Some((key, size)) = item.or(entry) {
                fw_cfg.insert(name, self.item(key, size)?);
            }
        }
        Ok(Answer { qemu_version: self.heard.version, fw_cfg, placement: Vec::new() })
    }

    /// The first `size` bytes of an item, by DMA.
    fn item(&mut self, key: u16, size: u32) -> Result<Vec<u8>, OracleError> {
        let descriptor = hex::encode(wire::dma_read(key, size));
        self.ask(&format!("write {:#x} 0x10 0x{descriptor}", wire::DESCRIPTOR))?;
        // The register is big-endian, qtest's ports are not.
        let (high, low) = ((wire::DESCRIPTOR >> 32) as u32, (wire::DESCRIPTOR & 0xffff_ffff) as u32);
        self.ask(&format!("outl 0x514 {:#x}", high.swap_bytes()))?;
        self.ask(&format!("outl 0x518 {:#x}", low.swap_bytes()))?;
        let control = self.ask(&format!("read {:#x} 0x4", wire::DESCRIPTOR))?;
        if control != "0x00000000" {
            return Err(OracleError::Refused { command: format!("a read of fw_cfg item {key:#06x}"), found: control });
        }
        if size == 0 {
            return Ok(Vec::new());
        }
        let command = format!("read {:#x} {size:#x}", wire::DATA);
        let answer = self.ask(&command)?;
        let bytes = answer.strip_prefix("0x").and_then(|digits| hex::decode(digits).ok());
        bytes
            .filter(|bytes| bytes.len() == size as usize)
            .ok_or_else(|| OracleError::Refused { command, found: answer.chars().take(100).collect() })
    }

    /// A register of a PCI function's configuration space.
    pub(super) fn config(&mut self, function: u16, register: u8) -> Result<u32, OracleError> {
        self.ask(&format!("outl 0xcf8 {:#x}", ConfigWrite::address(function, register)))?;
        let answer = self.ask("inl 0xcfc")?;
        let number = answer.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        number.ok_or_else(|| OracleError::Refused { command: "inl 0xcfc".to_owned(), found: answer })
    }

    /// Places a device as firmware would.
    pub(super) fn place(&mut self, write: ConfigWrite) -> Result<(), OracleError> {
        self.ask(&format!("outl 0xcf8 {:#x}", ConfigWrite::address(write.function, write.register)))?;
        self.ask(&format!("outl 0xcfc {:#x}", write.value)).map(drop)
    }

    /// One qtest command; gives what follows its "OK".
    fn ask(&mut self, command: &str) -> Result<String, OracleError> {
        self.qtest.send(command.as_bytes());
        loop {
            while let Some(answer) = self.heard.answers.pop_front() {
                match answer.strip_prefix("OK") {
                    Some(value) => return Ok(value.trim().to_owned()),
                    // Interrupts are reported unasked.
                    None if answer.starts_with("IRQ") => {}
                    None => return Err(OracleError::Refused { command: command.to_owned(), found: answer }),
                }
            }
            self.hear("qtest to answer")?;
        }
    }

    /// One QMP command without arguments, whose value says nothing.
    fn tell(&mut self, command: &'static str) -> Result<(), OracleError> {
        self.qmp.execute(command, None);
        loop {
            while let Some(message) = self.heard.messages.pop_front() {
                match message {
                    Message::Reply { command: of, result } if of == command => {
                        let refused = |found| OracleError::Refused { command: command.to_owned(), found };
                        return result.map(|_: Value| ()).map_err(refused);
                    }
                    Message::Greeting { version } => self.heard.version = Some(version),
                    _ => {}
                }
            }
            self.hear("QMP to answer")?;
        }
    }

    /// Waits until QEMU says something, and takes it in.
    fn hear(&mut self, stage: &'static str) -> Result<(), OracleError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(OracleError::Late { stage, seconds: self.timeout.as_secs() });
        }
        let program = self.program.clone();
        let run = |source| OracleError::Run { program: program.clone(), source };
        self.wait(left).map_err(run)?;
        self.take_in().map_err(run)?;
        if self.child.ended().map_err(run)?.is_some() {
            self.take_in_stderr();
            let words: Vec<_> = self.heard.last_words.drain(..).collect();
            let found = if words.is_empty() { "it said nothing".to_owned() } else { words.join("; ") };
            return Err(OracleError::Ended { stage, found });
        }
        Ok(())
    }

    fn wait(&self, left: Duration) -> io::Result<()> {
        let events = |unsent| if unsent { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut fds = vec![
            PollFd::new(self.qmp.as_fd(), events(self.qmp.has_unsent())),
            PollFd::new(self.qtest.as_fd(), events(self.qtest.has_unsent())),
            PollFd::new(self.child.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.stderr.as_ref().map(|stderr| PollFd::new(stderr.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take_in(&mut self) -> io::Result<()> {
        self.qmp.flush();
        self.qtest.flush();
        self.heard.messages.extend(self.qmp.receive()?.unwrap_or_default());
        let answers = &mut self.heard.answers;
        self.qtest.receive(|line| {
            answers.push_back(match line {
                Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                Line::TooLong => format!("a line of more than {MAX_ANSWER} bytes"),
            });
        })?;
        self.take_in_stderr();
        Ok(())
    }

    fn take_in_stderr(&mut self) {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stderr.as_mut().map(|pipe| pipe.read(&mut buffer)) {
                Some(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => return,
                None => return,
                Some(Err(_) | Ok(0)) => self.stderr = None,
                Some(Ok(length)) => {
                    let heard = &mut self.heard;
                    self.stderr_lines.feed(buffer.get(..length).unwrap_or_default(), |line| heard.stderr(line));
                }
            }
        }
    }
}

impl Heard {
    fn stderr(&mut self, line: Line<'_>) {
        let Line::Whole(line) = line else { return };
        let line = String::from_utf8_lossy(line);
        if let Some(key) = wire::selected(&line) {
            self.selected.insert(key);
            return;
        }
        if self.last_words.len() == LAST_LINES {
            self.last_words.pop_front();
        }
        self.last_words.push_back(one_line(&line));
    }
}

/// What is added to the argument list to ask.
fn control() -> Arguments {
    let mut arguments = Arguments::default();
    arguments.flag("-S");
    for (id, number) in [("oracle-qmp", QMP), ("oracle-qtest", QTEST)] {
        let channel = Properties::of("socket").with("id", id).with("fd", &number.to_string());
        arguments.option("-chardev", channel);
    }
    arguments.value("-qmp", "chardev:oracle-qmp");
    arguments.value("-qtest", "chardev:oracle-qtest");
    arguments.value("-qtest-log", "none");
    arguments.value("-trace", "fw_cfg_select");
    arguments
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn toy(directory: &tempfile::TempDir, script: &str) -> QemuProgram {
        let path = directory.path().join("qemu");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        QemuProgram::at(&path).unwrap()
    }

    fn error_of(script: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let started = Session::start(&toy(&directory, script), vec![], vec![], Duration::from_millis(500));
        started.err().unwrap().to_string()
    }

    #[test]
    fn a_qemu_that_ends_or_falls_silent() {
        assert_eq!(
            error_of("echo no such machine >&2; exit 1"),
            "QEMU ended, waiting for QMP to answer: no such machine"
        );
        assert_eq!(error_of("exit 0"), "QEMU ended, waiting for QMP to answer: it said nothing");
        assert_eq!(error_of("exec sleep 100"), "0 s were not enough for QMP to answer");
    }
}
