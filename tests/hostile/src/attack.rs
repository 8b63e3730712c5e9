//! An attack and what must come of it; how it is carried out and judged.

use std::time::Duration;

use spec::agent::Identity;

use crate::guests::{Bench, Guest};
use crate::machine::{Machine, State};
use crate::setup::Setup;

/// What the host does to a guest.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// A short name, unique in the whole suite.
    pub name: &'static str,
    /// What comes of it where the guest is of class release and has the compiled kernel.
    pub release: OnRelease,
    /// What the host does, for the report.
    pub host: &'static str,
    /// The guest that it is done to.
    pub guest: Guest,
    /// How it is done.
    pub means: Means,
    /// What must come of it.
    pub outcome: Outcome,
}

/// What comes of an attack on a guest of class release with the compiled kernel.
#[derive(Clone, Copy, Debug)]
pub enum OnRelease {
    /// It is not tried: the guest is another one, or what decides is `bullion-guest`, which is the same.
    Untried,
    /// The same as otherwise.
    Same,
    /// Something else.
    Other(Outcome),
}

/// The machine's tables are not those of any machine that a release names, so its kernel stops. Whatever changes them ends in these
/// words; behind them stand the number of the tables and the digest of all.
pub const OTHER_TABLES: OnRelease = OnRelease::Other(Outcome::Stopped {
    by: By::Kernel,
    words: "bullion: ACPI tables refused: no bullion.acpi= names them",
});

/// An attack on one guest.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Its name, for whoever watches.
    pub name: &'static str,
    /// The guest.
    pub guest: Guest,
    /// How the attack is done.
    pub means: Means,
    /// What must come of it.
    pub outcome: Outcome,
}

impl Attack {
    /// The attack on its guest, and on that of class release where it is tried there.
    pub fn trials(&self) -> impl Iterator<Item = Trial> {
        let Self { name, guest, means, outcome, .. } = *self;
        let on_release = match self.release {
            OnRelease::Untried => None,
            OnRelease::Same => Some(outcome),
            OnRelease::Other(other) => Some(other),
        };
        let release = on_release.map(|outcome| Trial { name, guest: Guest::Compiled, means, outcome });
        [Some(Trial { name, guest, means, outcome }), release].into_iter().flatten()
    }
}

/// How an attack is done.
#[derive(Clone, Copy, Debug)]
pub enum Means {
    /// The machine is another one from its start.
    Before(fn(&mut Setup)),
    /// The same, and something is done while the guest starts.
    WhileStarting(fn(&mut Setup), Act),
    /// The same, and something is done once the guest is ready; or it shows that the attack really took place.
    OnceReady(fn(&mut Setup), Act),
    /// Done to a guest that is ready. Attacks of one family share a guest for as long as it lives.
    Running(Act),
}

/// Something done to a machine; why it cannot be done.
pub type Act = fn(&mut Machine) -> Result<(), String>;

/// What must come of an attack.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Firmware does not start it. It has no words for that: it goes round in a loop.
    NeverStarted,
    /// The guest does not become ready, or does not live on; the console says why in these words.
    Stopped {
        /// Who stops it.
        by: By,
        /// Words of the console, of no other attack unless it is the same fact.
        words: &'static str,
    },
    /// The guest is ready and is who it should be: what the host did has no effect on it. With words, the console says
    /// that it was noticed.
    NoEffect {
        /// Why that is so.
        because: &'static str,
        /// What the guest says of it; empty where it says nothing.
        words: &'static str,
    },
    /// The guest is ready, and who asks it who it is sees the difference.
    Shows {
        /// What differs.
        what: &'static str,
    },
    /// The attack has its effect and the guest cannot tell: said as such.
    NotNoticed {
        /// What is against it elsewhere, or that nothing is.
        but: &'static str,
    },
}

/// Who stops a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The kernel.
    Kernel,
    /// `bullion-guest`.
    Guest,
}

/// How long a guest that was attacked while it ran may take to end.
const TO_END: Duration = Duration::from_secs(180);

/// Carries out attacks on guests of one test.
#[derive(Debug)]
pub struct Attacker<'a> {
    bench: &'a Bench,
    running: Option<(Guest, Machine)>,
}

impl<'a> Attacker<'a> {
    /// An attacker who has done nothing yet.
    pub fn new(bench: &'a Bench) -> Self {
        Self { bench, running: None }
    }

