//! What follows from what: the decisions of supervision, without any I/O.
//!
//! Events go in with the time they happened at, actions come out. `supervise` reads, polls and carries out; that is all
//! it does, so that every way a guest can end is tested here without a guest.

mod claim;
mod stopping;

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;
use spec::agent::{Event, Identity, Measurements, Method, Workload};

use crate::agent::{Incoming, one_line, printable};
use crate::console::Finding;
use crate::ending::{Ending, StopHow};
use crate::network::Over;
use crate::plan::Expected;
use crate::qmp::Message;
use crate::state::Phase;
use claim::Claim;

/// How long the guest may take to answer a question.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The stage at which a guest fails that is not the one that was meant.
pub(crate) const ANOTHER_GUEST: &str = "identity";

/// How often a guest is asked for a sign of life in the time that it may be silent.
const QUESTIONS_IN_A_SILENCE: u32 = 3;

/// How many lines that mean nothing are passed on. More of them tell nothing more, and a guest can send them for ever.
const FOREIGN_LINES: u32 = 8;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// QEMU said something.
    Qmp(Message),
    /// The guest's agent said something.
    Agent(Incoming),
    /// The agent port closed.
    AgentClosed,
    /// The console said something.
    Console(Finding),
    /// Who speaks for a NIC has ended.
    NetworkEnded(Over),
    /// Someone asked to stop: the name of the signal.
    Stop(&'static str),
    /// Time passed.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Send QEMU a command without arguments.
    Qmp(&'static str),
    /// Ask the guest.
    Ask(Method),
    /// SIGKILL to QEMU.
    Kill,
    /// The phase changed.
    Phase(Phase),
    /// The guest is ready.
    Ready(Box<Identity>),
    /// The guest said what it can measure.
    Measured(Measurements),
    /// The workload has come to another state.
    Workload(Workload),
    /// The workload printed a line.
    Output(String),
    /// Something worth a line.
    Note(String),
}

/// What a life is given at its start.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) expected: Expected,
    pub(crate) under_kvm: bool,
    /// Whether a guest is to become ready at all: in a simulation none runs.
    pub(crate) guest_runs: bool,
    /// Whether the guest is stopped as soon as it is ready and has told what it measures.
    pub(crate) until_ready: bool,
    pub(crate) ready_timeout: Duration,
    pub(crate) stop_timeout: Duration,
    /// How long a guest that was ready may be silent; none: for ever.
    pub(crate) watchdog: Option<Duration>,
    /// How long its watchdog device waits; none where it has none.
    pub(crate) hang_timeout: Option<Duration>,
}

/// Who stops a guest that was launched only to become ready.
const UNTIL_READY: &str = "--until-ready";

/// How a guest's end came about, as far as it is known before QEMU is gone.
#[derive(Clone, Debug)]
enum Cause {
    Failed {
        stage: String,
        reason: String,
    },
    /// With what was said of it, where anything was.
    Panicked(Option<String>),
    Late,
    Silent,
    Hung,
    InternalError,
    MeasuredOtherwise {
        register: String,
        expected: String,
        found: String,
    },
    NetworkEnded(Over),
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Not begun.
    None,
    /// The guest was asked.
    Asked,
    /// QEMU was told to quit.
    Quit,
    /// QEMU was killed.
    Killed,
}

/// One QEMU's life.
#[derive(Debug)]
pub(crate) struct Life {
    terms: Terms,
    ready: bool,
    /// The guest says that it is ready, and its registers are still to be compared.
    claim: Option<Claim>,
    agent_open: bool,
    /// Whether the guest was asked what it measures, and has not answered.
    awaits_measurements: bool,
    cause: Option<Cause>,
    shutdown: Option<String>,
    /// The workload's exit code, once it has ended for good.
    workload_exit: Option<u8>,
    stopped_by: Option<&'static str>,
    stage: Stage,
    /// When the next step of a stop is due.
    next_step: Option<Instant>,
    ready_deadline: Option<Instant>,
    /// When the guest is asked for a sign of life again, and when it must have given one.
    next_question: Option<Instant>,
    silence_deadline: Option<Instant>,
    /// A network that is closed, and when QEMU should be gone as well.
    closed: Option<(Over, Instant)>,
    foreign_lines: u32,
}

impl Life {
    pub(crate) fn new(terms: Terms, now: Instant) -> Self {
        let ready_deadline = now.checked_add(terms.ready_timeout).filter(|_| terms.guest_runs);
        Self {
            terms,
            ready: false,
            claim: None,
            agent_open: true,
            awaits_measurements: false,
            cause: None,
            shutdown: None,
            workload_exit: None,
            stopped_by: None,
            stage: Stage::None,
            next_step: None,
            ready_deadline,
            next_question: None,
            silence_deadline: None,
            closed: None,
            foreign_lines: 0,
        }
    }

