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
                waiting("it does not run yet");
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
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use nix::pty::openpty;
    use nix::sys::termios::tcgetattr;
    use serde_json::json;

    use super::super::visitors::Visitors;
    use super::*;
    use crate::keyboard::LEAVE;
    use crate::state::Lock;

    /// A VM without a guest: what is typed comes back in brackets.
    struct Vm {
        root: tempfile::TempDir,
        directories: Directories,
        record: serde_json::Value,
        lock: Lock,
    }

    impl Vm {
        fn new(class: &str, phase: &str) -> Self {
            let root = tempfile::tempdir().unwrap();
            let directories = Directories { run: root.path().join("run"), state: root.path().join("state") };
            directories.prepare().unwrap();
            let lock = Lock::take(&directories, "vm").unwrap();
            fs::create_dir(directories.running("vm")).unwrap();
            fs::create_dir(directories.kept("vm")).unwrap();
            let record = json!({
                "schema": 1, "name": "vm", "supervisor": { "pid": 7, "start_time": 9 }, "qemu_pid": null, "started_at": 1,
                "phase": phase, "tee": "none", "simulated": false, "image": "/image", "manifest_sha256": "11".repeat(32),
                "class": class, "accelerator": null, "ready_ms": null, "identity": null, "measurements": null,
                "stop_timeout_s": 1, "console_log": "/log", "exit": null,
            });
            let vm = Self { root, directories, record, lock };
            fs::write(vm.directories.running("vm").join("state.json"), vm.record.to_string()).unwrap();
            vm
        }

        fn serve(&self, mut visitors: Visitors, until: impl Fn(&[u8]) -> bool) {
            let mut all = Vec::new();
            while !until(&all) {
                visitors.let_in(false).unwrap();
                let typed = visitors.serve(true);
                if !typed.is_empty() {
                    visitors.show(&[b"<", typed.as_slice(), b">"].concat());
                    all.extend_from_slice(&typed);
                }
                thread::sleep(Duration::from_millis(2));
            }
            if let Some(screen) = visitors.unseen() {
                screen.finish(Instant::now() + Duration::from_secs(5));
            }
        }

        fn ends(mut self) -> tempfile::TempDir {
            self.record["exit"] = json!({ "code": 0, "summary": "gone", "last_words": [], "ended_at": 2 });
            fs::write(self.directories.kept("vm").join("last.json"), self.record.to_string()).unwrap();
            fs::remove_dir_all(self.directories.running("vm")).unwrap();
            drop(self.lock);
            self.root
        }
    }

    fn screen(output: &impl AsFd, input: &impl AsFd) -> Screen {
        Screen::new(output).unwrap().with_keyboard(Keyboard::new(input).unwrap())
    }

    fn attach(directories: &Directories) -> Result<Session<'_>, AttachError> {
        Session::attach(directories, "vm", &mut |_| {})
    }

    #[test]
    fn a_terminal_is_given_back_and_not_driven_by_what_was_written_before() {
        let vm = Vm::new("dev", "ready");
        let mut visitors = Visitors::expect(&vm.directories.running("vm")).unwrap();
        visitors.show(b"before \x1b[6n\n");
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let mut person = fs::File::from(pty.master);
        let directories = vm.directories.clone();
        let end = thread::scope(|scope| {
            scope.spawn(|| vm.serve(visitors, |typed| typed.ends_with(b"\x03ls\r")));
            let talk =
                scope.spawn(|| attach(&directories).unwrap().talk(|| Ok(screen(&pty.slave, &pty.slave))).unwrap());
            let mut seen = Vec::new();
            let mut see = |person: &mut fs::File, text: &str| {
                while !String::from_utf8_lossy(&seen).contains(text) {
                    let mut some = [0; 100];
                    let length = person.read(&mut some).unwrap();
                    seen.extend_from_slice(&some[..length]);
                }
                String::from_utf8_lossy(&seen).into_owned()
            };
            // It is raw by the time the first words are shown.
            assert!(!see(&mut person, "before").contains('\x1b'));
            person.write_all(b"\x03ls\r").unwrap();
            see(&mut person, "\r>");
            person.write_all(&[LEAVE]).unwrap();
            talk.join().unwrap()
        });
        assert!(matches!(end, End::Left(None) | End::HungUp), "{end:?}");
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
    }

    #[test]
    fn a_pipe_is_typed_whole_and_hears_how_the_vm_ended() {
        let vm = Vm::new("dev", "ready");
        let visitors = Visitors::expect(&vm.directories.running("vm")).unwrap();
        let (input, mut typist) = io::pipe().unwrap();
        let (mut reader, output) = io::pipe().unwrap();
        let text: Vec<u8> = (0..60_000_u32).map(|index| b'a' + (index % 26) as u8).collect();
        let directories = vm.directories.clone();
        let (end, seen) = thread::scope(|scope| {
            let talk = scope.spawn(|| {
                let end = attach(&directories).unwrap().talk(|| Ok(screen(&output, &input))).unwrap();
                drop((input, output));
                end
            });
            scope.spawn(|| {
                typist.write_all(&text).unwrap();
                drop(typist);
            });
            let seen = scope.spawn(move || {
                let mut seen = Vec::new();
                reader.read_to_end(&mut seen).unwrap();
                seen
            });
            vm.serve(visitors, |typed| typed.len() == text.len());
            let root = vm.ends();
            let ended = (talk.join().unwrap(), seen.join().unwrap());
            drop(root);
            ended
        });
        let End::Ended(Some(exit)) = end else { panic!("{end:?}") };
        assert_eq!(exit.summary, "gone");
        let seen: Vec<u8> = seen.into_iter().filter(|byte| !b"<>".contains(byte)).collect();
        assert!(seen == text, "{} of {}", seen.len(), text.len());
    }

    #[test]
    fn who_reads_no_more_leaves() {
        let vm = Vm::new("dev", "ready");
        let visitors = Visitors::expect(&vm.directories.running("vm")).unwrap();
        let (reader, output) = io::pipe().unwrap();
        let (input, typist) = io::pipe().unwrap();
        let end = thread::scope(|scope| {
            let talk = scope.spawn(|| attach(&vm.directories).unwrap().talk(|| Ok(screen(&output, &input))).unwrap());
            drop(reader);
            vm.serve(visitors, |_| talk.is_finished());
            talk.join().unwrap()
        });
        drop(typist);
        assert_eq!(end, End::Left(None));
    }

    #[test]
    fn who_cannot_be_typed_to_is_said_to_be_so() {
        let refused = |vm: &Vm| attach(&vm.directories).unwrap_err().to_string();
        assert!(refused(&Vm::new("release", "ready")).contains("release"));
        assert!(refused(&Vm::new("dev", "ready")).contains("does not listen"));
        let vm = Vm::new("dev", "ready");
        let root = vm.directories.clone();
        let kept = vm.ends();
        assert!(matches!(attach(&root), Err(AttachError::State(StateError::NotRunning { .. }))));
        assert!(matches!(
            Session::attach(&root, "../vm", &mut |_| {}),
            Err(AttachError::State(StateError::NotRunning { .. }))
        ));
        drop(kept);
    }
}
