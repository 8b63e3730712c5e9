//! `bullion console`: shows what a guest writes, and types to it, until whoever types leaves or the VM has ended.
//!
//! What is slow here (a terminal, a pipe that nobody reads) is waited for here: the supervisor shows less then, and says how much.

use std::fmt;
use std::io::{self, ErrorKind, Read as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use spec::{Diagnostic, Outcome};

use super::{Greeting, Holder, admits_typing, connect};
use crate::keyboard::Keyboard;
use crate::screen::{Screen, TerminalGuard};
use crate::state::{Directories, Exit, Phase, ProcessId, Record, StateError, last, running};
use crate::supervise::Signals;
use crate::typed::Typed;

/// After this, people are told that they wait.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often is looked whether a VM that starts listens.
const LOOK: Duration = Duration::from_millis(100);
/// How long a supervisor may take from its last word to its end.
const FAREWELL: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 << 10;

/// A VM that is not typed to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such VM, or its directories cannot be trusted.
    #[error(transparent)]
    State(#[from] StateError),
    /// It listens to nobody.
    #[error("\"{name}\" is not typed to: {reason}")]
    Deaf {
        /// The VM.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// Somebody types already.
    #[error("somebody types to \"{name}\" already: {by}")]
    Taken {
        /// The VM.
        name: String,
        /// Who.
        by: Holder,
    },
    /// A call of the system failed, or the supervisor's words were not understood.
    #[error("cannot {what} of \"{name}\"")]
    System {
        /// What was tried.
        what: &'static str,
        /// The VM.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} of user {}", self.pid, self.uid)?;
        f.write_str(if self.launch { ", the VM's own `launch --console`" } else { "" })
    }
}

impl Diagnostic for AttachError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::State(error) => error.outcome(),
            Self::Deaf { .. } => Outcome::Usage,
            Self::Taken { .. } | Self::System { .. } => Outcome::HostCannot,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::State(error) => error.hint(),
            Self::Deaf { name, .. } => Some(format!("`bullion logs -f {name}` shows its console")),
            Self::Taken { name, .. } => {
                Some(format!("Ctrl-] there makes room; `bullion logs -f {name}` shows the console meanwhile"))
            }
            Self::System { .. } => None,
        }
    }
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Whoever typed left, by the key, by the signal that is named, or because nobody reads any more. The VM goes on.
    Left(Option<&'static str>),
    /// The VM has ended: how, where that is known.
    Ended(Option<Exit>),
    /// The supervisor hung up, and the VM goes on.
    HungUp,
}

/// A VM that can be typed to.
#[derive(Debug)]
pub struct Session<'a> {
    directories: &'a Directories,
    name: String,
    supervisor: ProcessId,
    stream: UnixStream,
    /// How many of the bytes to come were written before.
    before: usize,
}

impl<'a> Session<'a> {
    /// Attaches to VM `name`. `waiting` is told when that takes long, and why.
    pub fn attach(
        directories: &'a Directories,
        name: &str,
        waiting: &mut dyn FnMut(&str),
    ) -> Result<Self, AttachError> {
        let begun = Instant::now();
        let mut patient = true;
        let (record, mut stream) = loop {
            let record = running(directories, name)?;
            check(&record)?;
            match connect(&directories.running(name)) {
                Ok(stream) => break (record, stream),
                Err(error) if error.kind() == ErrorKind::NotFound && record.phase == Phase::Starting => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(deaf(&record, "its supervisor does not listen (it may be of an earlier version)"));
                }
                // It is about to end, or lets nobody in any more.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    if begun.elapsed() > FAREWELL {
                        return Err(deaf(&record, "its supervisor lets nobody in any more"));
                    }
                }
                Err(source) => return Err(system("reach the supervisor", name)(source)),
            }
            if patient && begun.elapsed() > PATIENCE {
                patient = false;
                waiting(if record.phase == Phase::Starting {
                    "it does not run yet"
                } else {
                    "its supervisor lets nobody in"
                });
            }
            thread::sleep(LOOK);
        };
        let before = greeted(&mut stream, name, waiting)?;
        Ok(Self { directories, name: name.to_owned(), supervisor: record.supervisor, stream, before })
    }

    /// Shows on the screen that `open` gives and reads from its keyboard until it is over. On a terminal, what the guest wrote before
    /// is shown without what could drive it: a question to the terminal would be answered once more, and the answer typed.
    pub fn talk(mut self, open: impl FnOnce() -> io::Result<Screen>) -> Result<End, AttachError> {
        match self.exchange(open).map_err(system("pass on the console", &self.name))? {
            Some(end) => Ok(end),
            None => self.farewell(),
        }
    }

    /// The terminal is given back by its end, whatever signal it comes by: they are blocked before it is taken.
    fn exchange(&mut self, open: impl FnOnce() -> io::Result<Screen>) -> io::Result<Option<End>> {
        let signals = Signals::block()?;
        self.stream.set_nonblocking(true)?;
        let mut screen = open()?;
        Exchange { screen: &mut screen, typed: Typed::new(), guard: TerminalGuard::default(), before: self.before }
            .run(&mut self.stream, &signals)
    }

    /// The supervisor has closed the line: what came of the VM.
    fn farewell(&self) -> Result<End, AttachError> {
        let deadline = Instant::now() + FAREWELL;
        loop {
            match running(self.directories, &self.name) {
                Ok(record) if record.supervisor == self.supervisor => {}
                Ok(_) | Err(StateError::NotRunning { .. }) => break,
                Err(error) => return Err(error.into()),
            }
            if Instant::now() > deadline {
                return Ok(End::HungUp);
            }
            thread::sleep(LOOK);
        }
        let record = last(self.directories, &self.name).filter(|record| record.supervisor == self.supervisor);
        Ok(End::Ended(record.and_then(|record| record.exit)))
    }
}