    /// When `Input::Tick` is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let closed = self.closed.as_ref().map(|(_, deadline)| *deadline);
        let deadlines = [self.next_step, self.ready_deadline, self.next_question, self.silence_deadline, closed];
        deadlines.into_iter().flatten().min()
    }

    /// What follows from `input`.
    pub(crate) fn handle(&mut self, now: Instant, input: Input) -> Vec<Action> {
        match input {
            Input::Qmp(message) => self.on_qmp(now, message),
            Input::Agent(incoming) => self.on_agent(now, incoming),
            Input::AgentClosed => {
                self.agent_open = false;
                self.on_no_measurements(now)
            }
            Input::Console(Finding::Failed { stage, reason }) => self.fail(now, Cause::Failed { stage, reason }),
            Input::Console(Finding::Panic(panic)) => self.panicked(now, Some(panic)),
            Input::NetworkEnded(over) => self.on_network_ended(now, over),
            Input::Stop(by) => self.stop(now, by),
            Input::Tick => self.tick(now),
        }
    }

    fn on_qmp(&mut self, now: Instant, message: Message) -> Vec<Action> {
        match message {
            // Events are sent only after the handshake: a stop before it is found by asking.
            Message::Reply { command: "qmp_capabilities", result: Ok(_) } => {
                vec![Action::Phase(Phase::Running), Action::Qmp("query-status")]
            }
            Message::Reply { command: "query-status", result: Ok(status) } => self.on_status(now, &status),
            // It would wait for ever.
            Message::Reply { command: "cont" | "x-exit-preconfig", result: Err(error) } => {
                self.cause.get_or_insert(Cause::Failed { stage: "start".to_owned(), reason: one_line(&error) });
                self.ready_deadline = None;
                self.quit(now)
            }
            Message::Reply { command, result: Err(error) } => {
                vec![Action::Note(format!("QEMU refused {command}: {}", one_line(&error)))]
            }
            Message::Event { name, data } => self.on_event(now, &name, &data),
            Message::Unreadable(line) => self.on_foreign_line("QEMU said over QMP", &line),
            Message::Greeting { .. } | Message::Reply { .. } => vec![],
        }
    }

    fn on_event(&mut self, now: Instant, name: &str, data: &Value) -> Vec<Action> {
        match name {
            "STOP" if self.stage == Stage::None => vec![Action::Qmp("query-status")],
            "SHUTDOWN" => {
                let reason = data.get("reason").and_then(Value::as_str).unwrap_or("unknown");
                self.shutdown = Some(reason.to_owned());
                vec![]
            }
            "GUEST_PANICKED" => {
                // A TDX guest says more; pvpanic has one bit.
                let information = data.get("info").map(|information| one_line(&information.to_string()));
                let mut actions = vec![Action::Note("QEMU was told that the guest's kernel has panicked".to_owned())];
                actions.extend(self.panicked(now, information));
                actions
            }
            "WATCHDOG" => self.hung(now),
            _ => vec![],
        }
    }

    fn on_status(&mut self, now: Instant, status: &Value) -> Vec<Action> {
        match status.get("status").and_then(Value::as_str).unwrap_or("unknown") {
            "running" | "prelaunch" | "inmigrate" | "shutdown" => vec![],
            // The vCPUs are gone for good, and there is no state worth a graceful end.
            "internal-error" => {
                self.cause.get_or_insert(Cause::InternalError);
                self.ready_deadline = None;
                self.stage = Stage::Killed;
                vec![Action::Kill]
            }
            "guest-panicked" => self.panicked(now, None),
            "watchdog" => self.hung(now),
            other => vec![Action::Note(format!("QEMU has stopped the guest: {}", one_line(other)))],
        }
    }

    fn on_agent(&mut self, now: Instant, incoming: Incoming) -> Vec<Action> {
        // A question that was not answered in time comes back as an error.
        if self.silence_deadline.is_some() && !matches!(incoming, Incoming::Answer { result: Err(_), .. }) {
            self.silence_deadline = self.terms.watchdog.and_then(|silence| now.checked_add(silence));
        }
        match incoming {
            Incoming::Event(Event::Ready { identity }) => self.on_ready(now, identity),
            Incoming::Event(Event::Workload { workload }) => {
                if let Workload::Ended { exit_code, .. } = workload {
                    self.workload_exit = Some(exit_code);
                }
                self.of_workload(Action::Workload(workload))
            }
            Incoming::Event(Event::Output { line }) => self.of_workload(Action::Output(printable(&line))),
            Incoming::Event(Event::Failed { stage, reason }) => {
                let (stage, reason) = (one_line(&stage), one_line(&reason));
                self.fail(now, Cause::Failed { stage, reason })
            }
            Incoming::Answer { method: Method::Measurements, result } => self.on_measurements(now, result),
            // The guest will not power off: there is nothing to wait for.
            Incoming::Answer { method: Method::PowerOff, result: Err(error) } if self.stage == Stage::Asked => {
                let mut actions =
                    vec![Action::Note(format!("the guest did not agree to power off: {}", one_line(&error)))];
                actions.extend(self.quit(now));
                actions
            }
            Incoming::Answer { .. } => vec![],
            Incoming::Unreadable(line) => self.on_foreign_line("the guest's agent said", &line),
        }
    }

    fn on_foreign_line(&mut self, who: &str, line: &str) -> Vec<Action> {
        self.foreign_lines = self.foreign_lines.saturating_add(1);
        match self.foreign_lines {
            ..=FOREIGN_LINES => vec![Action::Note(format!("{who}: {}", one_line(line)))],
            count if count == FOREIGN_LINES + 1 => vec![Action::Note(format!("{who} more that is not shown"))],
            _ => vec![],
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        if self.ready_deadline.is_some_and(|deadline| deadline <= now) {
            self.ready_deadline = None;
            self.cause.get_or_insert(Cause::Late);
            return self.quit(now);
        }
        if self.stage != Stage::None {
            (self.next_question, self.silence_deadline, self.closed) = (None, None, None);
        }
        if let Some((over, _)) = self.closed.take_if(|(_, deadline)| *deadline <= now) {
            return self.end(now, Cause::NetworkEnded(over));
        }
        if self.silence_deadline.is_some_and(|deadline| deadline <= now) {
            self.cause.get_or_insert(Cause::Silent);
            return self.quit(now);
        }
        let silence = self.terms.watchdog.unwrap_or_default();
        if self.next_question.is_some_and(|due| due <= now) {
            self.next_question = now.checked_add(silence / QUESTIONS_IN_A_SILENCE);
            return vec![Action::Ask(Method::Uptime)];
        }
        if self.next_step.is_none_or(|step| step > now) {
            return vec![];
        }
        match self.stage {
            Stage::None => vec![],
            Stage::Asked => self.quit(now),
            Stage::Quit | Stage::Killed => self.kill(),
        }
    }

    /// Whether KVM stopped a guest that another accelerator may run, and that is still wanted.
    pub(crate) fn kvm_cannot_run(&self) -> bool {
        let stopped_by_kvm = matches!(self.cause, Some(Cause::InternalError));
        self.terms.under_kvm && !self.ready && self.claim.is_none() && stopped_by_kvm && self.stopped_by.is_none()
    }

    /// How it ended, now that QEMU is gone. A simulation that went through is told apart by the caller, who has its report.
    pub(crate) fn ending(&self, status: ExitStatus, stderr: Vec<String>) -> Ending {
        let died = || Ending::QemuDied { status: status.to_string(), stderr: stderr.clone() };
        let failed =
            |stage: &str, reason: &str| Ending::GuestFailed { stage: stage.to_owned(), reason: reason.to_owned() };
        match &self.cause {
            Some(Cause::InternalError) if self.kvm_cannot_run() => return Ending::KvmCannotRun,
            // It was wanted no longer.
            Some(Cause::InternalError) if !self.ready && self.stopped_by.is_some() => {}
            Some(Cause::InternalError) => return failed("run", "QEMU stopped the guest: internal error"),
            Some(Cause::Failed { stage, reason }) => return failed(stage, reason),
            Some(Cause::MeasuredOtherwise { register, expected, found }) => {
                let (register, expected, found) = (register.clone(), expected.clone(), found.clone());
                return Ending::MeasuredOtherwise { register, expected, found, simulation: None };
            }
            Some(Cause::Panicked(words)) => return Ending::GuestPanicked { panic: panic(words.as_deref()) },
            Some(Cause::Hung) => {
                return Ending::GuestHung { seconds: self.terms.hang_timeout.unwrap_or_default().as_secs() };
            }
            Some(Cause::NetworkEnded(Over { nic, status, words, .. })) => {
                return Ending::NetworkEnded { nic: *nic, status: status.clone(), stderr: words.clone() };
            }
            Some(Cause::Silent) => {
                return Ending::GuestSilent { seconds: self.terms.watchdog.unwrap_or_default().as_secs() };
            }
            Some(Cause::Late) => return Ending::NotReadyInTime { seconds: self.terms.ready_timeout.as_secs() },
            None => {}
        }
        let reason = self.shutdown.as_deref();
        if let Some(by) = self.stopped_by {
            if self.terms.until_ready && !self.ready {
                return failed("boot", "stopped before it was ready");
            }
            let how = match (self.stage, reason) {
                (_, Some("guest-shutdown")) => StopHow::PoweredOff,
                (Stage::Killed, _) => StopHow::Killed,
                _ => StopHow::Quit,
            };
            return Ending::Stopped { by, how };
        }
        match reason {
            Some("guest-shutdown") if self.ready => {
                self.workload_exit.map_or(Ending::GuestPoweredOff, |exit_code| Ending::WorkloadEnded { exit_code })
            }
            Some("guest-shutdown") => failed("boot", "the guest powered off before it was ready"),
            Some("guest-reset") => Ending::GuestReset,
            Some("guest-panic") => Ending::GuestPanicked { panic: panic(None) },
            _ => died(),
        }
    }
}

/// What is said of a panic; a guest whose console is closed says that there was one, and no more.
fn panic(words: Option<&str>) -> String {
    words.unwrap_or("QEMU was told so by the guest, whose console does not say why").to_owned()
}

#[cfg(test)]
mod tests;
