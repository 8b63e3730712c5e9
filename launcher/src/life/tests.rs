use std::os::unix::process::ExitStatusExt;

use serde_json::json;
use spec::agent::{Binding, Configuration};
use spec::{Sha256Digest, Tee};

use super::stopping::CLOSED_GRACE;
use super::*;

struct Case {
    life: Life,
    now: Instant,
}

fn expected() -> Expected {
    Expected {
        root_hash: Sha256Digest([1; 32]),
        tee: Tee::None,
        binding: Binding::Unattested,
        configuration: Sha256Digest([2; 32]),
        measurements: vec![],
    }
}

fn identity() -> Identity {
    Identity {
        guest_version: "0.1".to_owned(),
        kernel_release: "7.3.4".to_owned(),
        root_hash: Sha256Digest([1; 32]),
        tee: Tee::None,
        hostname: "minimal".to_owned(),
        configuration: Configuration { binding: Binding::Unattested, digest: Some(Sha256Digest([2; 32])) },
        uptime_ms: 2700,
    }
}

impl Case {
    fn new() -> Self {
        let now = Instant::now();
        let terms = Terms {
            expected: expected(),
            under_kvm: true,
            guest_runs: true,
            until_ready: false,
            ready_timeout: Duration::from_secs(120),
            stop_timeout: Duration::from_secs(10),
            watchdog: None,
            hang_timeout: None,
        };
        Self { life: Life::new(terms, now), now }
    }

    fn watched() -> Self {
        let mut case = Self::new();
        case.life.terms.watchdog = Some(Duration::from_secs(30));
        case.become_ready()
    }

    fn ready() -> Self {
        Self::new().become_ready()
    }

    fn become_ready(self) -> Self {
        let mut case = self;
        let actions = case.give(Input::Agent(Incoming::Event(Event::Ready { identity: identity() })));
        assert!(actions.contains(&Action::Ask(Method::Measurements)), "{actions:?}");
        case
    }

    fn give(&mut self, input: Input) -> Vec<Action> {
        self.life.handle(self.now, input)
    }

    fn shutdown(&mut self, reason: &str) {
        let data = json!({"guest": true, "reason": reason});
        assert_eq!(self.give(Input::Qmp(Message::Event { name: "SHUTDOWN".to_owned(), data })), []);
    }

    fn status(&mut self, status: &str) -> Vec<Action> {
        self.give(Input::Qmp(Message::Reply { command: "query-status", result: Ok(json!({"status": status})) }))
    }

    /// Waits until the next deadline.
    fn wait(&mut self) -> Vec<Action> {
        self.now = self.life.deadline().unwrap();
        self.give(Input::Tick)
    }

    fn ending(&self) -> Ending {
        self.life.ending(ExitStatus::from_raw(0), vec!["last".to_owned()])
    }
}

fn failed(stage: &str, reason: &str) -> Ending {
    Ending::GuestFailed { stage: stage.to_owned(), reason: reason.to_owned() }
}

#[test]
fn a_guest_that_powers_off() {
    let mut case = Case::ready();
    case.shutdown("guest-shutdown");
    assert_eq!(case.ending(), Ending::GuestPoweredOff);
    let mut case = Case::new();
    case.shutdown("guest-shutdown");
    assert_eq!(case.ending(), failed("boot", "the guest powered off before it was ready"));
}

#[test]
fn a_guest_that_resets_or_panics() {
    let mut case = Case::ready();
    case.shutdown("guest-reset");
    assert_eq!(case.ending(), Ending::GuestReset);
    case.give(Input::Console(Finding::Panic("dm-verity".to_owned())));
    assert_eq!(case.ending(), Ending::GuestPanicked { panic: "dm-verity".to_owned() }, "the console says why");
    let mut case = Case::ready();
    case.shutdown("guest-panic");
    assert!(matches!(case.ending(), Ending::GuestPanicked { .. }));
}

