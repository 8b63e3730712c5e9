//! How a guest is ended: it is asked, then QEMU is told, then killed. Whoever wants it ended, these are the steps.

use std::time::{Duration, Instant};

use spec::agent::Method;

use super::{Action, Cause, Life, Stage};
use crate::network::Over;
use crate::state::Phase;

/// How long a guest that has failed may take to end by itself.
const FAILED_GRACE: Duration = Duration::from_secs(5);
/// How long QEMU may take to quit.
const QUIT_GRACE: Duration = Duration::from_secs(2);
/// How long QEMU may be there after who speaks for a NIC has ended as it does when QEMU is gone.
pub(super) const CLOSED_GRACE: Duration = Duration::from_secs(2);

impl Life {
    /// The guest cannot go on. It may end by itself, which shows more on its console; then QEMU is told to quit.
    pub(super) fn fail(&mut self, now: Instant, cause: Cause) -> Vec<Action> {
        self.cause.get_or_insert(cause);
        self.ready_deadline = None;
        if self.stage == Stage::None {
            self.stage = Stage::Asked;
            self.next_step = now.checked_add(FAILED_GRACE);
        }
        vec![]
    }

    /// The guest's kernel has panicked: the console says why, and a device of QEMU that it did; either may be first.
    pub(super) fn panicked(&mut self, now: Instant, words: Option<String>) -> Vec<Action> {
        if let Some(Cause::Panicked(known)) = &mut self.cause {
            *known = known.take().or(words);
            return vec![];
        }
        // As of one that hangs: what was to stop anyway has not failed, and is not started again for it.
        if self.stopped_by.is_some() {
            return vec![];
        }
        self.fail(now, Cause::Panicked(words))
    }

    /// The guest's watchdog has acted. QEMU has stopped the guest, so that nobody is left to be asked. One that was to stop anyway has
    /// not failed.
    pub(super) fn hung(&mut self, now: Instant) -> Vec<Action> {
        if self.stopped_by.is_none() {
            self.cause.get_or_insert(Cause::Hung);
        }
        self.ready_deadline = None;
        if self.stage < Stage::Quit { self.quit(now) } else { vec![] }
    }

    /// The guest goes on without a network, which is not what it was launched for: it is stopped like on request.
    pub(super) fn on_network_ended(&mut self, now: Instant, over: Over) -> Vec<Action> {
        match now.checked_add(CLOSED_GRACE).filter(|_| over.perhaps_with_qemu) {
            Some(deadline) => {
                self.closed.get_or_insert((over, deadline));
                vec![]
            }
            None if self.stage == Stage::None => self.end(now, Cause::NetworkEnded(over)),
            None => vec![],
        }
    }

    /// Ends a guest that may have something to lose.
    pub(super) fn end(&mut self, now: Instant, cause: Cause) -> Vec<Action> {
        self.cause.get_or_insert(cause);
        self.ready_deadline = None;
        let mut actions = vec![Action::Phase(Phase::Stopping)];
        actions.extend(self.next_stage(now));
        actions
    }

    pub(super) fn stop(&mut self, now: Instant, by: &'static str) -> Vec<Action> {
        self.ready_deadline = None;
        let first = self.stopped_by.is_none();
        self.stopped_by.get_or_insert(by);
        let mut actions = if first { vec![Action::Phase(Phase::Stopping)] } else { vec![] };
        actions.extend(self.next_stage(now));
        actions
    }

    /// The next step of a stop: ask the guest, tell QEMU, kill.
    pub(super) fn next_stage(&mut self, now: Instant) -> Vec<Action> {
        match self.stage {
            Stage::None if self.ready || self.claim.is_some() => {
                self.stage = Stage::Asked;
                self.next_step = now.checked_add(self.terms.stop_timeout);
                vec![if self.agent_open { Action::Ask(Method::PowerOff) } else { Action::Qmp("system_powerdown") }]
            }
            // A guest that is not ready has nothing to lose and nobody to ask.
            Stage::None | Stage::Asked => self.quit(now),
            Stage::Quit | Stage::Killed => self.kill(),
        }
    }

    pub(super) fn quit(&mut self, now: Instant) -> Vec<Action> {
        (self.next_question, self.silence_deadline) = (None, None);
        self.stage = Stage::Quit;
        self.next_step = now.checked_add(QUIT_GRACE);
        vec![Action::Qmp("quit")]
    }

    pub(super) fn kill(&mut self) -> Vec<Action> {
        self.stage = Stage::Killed;
        self.next_step = None;
        vec![Action::Kill]
    }
}
