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
    /// What the host does, for the report.
    pub host: &'static str,
    /// The guest that it is done to.
    pub guest: Guest,
    /// How it is done.
    pub means: Means,
    /// What must come of it.
    pub outcome: Outcome,
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

    /// Carries out an attack; why it did not end as it must.
    pub fn carry_out(&mut self, attack: &Attack) -> Result<(), String> {
        let expected = self.bench.identity(attack.guest)?;
        match attack.means {
            Means::Before(change) => self.other_machine(attack, change, (idle, idle), &expected),
            Means::WhileStarting(change, act) => self.other_machine(attack, change, (act, idle), &expected),
            Means::OnceReady(change, act) => self.other_machine(attack, change, (idle, act), &expected),
            Means::Running(act) => self.while_running(attack, act, &expected),
        }
    }

    fn other_machine(
        &self,
        attack: &Attack,
        change: fn(&mut Setup),
        (early, late): (Act, Act),
        expected: &Identity,
    ) -> Result<(), String> {
        let mut setup = self.bench.setup(attack.guest)?;
        change(&mut setup);
        let mut machine = Machine::start(setup);
        early(&mut machine)?;
        let mut state = match attack.outcome {
            Outcome::NeverStarted => machine.wait_for_start_or_standstill(),
            _ => machine.wait_for_start(),
        };
        if state == State::Ready {
            late(&mut machine)?;
            state = settled(&mut machine, attack.outcome);
        }
        judge(&mut machine, state, attack.outcome, expected)
    }

    fn while_running(&mut self, attack: &Attack, act: Act, expected: &Identity) -> Result<(), String> {
        let machine = match self.running.take() {
            Some((guest, machine)) if guest == attack.guest => machine,
            _ => {
                let mut machine = Machine::start(self.bench.setup(attack.guest)?);
                let state = machine.wait_for_start();
                if state != State::Ready {
                    return Err(format!("the guest to attack is {state:?}: {}", machine.console()));
                }
                machine
            }
        };
        let (_, machine) = self.running.insert((attack.guest, machine));
        act(machine)?;
        let state = settled(machine, attack.outcome);
        let verdict = judge(machine, state, attack.outcome, expected);
        if state == State::Ended || verdict.is_err() {
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

fn judge(machine: &mut Machine, state: State, outcome: Outcome, expected: &Identity) -> Result<(), String> {
    match outcome {
        Outcome::NeverStarted => {
            if state != State::StandsStill {
                return Err(format!("the guest is {state:?}: {}", machine.console()));
            }
        }
        Outcome::Stopped { words, .. } => {
            let console = machine.console();
            if state != State::Ended {
                return Err(format!("the guest was not stopped but is {state:?}: {console}"));
            }
            if !console.contains(words) {
                return Err(format!("\"{words}\" is not on the console: {console}"));
            }
        }
        Outcome::NoEffect { words, .. } => {
            is_itself(machine, state, expected)?;
            let console = machine.console();
            if !console.contains(words) {
                return Err(format!("\"{words}\" is not on the console: {console}"));
            }
        }
        Outcome::Shows { .. } => {
            let found = is_ready(machine, state, expected)?;
            if found == *expected {
                return Err(format!("the guest does not show it: {found:?}"));
            }
        }
        Outcome::NotNoticed { .. } => is_itself(machine, state, expected)?,
    }
    Ok(())
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