fn system<'a>(what: &'static str, name: &'a str) -> impl Fn(io::Error) -> AttachError + 'a {
    move |source| AttachError::System { what, name: name.to_owned(), source }
}

fn deaf(record: &Record, reason: &'static str) -> AttachError {
    AttachError::Deaf { name: record.name.clone(), reason }
}

/// The supervisor does not listen for these either; here it is said why.
fn check(record: &Record) -> Result<(), AttachError> {
    match record.class {
        Some(class) if !admits_typing(class) => Err(deaf(record, "its image is a release, which listens to nobody")),
        _ if record.simulated => Err(deaf(record, "its launch is SIMULATED, and no guest runs")),
        _ => Ok(()),
    }
}

/// Waits for the supervisor's first line. While a VM waits to be started again, nobody gives one.
fn greeted(stream: &mut UnixStream, name: &str, waiting: &mut dyn FnMut(&str)) -> Result<usize, AttachError> {
    let failed = system("hear from the supervisor", name);
    stream.set_read_timeout(Some(PATIENCE)).map_err(&failed)?;
    let (mut line, mut patient) = (Vec::new(), true);
    loop {
        match Greeting::read(stream, &mut line) {
            Ok(Greeting::Welcome { before }) => return Ok(before),
            Ok(Greeting::Taken { by }) => return Err(AttachError::Taken { name: name.to_owned(), by }),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if patient {
                    waiting("its supervisor does not answer yet; it may be about to start the guest again");
                }
                patient = false;
            }
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return Err(StateError::NotRunning { name: name.to_owned() }.into());
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// The bytes in both directions.
struct Exchange<'a> {
    screen: &'a mut Screen,
    typed: Typed,
    guard: TerminalGuard,
    before: usize,
}

/// What can have something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Signals,
    Screen,
    Keyboard,
    Supervisor,
}

impl Exchange<'_> {
    /// Goes on until whoever types leaves; none when the supervisor has closed the line and all it sent is shown.
    fn run(&mut self, stream: &mut UnixStream, signals: &Signals) -> io::Result<Option<End>> {
        let mut input_open = true;
        loop {
            for (source, events) in self.wait(stream, signals)? {
                match source {
                    Source::Signals => {
                        if let Some(signal) = signals.take()?.first() {
                            return Ok(Some(End::Left(Some(signal))));
                        }
                    }
                    // Nobody reads any more.
                    Source::Screen if events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) => {
                        return Ok(Some(End::Left(None)));
                    }
                    Source::Screen => self.screen.write_some(),
                    Source::Keyboard => {
                        if self.hear() {
                            return Ok(Some(End::Left(None)));
                        }
                    }
                    Source::Supervisor => {
                        self.typed.write_to(stream);
                        if !self.screen.has_backlog() && !self.receive(stream)? {
                            return Ok(None);
                        }
                    }
                }
            }
            self.typed.write_to(stream);
            if input_open && self.screen.keyboard().is_none() && self.typed.is_empty() {
                input_open = false;
                // The end of a pipe is told, so that the supervisor waits for nothing more. One that is gone is noticed by reading.
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }

    fn wait(&self, stream: &UnixStream, signals: &Signals) -> io::Result<Vec<(Source, PollFlags)>> {
        let when = |condition, flags| if condition { flags } else { PollFlags::empty() };
        let (unseen, unsent) = (self.screen.has_backlog(), !self.typed.is_empty());
        let mut sources = vec![
            (Source::Signals, signals.as_fd(), PollFlags::POLLIN),
            // That its reader is gone is told in any case.
            (Source::Screen, self.screen.as_fd(), when(unseen, PollFlags::POLLOUT)),
        ];
        // So is the end of these: they are asked only when that can be acted on.
        if !unseen || unsent {
            let flags = when(!unseen, PollFlags::POLLIN) | when(unsent, PollFlags::POLLOUT);
            sources.push((Source::Supervisor, stream.as_fd(), flags));
        }
        if let Some(keyboard) = self.screen.keyboard().filter(|keyboard| keyboard.is_terminal() || !unsent) {
            sources.push((Source::Keyboard, keyboard.as_fd(), PollFlags::POLLIN));
        }
        let mut fds: Vec<_> = sources.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let events = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let ready = sources.iter().map(|(source, ..)| *source).zip(events);
        Ok(ready.filter(|(_, events)| !events.is_empty()).collect())
    }

    /// Takes what was typed. Whether the one who types at a terminal has left.
    fn hear(&mut self) -> bool {
        let is_terminal = self.screen.keyboard().is_some_and(Keyboard::is_terminal);
        if self.typed.push(&self.screen.typed()) > 0 {
            self.screen.show(b"\n[bullion: the guest takes up nothing: what is typed now is dropped]\n");
        }
        is_terminal && self.screen.keyboard().is_none()
    }

    /// Reads what there is, once; `false` when there will be no more.
    fn receive(&mut self, stream: &mut UnixStream) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => self.show(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn show(&mut self, bytes: &[u8]) {
        let (before, now) = bytes.split_at(bytes.len().min(self.before));
        self.before -= before.len();
        if self.screen.is_terminal() {
            self.screen.show(self.guard.filter(before).as_bytes());
        } else {
            self.screen.show(before);
        }
        self.screen.show(now);
    }
}

#[cfg(test)]
mod tests;
