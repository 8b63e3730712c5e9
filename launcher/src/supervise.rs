//! The one loop that listens to everything a running QEMU does, and carries out what `life` decides.
//!
//! It waits in a single poll(2): QEMU's end, signals, QMP, the agent, the console, QEMU's standard error, room on the
//! screen, and the next deadline. Nothing in it blocks, and nothing it keeps grows with what a guest sends.

mod signals;
mod stderr;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use spec::agent::{Identity, Measurements, Workload};

use crate::agent::Agent;
use crate::attach::visitors::Visitors;
use crate::child::Child;
use crate::console::Console;
use crate::ending::Ending;
use crate::keyboard::Keyboard;
use crate::life::{ANSWER_TIMEOUT, Action, Input, Life};
use crate::network::Speaker;
use crate::pinning::{self, Pinned};
use crate::qemu::Accelerator;
use crate::qmp::{Message, Qmp};
use crate::screen::Screen;
use crate::state::Phase;
pub(crate) use signals::Signals;
pub(crate) use stderr::Stderr;

/// How long the screen may take to show the rest when all is over.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What is told while a launch goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// QEMU was started, and its guest let run.
    Started {
        /// Its process number.
        pid: u32,
        /// What runs the guest.
        accelerator: Accelerator,
        /// How long the launch took until then.
        after: Duration,
    },
    /// The guest is ready.
    Ready {
        /// Who it says it is, which agrees with what was launched.
        identity: &'a Identity,
        /// How long after it was let run.
        after: Duration,
    },
    /// The guest said what it can measure.
    Measured(&'a Measurements),
    /// The workload has come to another state.
    Workload(Workload),
    /// The workload printed a line, and the guest was told to pass it on.
    Output(&'a str),
    /// It was asked to stop.
    Stopping,
    /// It has ended, and will be started again.
    Restarting {
        /// How it ended.
        ending: &'a Ending,
        /// How often it was started again, this time included.
        restarts: u32,
        /// When.
        after: Duration,
    },
    /// Something worth a line.
    Note(&'a str),
}

/// Who is told what the guest does.
pub(crate) trait Witness {
    /// The phase changed.
    fn phase(&mut self, phase: Phase);
    /// The guest is ready.
    fn ready(&mut self, identity: Identity, after: Duration);
    /// The guest said what it can measure.
    fn measured(&mut self, measurements: Measurements);
    /// The workload has come to another state.
    fn workload(&mut self, workload: Workload);
    /// The workload printed a line.
    fn output(&mut self, line: &str);
    /// Something worth a line.
    fn note(&mut self, note: &str);
    /// Supervision goes on. When that wants to be heard again.
    fn beat(&mut self, now: Instant) -> Option<Instant>;
}

/// A QEMU that runs, and all that is listened to.
pub(crate) struct Supervision<'a> {
    pub(crate) child: Child,
    pub(crate) qmp: Option<Qmp>,
    pub(crate) agent: Option<Agent>,
    pub(crate) console: Console<'a>,
    pub(crate) stderr: Option<Stderr>,
    /// Those who speak for NICs.
    pub(crate) speakers: Vec<Speaker>,
    /// Where the vCPUs run, once QEMU has said which thread is which.
    pub(crate) pinned: &'a [Pinned],
    pub(crate) signals: &'a Signals,
    pub(crate) screen: Option<&'a mut Screen>,
    /// Who types from elsewhere, where that is admitted.
    pub(crate) visitors: Option<&'a mut Visitors>,
    pub(crate) life: Life,
    pub(crate) witness: &'a mut dyn Witness,
    pub(crate) started: Instant,
}

/// What can have something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Child,
    Signals,
    Qmp,
    Agent,
    Console,
    Stderr,
    Screen,
    Keyboard,
    /// Somebody who comes to type, and who is there.
    Door,
    Visitor,
    /// A speaker, by its place: its end, and what it prints.
    Speaker(usize),
    SpeakerWords(usize),
}

/// How a QEMU's life was.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) kvm_cannot_run: bool,
    pub(crate) last_words: Vec<String>,
    pub(crate) exited_well: bool,
}