#[test]
fn a_panic_is_told_by_a_device_and_explained_by_the_console_whichever_is_first() {
    let told = || Input::Qmp(Message::Event { name: "GUEST_PANICKED".to_owned(), data: json!({"action": "poweroff"}) });
    let why = || Input::Console(Finding::Panic("sysrq triggered crash".to_owned()));
    let explained = Ending::GuestPanicked { panic: "sysrq triggered crash".to_owned() };
    for inputs in [[told(), why()], [why(), told()]] {
        let mut case = Case::ready();
        let notes: Vec<_> = inputs.into_iter().flat_map(|input| case.give(input)).collect();
        assert!(matches!(&notes[..], [Action::Note(note)] if note.contains("panicked")), "{notes:?}");
        // QEMU ends by itself when the guest has powered off.
        case.shutdown("guest-panic");
        assert_eq!(case.ending(), explained);
    }
    let mut case = Case::ready();
    case.give(told());
    let ending = case.ending();
    assert!(ending.to_string().contains("whose console does not say why"), "{ending}");
    assert_eq!(ending.outcome(), Some(spec::Outcome::GuestFailed));
}

#[test]
fn a_guest_that_does_not_feed_its_watchdog_is_ended_and_nobody_is_asked() {
    let acted = || Input::Qmp(Message::Event { name: "WATCHDOG".to_owned(), data: json!({"action": "pause"}) });
    let mut case = Case::ready();
    case.life.terms.hang_timeout = Some(Duration::from_secs(30));
    assert_eq!(case.give(acted()), [Action::Qmp("quit")]);
    assert_eq!(case.give(acted()), [], "once is enough");
    let stopped = Message::Event { name: "STOP".to_owned(), data: json!({}) };
    assert_eq!(case.give(Input::Qmp(stopped)), [], "it is known why QEMU has stopped it");
    let ending = case.ending();
    assert_eq!(ending, Ending::GuestHung { seconds: 30 });
    assert_eq!(ending.to_string(), "the guest hung: it had not fed its watchdog for 30 s");
    assert_eq!(ending.outcome(), Some(spec::Outcome::GuestFailed));
    // It had acted before QEMU listened.
    let mut case = Case::ready();
    assert_eq!(case.status("watchdog"), [Action::Qmp("quit")]);
    assert!(matches!(case.ending(), Ending::GuestHung { .. }));
    // A guest that was being stopped, and hangs at it, was stopped all the same.
    let mut case = Case::ready();
    case.give(Input::Stop("SIGTERM"));
    assert_eq!(case.give(acted()), [Action::Qmp("quit")]);
    assert_eq!(case.ending(), Ending::Stopped { by: "SIGTERM", how: StopHow::Quit });
}

#[test]
fn a_guest_that_fails_has_a_moment_to_end_by_itself() {
    let mut case = Case::new();
    let event = Event::Failed { stage: "verity".to_owned(), reason: "root\u{1b}[2J hash".to_owned() };
    assert_eq!(case.give(Input::Agent(Incoming::Event(event))), []);
    let late = Event::Ready { identity: identity() };
    assert_eq!(case.give(Input::Agent(Incoming::Event(late))), [], "a failed guest is never ready");
    assert_eq!(case.wait(), [Action::Qmp("quit")]);
    assert_eq!(case.wait(), [Action::Kill]);
    assert_eq!(case.life.deadline(), None);
    assert_eq!(case.ending(), failed("verity", "root[2J hash"));
}

#[test]
fn the_first_failure_counts() {
    let mut case = Case::new();
    case.give(Input::Console(Finding::Failed { stage: "mount".to_owned(), reason: "x".to_owned() }));
    case.give(Input::Console(Finding::Panic("Attempted to kill init!".to_owned())));
    case.give(Input::Stop("SIGINT"));
    case.shutdown("guest-shutdown");
    assert_eq!(case.ending(), failed("mount", "x"));
}

