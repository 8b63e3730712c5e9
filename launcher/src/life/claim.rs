//! From a guest that says it is ready to one that is: who it says it is, and what its registers hold, are compared first.
//!
//! What its workload does meanwhile is held back, so that nobody hears of a guest that turns out to be another one. A guest
//! that does not tell a register is let through, and that is said; what it tells passes through its host and is no evidence.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use spec::agent::{Identity, Measurements, Method};

use super::{ANOTHER_GUEST, Action, Cause, Life, QUESTIONS_IN_A_SILENCE, Stage, UNTIL_READY};
use crate::agent::one_line;
use crate::plan::Expected;
use crate::state::Phase;

/// How many lines of a workload are held back until its guest was compared: one that prints without end costs no more.
const MOST_HELD: usize = 64;

/// A guest that says it is ready.
#[derive(Debug)]
pub(super) struct Claim {
    identity: Identity,
    /// The last state of its workload, and the first lines.
    workload: Option<Action>,
    lines: Vec<Action>,
    dropped: usize,
}

impl Life {
    pub(super) fn on_ready(&mut self, now: Instant, identity: Identity) -> Vec<Action> {
        if self.ready || self.claim.is_some() || self.cause.is_some() || self.stage != Stage::None {
            return vec![];
        }
        if let Some(reason) = difference(&self.terms.expected, &identity) {
            return self.fail(now, Cause::Failed { stage: ANOTHER_GUEST.to_owned(), reason });
        }
        self.ready_deadline = None;
        self.awaits_measurements = true;
        self.claim = Some(Claim { identity, workload: None, lines: Vec::new(), dropped: 0 });
        // Where nothing is predicted there is nothing to wait for.
        let mut actions = if self.terms.expected.measurements.is_empty() { self.admit(now) } else { vec![] };
        actions.push(Action::Ask(Method::Measurements));
        actions
    }

    pub(super) fn on_measurements(&mut self, now: Instant, result: Result<Value, String>) -> Vec<Action> {
        self.awaits_measurements = false;
        let told =
            result.and_then(|value| serde_json::from_value::<Measurements>(value).map_err(|error| error.to_string()));
        let registers = told.as_ref().map_or_else(|_| BTreeMap::new(), |measurements| measurements.registers.clone());
        let registers = registers.iter().map(|(name, value)| (one_line(name), one_line(value))).collect();
        let then = self.settle(now, &registers);
        let mut actions = vec![match told {
            Ok(Measurements { tee, .. }) => Action::Measured(Measurements { tee, registers }),
            Err(error) => Action::Note(format!("the guest did not tell its measurements: {}", one_line(&error))),
        }];
        actions.extend(then);
        actions
    }

    /// The guest can tell nothing any more.
    pub(super) fn on_no_measurements(&mut self, now: Instant) -> Vec<Action> {
        if std::mem::take(&mut self.awaits_measurements) { self.settle(now, &BTreeMap::new()) } else { vec![] }
    }

    /// What a workload does, of a guest that is the one that was meant. Another one has no workload.
    pub(super) fn of_workload(&mut self, action: Action) -> Vec<Action> {
        match &mut self.claim {
            Some(claim) if matches!(action, Action::Workload(_)) => claim.workload = Some(action),
            Some(claim) if claim.lines.len() < MOST_HELD => claim.lines.push(action),
            Some(claim) => claim.dropped += 1,
            None if self.ready => return vec![action],
            None => {}
        }
        vec![]
    }

    /// What follows from the registers: an end, or a guest that is ready.
    fn settle(&mut self, now: Instant, registers: &BTreeMap<String, String>) -> Vec<Action> {
        let (same, mut actions) = self.compare(registers);
        if !same {
            self.claim = None;
            // Nothing it could still say is worth a wait.
            if self.stage < Stage::Quit {
                self.ready_deadline = None;
                actions.extend(self.quit(now));
            }
            return actions;
        }
        if self.cause.is_none() && self.stage == Stage::None {
            actions.extend(self.admit(now));
        }
        if self.terms.until_ready && self.shutdown.is_none() {
            actions.extend(self.stop(now, UNTIL_READY));
        }
        actions
    }

    /// Holds what the guest found in its registers against the prediction. Whether none is another, and what to say.
    fn compare(&mut self, found: &BTreeMap<String, String>) -> (bool, Vec<Action>) {
        let mut notes = Vec::new();
        for (register, expected) in &self.terms.expected.measurements {
            match found.get(register) {
                Some(found) if found.eq_ignore_ascii_case(expected) => {}
                Some(found) => {
                    let (register, expected, found) = (register.clone(), expected.clone(), found.clone());
                    // Whatever it said of itself before: a failure may be started again, another guest never.
                    self.cause = Some(Cause::MeasuredOtherwise { register, expected, found });
                    return (false, notes);
                }
                None => {
                    let reason = format!("the guest did not tell {register}: it was not compared");
                    if self.terms.until_ready {
                        let cause = Cause::Failed { stage: "measurements".to_owned(), reason: reason.clone() };
                        self.cause.get_or_insert(cause);
                    }
                    notes.push(Action::Note(reason));
                }
            }
        }
        (true, notes)
    }

    /// The guest that says it is ready is so.
    fn admit(&mut self, now: Instant) -> Vec<Action> {
        let Some(Claim { identity, workload, lines, dropped }) = self.claim.take() else { return vec![] };
        self.ready = true;
        if let Some(silence) = self.terms.watchdog {
            self.next_question = now.checked_add(silence / QUESTIONS_IN_A_SILENCE);
            self.silence_deadline = now.checked_add(silence);
        }
        // The guest chose these words, and people will see them.
        let identity = Identity {
            guest_version: one_line(&identity.guest_version),
            kernel_release: one_line(&identity.kernel_release),
            hostname: one_line(&identity.hostname),
            ..identity
        };
        let mut actions = vec![Action::Phase(Phase::Ready), Action::Ready(Box::new(identity))];
        actions.extend(workload.into_iter().chain(lines));
        if dropped > 0 {
            let what = format!("{dropped} lines of the workload came before the guest was compared, and are not shown");
            actions.push(Action::Note(what));
        }
        actions
    }
}

/// How the guest's word about itself differs from what was launched.
fn difference(expected: &Expected, identity: &Identity) -> Option<String> {
    let differs = |what: &str, expected: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
        Some(format!("the guest reports another {what}: expected {expected:?}, found {found:?}"))
    };
    if identity.root_hash != expected.root_hash {
        return differs("root hash", &expected.root_hash, &identity.root_hash);
    }
    if identity.tee != expected.tee {
        return differs("TEE", &expected.tee, &identity.tee);
    }
    if identity.configuration.binding != expected.binding {
        return differs("binding of its configuration", &expected.binding, &identity.configuration.binding);
    }
    if identity.configuration.digest != Some(expected.configuration) {
        return differs("configuration", &Some(expected.configuration), &identity.configuration.digest);
    }
    None
}