impl Supervision<'_> {
    /// Supervises until QEMU has ended.
    pub(crate) fn run(mut self) -> io::Result<Outcome> {
        let mut console_open = true;
        let status = loop {
            let (ready, drained) = self.wait(console_open)?;
            for source in ready {
                self.listen(source, &mut console_open)?;
            }
            let now = Instant::now();
            let expired = self.agent.as_mut().map(|agent| agent.expire(now)).unwrap_or_default();
            expired.into_iter().for_each(|answer| self.act(now, Input::Agent(answer)));
            self.act(now, Input::Tick);
            if let Some(status) = self.child.ended()?.filter(|_| drained) {
                break status;
            }
        };
        self.finish_screens();
        Ok(Outcome {
            ending: self.life.ending(status, self.stderr.as_ref().map(Stderr::tail).unwrap_or_default()),
            kvm_cannot_run: self.life.kvm_cannot_run(),
            last_words: self.console.last_words(),
            exited_well: status.success(),
        })
    }

    /// Waits until a source has something, or a deadline has come. Also says whether all that QEMU wrote has been read:
    /// it had ended before this looked, and no stream had anything.
    fn wait(&mut self, console_open: bool) -> io::Result<(Vec<Source>, bool)> {
        let ended = self.child.ended()?.is_some();
        let beat = self.witness.beat(Instant::now());
        let timeout = if ended { PollTimeout::ZERO } else { self.timeout(beat) };
        let sources = self.sources(console_open, ended);
        let mut fds: Vec<_> = sources.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let ready: Vec<Source> =
            fds.iter().zip(&sources).filter(|(fd, _)| ready(fd)).map(|(_, (source, ..))| *source).collect();
        let streams = [Source::Qmp, Source::Agent, Source::Console, Source::Stderr];
        let idle = !ready.iter().any(|source| streams.contains(source));
        Ok((ready, ended && idle))
    }

    fn timeout(&self, beat: Option<Instant>) -> PollTimeout {
        let agent = self.agent.as_ref().and_then(Agent::deadline);
        match self.life.deadline().into_iter().chain(agent).chain(beat).min() {
            None => PollTimeout::NONE,
            Some(deadline) => {
                // Rounded up: waking up just before a deadline would mean asking again in a loop.
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        }
    }

    fn sources(&self, console_open: bool, ended: bool) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let stream = |unsent| if unsent { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut sources = vec![(Source::Signals, self.signals.as_fd(), PollFlags::POLLIN)];
        if !ended {
            sources.push((Source::Child, self.child.as_fd(), PollFlags::POLLIN));
        }
        if let Some(qmp) = &self.qmp {
            sources.push((Source::Qmp, qmp.as_fd(), stream(qmp.has_unsent())));
        }
        if let Some(agent) = &self.agent {
            sources.push((Source::Agent, agent.as_fd(), stream(agent.has_unsent())));
        }
        if console_open {
            sources.push((Source::Console, self.console.as_fd(), stream(!self.console.takes_more())));
        }
        if let Some(stderr) = &self.stderr.as_ref().filter(|stderr| stderr.is_open()) {
            sources.push((Source::Stderr, stderr.as_fd(), PollFlags::POLLIN));
        }
        if let Some(screen) = self.screen.as_ref().filter(|screen| screen.has_backlog()) {
            sources.push((Source::Screen, screen.as_fd(), PollFlags::POLLOUT));
        }
        let listens = |keyboard: &&Keyboard| self.console.takes_more() || keyboard.is_terminal();
        if let Some(keyboard) = self.screen.as_ref().and_then(|screen| screen.keyboard()).filter(listens) {
            sources.push((Source::Keyboard, keyboard.as_fd(), PollFlags::POLLIN));
        }
        if let Some(visitors) = &self.visitors {
            sources.extend(visitors.door().map(|door| (Source::Door, door, PollFlags::POLLIN)));
            let visitor = visitors.visitor(self.console.takes_more());
            sources.extend(visitor.map(|(socket, flags)| (Source::Visitor, socket, flags)));
        }
        for (place, speaker) in self.speakers.iter().enumerate() {
            if let Some(words) = speaker.words() {
                sources.push((Source::SpeakerWords(place), words, PollFlags::POLLIN));
            }
            if !speaker.is_over() {
                sources.push((Source::Speaker(place), speaker.end(), PollFlags::POLLIN));
            }
        }
        sources
    }

    fn listen(&mut self, source: Source, console_open: &mut bool) -> io::Result<()> {
        let now = Instant::now();
        match source {
            Source::Child => {}
            Source::Screen => {
                if let Some(screen) = &mut self.screen {
                    screen.write_some();
                }
            }
            Source::Keyboard => {
                if let Some(screen) = &mut self.screen {
                    self.console.send(&screen.typed());
                }
            }
            Source::Door => self.let_in(),
            Source::Visitor => {
                if let Some(visitors) = &mut self.visitors {
                    self.console.send(&visitors.serve(self.console.takes_more()));
                }
            }
            Source::Signals => {
                for signal in self.signals.take()? {
                    self.act(now, Input::Stop(signal));
                }
            }
            Source::Stderr => {
                if let Some(stderr) = &mut self.stderr {
                    stderr.receive();
                }
            }
            Source::SpeakerWords(place) => {
                if let Some(speaker) = self.speakers.get_mut(place) {
                    speaker.hear();
                }
            }
            Source::Speaker(place) => {
                if let Some(over) = self.speakers.get_mut(place).map(Speaker::over).transpose()?.flatten() {
                    self.act(now, Input::NetworkEnded(over));
                }
            }
            Source::Console => *console_open = self.listen_to_console(now)?,
            Source::Qmp => {
                let Some(qmp) = &mut self.qmp else { return Ok(()) };
                qmp.flush();
                match qmp.receive()? {
                    Some(messages) => {
                        for message in messages {
                            self.pin(&message);
                            self.act(now, Input::Qmp(message));
                        }
                    }
                    None => self.qmp = None,
                }
            }
            Source::Agent => {
                let Some(agent) = &mut self.agent else { return Ok(()) };
                agent.flush();
                match agent.receive()? {
                    Some(incoming) => incoming.into_iter().for_each(|incoming| self.act(now, Input::Agent(incoming))),
                    None => {
                        self.agent = None;
                        self.act(now, Input::AgentClosed);
                    }
                }
            }
        }
        Ok(())
    }

    /// A guest whose vCPUs run elsewhere is slower, and no other.
    fn pin(&mut self, message: &Message) {
        let Message::Reply { command: pinning::QUESTION, result: Ok(answer) } = message else { return };
        if let Err(error) = pinning::pin(self.pinned, self.child.id(), answer) {
            self.witness.note(&format!("vCPUs are not kept to their NUMA nodes: {error}"));
        }
    }

    fn listen_to_console(&mut self, now: Instant) -> io::Result<bool> {
        self.console.flush();
        let Some(received) = self.console.receive()? else { return Ok(false) };
        if let Some(screen) = &mut self.screen {
            screen.show(&received.bytes);
        }
        if let Some(visitors) = &mut self.visitors {
            visitors.show(&received.bytes);
        }
        if let Some(error) = received.log_error {
            self.witness.note(&format!("the console is no longer logged: {error}"));
        }
        received.findings.into_iter().for_each(|finding| self.act(now, Input::Console(finding)));
        Ok(true)
    }

    fn act(&mut self, now: Instant, input: Input) {
        for action in self.life.handle(now, input) {
            match action {
                Action::Qmp(command) => match &mut self.qmp {
                    Some(qmp) => qmp.execute(command, None),
                    // Nobody is there to be told.
                    None => self.child.kill(),
                },
                Action::Ask(method) => {
                    if let Some(agent) = &mut self.agent {
                        agent.ask(method, now, ANSWER_TIMEOUT);
                    }
                }
                Action::Kill => self.child.kill(),
                Action::Phase(phase) => self.witness.phase(phase),
                Action::Ready(identity) => self.witness.ready(*identity, now - self.started),
                Action::Measured(measurements) => self.witness.measured(measurements),
                Action::Workload(workload) => self.witness.workload(workload),
                Action::Output(line) => self.witness.output(&line),
                Action::Note(note) => self.witness.note(&note),
            }
        }
    }

    fn let_in(&mut self) {
        let launch = self.screen.as_ref().is_some_and(|screen| screen.keyboard().is_some());
        if let Some(Err(error)) = self.visitors.as_mut().map(|visitors| visitors.let_in(launch)) {
            self.witness.note(&format!("nobody can type to the guest from elsewhere any more: {error}"));
        }
    }

    fn finish_screens(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        if let Some(screen) = &mut self.screen {
            screen.finish(deadline);
        }
        if let Some(screen) = self.visitors.as_mut().and_then(|visitors| visitors.unseen()) {
            screen.finish(deadline);
        }
    }
}