#[test]
fn a_guest_that_is_not_the_one_that_was_meant() {
    type Change = fn(&mut Identity);
    let changes: [(&str, Change); 4] = [
        ("root hash", |identity| identity.root_hash = Sha256Digest([9; 32])),
        ("TEE", |identity| identity.tee = Tee::Snp),
        ("binding", |identity| identity.configuration.binding = Binding::Absent),
        ("configuration", |identity| identity.configuration.digest = None),
    ];
    for (what, change) in changes {
        let mut case = Case::new();
        let mut identity = identity();
        change(&mut identity);
        assert_eq!(case.give(Input::Agent(Incoming::Event(Event::Ready { identity }))), []);
        assert_eq!(case.wait(), [Action::Qmp("quit")]);
        let Ending::GuestFailed { stage, reason } = case.ending() else { panic!("{what}") };
        assert!(stage == "identity" && reason.contains(what), "{reason}");
    }
}

#[test]
fn a_guest_that_is_late() {
    let mut case = Case::new();
    assert_eq!(case.wait(), [Action::Qmp("quit")]);
    assert_eq!(case.ending(), Ending::NotReadyInTime { seconds: 120 });
    assert_eq!(Case::ready().life.deadline(), None, "a ready guest has no deadline");
}

#[test]
fn kvm_that_stops_the_guest() {
    let mut case = Case::new();
    let stop = Message::Event { name: "STOP".to_owned(), data: Value::Null };
    assert_eq!(case.give(Input::Qmp(stop)), [Action::Qmp("query-status")]);
    assert_eq!(case.status("running"), []);
    assert_eq!(case.status("internal-error"), [Action::Kill]);
    assert!(case.life.kvm_cannot_run());
    assert_eq!(case.ending(), Ending::KvmCannotRun);

    let mut case = Case::ready();
    case.status("internal-error");
    assert!(!case.life.kvm_cannot_run(), "it did run");
    assert!(matches!(case.ending(), Ending::GuestFailed { .. }));
}

#[test]
fn a_guest_that_is_no_longer_wanted_is_not_tried_again() {
    let mut case = Case::new();
    case.give(Input::Stop("SIGINT"));
    case.status("internal-error");
    assert!(!case.life.kvm_cannot_run());
    assert_eq!(case.ending(), Ending::Stopped { by: "SIGINT", how: StopHow::Killed });
}

#[test]
fn what_a_guest_says_can_be_shown() {
    let mut case = Case::new();
    let identity = Identity { hostname: "a\u{1b}]0;b\u{7}".to_owned(), ..identity() };
    let actions = case.give(Input::Agent(Incoming::Event(Event::Ready { identity })));
    assert!(matches!(&actions[1], Action::Ready(identity) if identity.hostname == "a]0;b"), "{actions:?}");
    let registers = json!({"tee": "none", "registers": {"A\u{1b}": "\u{1b}[2J"}});
    let answer = Incoming::Answer { method: Method::Measurements, result: Ok(registers) };
    let actions = case.give(Input::Agent(answer));
    assert!(
        matches!(&actions[0], Action::Measured(measurements) if measurements.registers["A"] == "[2J"),
        "{actions:?}"
    );
    let flood: usize = (0..1000).map(|_| case.give(Input::Agent(Incoming::Unreadable("x".repeat(1000)))).len()).sum();
    assert_eq!(flood, 9);
}

#[test]
fn a_stop_before_the_handshake_is_found_by_asking() {
    let mut case = Case::new();
    let actions = case.give(Input::Qmp(Message::Reply { command: "qmp_capabilities", result: Ok(json!({})) }));
    assert_eq!(actions, [Action::Phase(Phase::Running), Action::Qmp("query-status")]);
}

#[test]
fn a_qemu_that_does_not_let_its_guest_run_is_ended() {
    for command in ["cont", "x-exit-preconfig"] {
        let mut case = Case::new();
        let refused = Message::Reply { command, result: Err("Resetting the Virtual Machine is required".to_owned()) };
        assert_eq!(case.give(Input::Qmp(refused)), [Action::Qmp("quit")]);
        assert_eq!(case.ending(), failed("start", "Resetting the Virtual Machine is required"));
    }
}