    /// Carries out an attack. What was said of it where it was stopped in words; why it did not end as it must.
    pub fn carry_out(&mut self, trial: &Trial) -> Result<Option<String>, String> {
        let expected = self.bench.identity(trial.guest)?;
        match trial.means {
            Means::Before(change) => self.other_machine(trial, change, (idle, idle), &expected),
            Means::WhileStarting(change, act) => self.other_machine(trial, change, (act, idle), &expected),
            Means::OnceReady(change, act) => self.other_machine(trial, change, (idle, act), &expected),
            Means::Running(act) => self.while_running(trial, act, &expected),
        }
    }

    fn other_machine(
        &self,
        trial: &Trial,
        change: fn(&mut Setup),
        (early, late): (Act, Act),
        expected: &Identity,
    ) -> Result<Option<String>, String> {
        let mut setup = self.bench.setup(trial.guest)?;
        change(&mut setup);
        let mut machine = Machine::start(setup);
        early(&mut machine)?;
        let mut state = match trial.outcome {
            Outcome::NeverStarted => machine.wait_for_start_or_standstill(),
            _ => machine.wait_for_start(),
        };
        if state == State::Ready {
            late(&mut machine)?;
            state = settled(&mut machine, trial.outcome);
        }
        judge(&mut machine, state, trial.outcome, expected)
    }

    fn while_running(&mut self, trial: &Trial, act: Act, expected: &Identity) -> Result<Option<String>, String> {
        let machine = match self.running.take() {
            Some((guest, machine)) if guest == trial.guest => machine,
            _ => {
                let mut machine = Machine::start(self.bench.setup(trial.guest)?);
                let state = machine.wait_for_start();
                if state != State::Ready {
                    return Err(format!("the guest to attack is {state:?}: {}", machine.console()));
                }
                machine
            }
        };
        let (_, machine) = self.running.insert((trial.guest, machine));
        let verdict = act(machine).and_then(|()| {
            let state = settled(machine, trial.outcome);
            judge(machine, state, trial.outcome, expected)
        });
        if machine.state() == State::Ended || verdict.is_err() {
            self.running = None;
        }
        verdict
    }
}

fn idle(_: &mut Machine) -> Result<(), String> {
    Ok(())
}

/// What the machine has come to, once it had the time to come to what it must.
fn settled(machine: &mut Machine, outcome: Outcome) -> State {
    match outcome {
        Outcome::Stopped { .. } => machine.wait_for_end(TO_END),
        _ => machine.state(),
    }
}

fn judge(machine: &mut Machine, state: State, outcome: Outcome, expected: &Identity) -> Result<Option<String>, String> {
    match outcome {
        Outcome::NeverStarted if state != State::StandsStill => {
            Err(format!("the guest is {state:?}: {}", machine.console()))
        }
        Outcome::NeverStarted => Ok(None),
        Outcome::Stopped { .. } if state != State::Ended => {
            Err(format!("the guest was not stopped but is {state:?}: {}", machine.console()))
        }
        Outcome::Stopped { words, .. } => said(machine, words).map(Some),
        Outcome::NoEffect { words, .. } => {
            is_itself(machine, state, expected)?;
            said(machine, words).map(|_| None)
        }
        Outcome::Shows { .. } => {
            let found = is_ready(machine, state, expected)?;
            if found == *expected { Err(format!("the guest does not show it: {found:?}")) } else { Ok(None) }
        }
        Outcome::NotNoticed { .. } => is_itself(machine, state, expected).map(|()| None),
    }
}

/// The rest of the console's line from `words` on.
fn said(machine: &Machine, words: &str) -> Result<String, String> {
    let console = machine.console();
    match console.find(words).and_then(|at| console[at..].lines().next()) {
        _ if words.is_empty() => Ok(String::new()),
        Some(line) => Ok(line.to_owned()),
        None => Err(format!("\"{words}\" is not on the console: {console}")),
    }
}

/// The guest lives and answers, with who it is; its uptime, which is another at each boot, as in `expected`.
fn is_ready(machine: &mut Machine, state: State, expected: &Identity) -> Result<Identity, String> {
    if state != State::Ready {
        return Err(format!("the guest is {state:?}: {}", machine.console()));
    }
    Ok(Identity { uptime_ms: expected.uptime_ms, ..machine.identity()? })
}

/// The guest is who it was without the attack.
fn is_itself(machine: &mut Machine, state: State, expected: &Identity) -> Result<(), String> {
    let found = is_ready(machine, state, expected)?;
    if found == *expected { Ok(()) } else { Err(format!("the guest is {found:?}, expected {expected:?}")) }
}