#[test]
fn stopping_goes_from_asking_to_killing() {
    let mut case = Case::ready();
    assert_eq!(case.give(Input::Stop("SIGTERM")), [Action::Phase(Phase::Stopping), Action::Ask(Method::PowerOff)]);
    case.shutdown("guest-shutdown");
    assert_eq!(case.ending(), Ending::Stopped { by: "SIGTERM", how: StopHow::PoweredOff });

    let mut case = Case::ready();
    case.give(Input::Stop("SIGTERM"));
    assert_eq!(case.life.deadline(), Some(case.now + Duration::from_secs(10)));
    assert_eq!(case.wait(), [Action::Qmp("quit")]);
    case.shutdown("host-qmp-quit");
    assert_eq!(case.ending(), Ending::Stopped { by: "SIGTERM", how: StopHow::Quit });
    assert_eq!(case.wait(), [Action::Kill]);
}

#[test]
fn an_impatient_stop() {
    let mut case = Case::ready();
    case.give(Input::Stop("SIGINT"));
    assert_eq!(case.give(Input::Stop("SIGINT")), [Action::Qmp("quit")]);
    assert_eq!(case.give(Input::Stop("SIGTERM")), [Action::Kill]);
    assert_eq!(case.ending(), Ending::Stopped { by: "SIGINT", how: StopHow::Killed });

    let mut case = Case::new();
    assert_eq!(case.give(Input::Stop("SIGHUP")), [Action::Phase(Phase::Stopping), Action::Qmp("quit")]);
    assert_eq!(case.ending(), Ending::Stopped { by: "SIGHUP", how: StopHow::Quit });
}

#[test]
fn a_guest_that_will_not_power_off() {
    let mut case = Case::ready();
    case.give(Input::Stop("SIGTERM"));
    let refusal = Incoming::Answer { method: Method::PowerOff, result: Err("no".to_owned()) };
    assert!(case.give(Input::Agent(refusal)).contains(&Action::Qmp("quit")));

    let mut case = Case::ready();
    case.give(Input::AgentClosed);
    assert!(case.give(Input::Stop("SIGTERM")).contains(&Action::Qmp("system_powerdown")));
}

#[test]
fn qemu_that_dies() {
    let case = Case::new();
    let ending = case.life.ending(ExitStatus::from_raw(11), vec!["qemu: no".to_owned()]);
    assert_eq!(
        ending.to_string(),
        "QEMU ended by itself (signal: 11 (SIGSEGV) (core dumped))\n  qemu: no".replace(" (core dumped)", "")
    );
    assert_eq!(ending.outcome(), Some(spec::Outcome::HostCannot));
}

/// A guest that says it is ready, of which `MEASUREMENT` is expected to be `aa`.
fn predicted(until_ready: bool) -> Case {
    let mut case = Case::new();
    case.life.terms.expected.measurements = vec![("MEASUREMENT".to_owned(), "aa".to_owned())];
    case.life.terms.until_ready = until_ready;
    let said = case.give(Input::Agent(Incoming::Event(Event::Ready { identity: identity() })));
    assert_eq!(said, [Action::Ask(Method::Measurements)], "nobody hears that it is ready");
    assert_eq!(case.life.deadline(), None, "the answer has a time of its own");
    case
}

fn registers(registers: Value) -> Input {
    let result = Ok(json!({"tee": "snp", "registers": registers}));
    Input::Agent(Incoming::Answer { method: Method::Measurements, result })
}

fn measured_otherwise(found: &str) -> Ending {
    let [register, expected, found] = ["MEASUREMENT", "aa", found].map(str::to_owned);
    Ending::MeasuredOtherwise { register, expected, found, simulation: None }
}

#[test]
fn a_guest_that_measures_otherwise_is_ended() {
    for until_ready in [false, true] {
        let mut case = predicted(until_ready);
        let actions = case.give(registers(json!({"MEASUREMENT": "ab", "HOST_DATA": "aa"})));
        assert!(matches!(actions[..], [Action::Measured(_), Action::Qmp("quit")]), "never ready: {actions:?}");
        case.shutdown("host-qmp-quit");
        assert_eq!(case.ending(), measured_otherwise("ab"));
        assert_eq!(case.ending().outcome(), Some(spec::Outcome::Refused));
        assert!(case.ending().hint().unwrap().contains("bullion explain --digest ab --against VM"));
        assert_eq!(case.wait(), [Action::Kill]);
    }
    // While it is stopped on request, it is still another guest.
    let mut case = predicted(false);
    case.give(Input::Stop("SIGTERM"));
    assert!(case.give(registers(json!({"MEASUREMENT": "ab"}))).contains(&Action::Qmp("quit")));
    assert_eq!(case.ending(), measured_otherwise("ab"));
    let mut case = predicted(false);
    case.give(registers(json!({"MEASUREMENT": "$(reboot)"})));
    assert_eq!(case.ending().hint(), None, "what a guest says is not offered as a command");
}

#[test]
fn a_guest_that_measures_as_predicted_goes_on() {
    let mut case = predicted(false);
    let actions = case.give(registers(json!({"MEASUREMENT": "AA"})));
    assert!(matches!(actions[..], [Action::Measured(_), Action::Phase(Phase::Ready), Action::Ready(_)]), "{actions:?}");
    case.shutdown("guest-shutdown");
    assert_eq!(case.ending(), Ending::GuestPoweredOff);
    let mut case = predicted(true);
    assert!(case.give(registers(json!({"MEASUREMENT": "aa"}))).contains(&Action::Ask(Method::PowerOff)));
    case.shutdown("guest-shutdown");
    assert!(matches!(case.ending(), Ending::Stopped { .. }));
}

#[test]
fn what_a_workload_does_is_heard_once_its_guest_was_compared() {
    let workload = |workload| Input::Agent(Incoming::Event(Event::Workload { workload }));
    let line = |number: usize| Input::Agent(Incoming::Event(Event::Output { line: number.to_string() }));
    let ended = Workload::Ended { exit_code: 3, restarts: 0 };
    let early = || {
        let mut case = predicted(false);
        assert_eq!(case.give(workload(Workload::Running { restarts: 0 })), []);
        assert_eq!((0..100).flat_map(|number| case.give(line(number))).collect::<Vec<_>>(), []);
        assert_eq!(case.give(workload(ended)), []);
        case
    };
    let mut case = early();
    let actions = case.give(registers(json!({"MEASUREMENT": "aa"})));
    assert_eq!(actions[3..5], [Action::Workload(ended), Action::Output("0".to_owned())]);
    assert_eq!(actions.iter().filter(|action| matches!(action, Action::Output(_))).count(), 64);
    assert!(matches!(actions.last(), Some(Action::Note(note)) if note.starts_with("36 lines")), "{actions:?}");
    assert_eq!(case.give(line(7)), [Action::Output("7".to_owned())]);
    case.shutdown("guest-shutdown");
    assert_eq!(case.ending(), Ending::WorkloadEnded { exit_code: 3 });
    let mut case = early();
    let actions = case.give(registers(json!({"MEASUREMENT": "ab"})));
    assert!(matches!(actions[..], [Action::Measured(_), Action::Qmp("quit")]), "{actions:?}");
    assert_eq!(case.give(line(8)), [], "another guest has no workload");
}

#[test]
fn a_guest_that_is_stopped_before_it_was_compared_is_asked_and_never_ready() {
    let mut case = predicted(false);
    assert_eq!(case.give(Input::Stop("SIGTERM")), [Action::Phase(Phase::Stopping), Action::Ask(Method::PowerOff)]);
    let actions = case.give(registers(json!({"MEASUREMENT": "aa"})));
    assert!(matches!(actions[..], [Action::Measured(_)]), "{actions:?}");
    case.shutdown("guest-shutdown");
    assert_eq!(case.ending(), Ending::Stopped { by: "SIGTERM", how: StopHow::PoweredOff });
}

#[test]
fn a_guest_that_does_not_tell_what_it_measures() {
    let not_told = "the guest did not tell MEASUREMENT: it was not compared";
    let silence = || Input::Agent(Incoming::Answer { method: Method::Measurements, result: Err("late".to_owned()) });
    let answers: [fn() -> Input; 3] =
        [|| registers(json!({"MRTD": "aa"})), || registers(json!("none")), || Input::AgentClosed];
    for answer in answers.map(|answer| answer()).into_iter().chain([silence()]) {
        let mut case = predicted(false);
        let actions = case.give(answer);
        let place = |wanted: fn(&Action) -> bool| actions.iter().position(wanted);
        let noted = place(|action| matches!(action, Action::Note(note) if note.contains("it was not compared")));
        let ready = place(|action| matches!(action, Action::Ready(_)));
        assert!(noted.is_some() && noted < ready, "it is said first: {actions:?}");
        assert!(actions.contains(&Action::Note(not_told.to_owned())));
        case.shutdown("guest-shutdown");
        assert_eq!(case.ending(), Ending::GuestPoweredOff);
    }
    for answer in answers.map(|answer| answer()).into_iter().chain([silence()]) {
        let mut case = predicted(true);
        let actions = case.give(answer);
        assert!(actions.contains(&Action::Note(not_told.to_owned())));
        assert!(!actions.iter().any(|action| matches!(action, Action::Ready(_))), "{actions:?}");
        case.shutdown("guest-shutdown");
        assert_eq!(case.ending(), failed("measurements", not_told));
    }
    assert_eq!(Case::ready().give(Input::AgentClosed), [], "nothing was predicted");
}

#[test]
fn a_guest_launched_until_it_is_ready_and_stopped_before_has_failed() {
    let mut case = Case::new();
    case.life.terms.until_ready = true;
    case.give(Input::Stop("SIGTERM"));
    assert_eq!(case.ending(), failed("boot", "stopped before it was ready"));
    case.shutdown("guest-shutdown");
    assert_eq!(case.ending(), failed("boot", "stopped before it was ready"));
    let mut case = Case::ready();
    case.life.terms.until_ready = true;
    case.give(Input::Stop("SIGTERM"));
    assert_eq!(case.ending(), Ending::Stopped { by: "SIGTERM", how: StopHow::Quit });
}

#[test]
fn a_guest_launched_until_it_is_ready_is_asked_to_power_off_then() {
    let measured = |result| Input::Agent(Incoming::Answer { method: Method::Measurements, result });
    for result in [Ok(json!({ "tee": "none", "registers": {} })), Err("timed out".to_owned())] {
        let mut case = Case::ready();
        case.life.terms.until_ready = true;
        let actions = case.give(measured(result.clone()));
        assert!(actions.iter().any(|action| matches!(action, Action::Ask(Method::PowerOff))), "{actions:?}");
        let mut case = Case::ready();
        let actions = case.give(measured(result));
        assert!(!actions.iter().any(|action| matches!(action, Action::Ask(_))), "{actions:?}");
    }
}

#[test]
fn a_workload_that_ends_ends_the_guest_and_its_exit_code_counts() {
    let said = |workload| Input::Agent(Incoming::Event(Event::Workload { workload }));
    for (exit_code, outcome) in [(0, None), (3, Some(spec::Outcome::GuestFailed))] {
        let mut case = Case::ready();
        let running = Workload::Running { restarts: 0 };
        assert_eq!(case.give(said(running)), [Action::Workload(running)]);
        let line = "a\t\u{1b}[2Jb".to_owned();
        let printed = case.give(Input::Agent(Incoming::Event(Event::Output { line })));
        assert_eq!(printed, [Action::Output("a\t[2Jb".to_owned())], "what is printed cannot take a terminal over");
        case.give(said(Workload::Ended { exit_code, restarts: 0 }));
        case.shutdown("guest-shutdown");
        assert_eq!(case.ending(), Ending::WorkloadEnded { exit_code });
        assert_eq!(case.ending().outcome(), outcome);
    }
    let mut early = Case::new();
    assert_eq!(early.give(said(Workload::Ended { exit_code: 0, restarts: 0 })), [], "before it is known who speaks");
    early.shutdown("guest-shutdown");
    assert!(matches!(early.ending(), Ending::GuestFailed { .. }));
}

#[test]
fn a_guest_that_falls_silent_is_ended_and_one_that_answers_is_not() {
    let mut case = Case::watched();
    let answered = |result| Input::Agent(Incoming::Answer { method: Method::Uptime, result });
    for _ in 0..10 {
        case.now += Duration::from_secs(10);
        assert_eq!(case.life.deadline(), Some(case.now));
        assert_eq!(case.give(Input::Tick), [Action::Ask(Method::Uptime)]);
        case.now += Duration::from_secs(1);
        assert_eq!(case.give(answered(Ok(json!({"uptime_ms": 7})))), []);
        case.now -= Duration::from_secs(1);
    }
    // Questions that time out are no answers.
    for _ in 0..3 {
        case.now += Duration::from_secs(10);
        assert_eq!(case.give(Input::Tick), [Action::Ask(Method::Uptime)]);
        case.give(answered(Err("the guest did not answer in time".to_owned())));
    }
    case.now += Duration::from_secs(2);
    assert_eq!(case.give(Input::Tick), [Action::Qmp("quit")]);
    let ending = case.life.ending(ExitStatus::from_raw(0), vec![]);
    assert_eq!(ending, Ending::GuestSilent { seconds: 30 });
    assert_eq!(ending.outcome(), Some(spec::Outcome::GuestFailed));
}

#[test]
fn a_guest_that_is_stopping_is_not_asked_any_more() {
    let mut case = Case::watched();
    case.give(Input::Stop("SIGTERM"));
    case.now += Duration::from_secs(9);
    assert_eq!(case.give(Input::Tick), []);
    assert_eq!(case.life.deadline(), Some(case.now + Duration::from_secs(1)));
}

fn network_over(perhaps_with_qemu: bool) -> Over {
    Over { nic: 0, perhaps_with_qemu, status: "exit status: 1".to_owned(), words: vec!["Failed to bind".to_owned()] }
}

#[test]
fn a_guest_whose_network_ends_is_asked_to_end_and_the_ending_says_why() {
    let mut case = Case::ready();
    let asked = [Action::Phase(Phase::Stopping), Action::Ask(Method::PowerOff)];
    assert_eq!(case.give(Input::NetworkEnded(network_over(false))), asked);
    let ending = case.life.ending(ExitStatus::from_raw(0), vec![]);
    assert_eq!(ending.outcome(), Some(spec::Outcome::HostCannot));
    let said = "passt, which speaks for NIC 0, ended by itself (exit status: 1)\n  Failed to bind";
    assert_eq!(ending.to_string(), said);
    let mut case = Case::new();
    let quit = [Action::Phase(Phase::Stopping), Action::Qmp("quit")];
    assert_eq!(case.give(Input::NetworkEnded(network_over(false))), quit, "one that is not ready has nothing to lose");
}

#[test]
fn a_network_that_closes_as_qemu_ends_says_nothing_unless_qemu_stays() {
    let mut case = Case::ready();
    assert_eq!(case.give(Input::NetworkEnded(network_over(true))), []);
    assert_eq!(
        case.life.ending(ExitStatus::from_raw(9), vec![]).to_string(),
        "QEMU ended by itself (signal: 9 (SIGKILL))"
    );
    case.now += CLOSED_GRACE;
    assert_eq!(case.life.deadline(), Some(case.now));
    assert_eq!(case.give(Input::Tick), [Action::Phase(Phase::Stopping), Action::Ask(Method::PowerOff)]);
    assert!(matches!(case.life.ending(ExitStatus::from_raw(0), vec![]), Ending::NetworkEnded { nic: 0, .. }));
    let mut stopping = Case::ready();
    stopping.give(Input::Stop("SIGTERM"));
    for perhaps_with_qemu in [true, false] {
        assert_eq!(stopping.give(Input::NetworkEnded(network_over(perhaps_with_qemu))), []);
    }
    stopping.now += CLOSED_GRACE;
    assert_eq!(stopping.give(Input::Tick), []);
}
