//! Whether a guest that has ended is started again, and when: the policy of `[host.restart]`, without any I/O.
//!
//! A guest that measured otherwise than predicted, or is not the one that was meant, is never started again: what runs in its
//! place would be tried until nobody looks.

use std::time::Duration;

use spec::vm::{Restart, RestartPolicy};

use crate::ending::Ending;

/// A guest that has been ready for so long has not failed "in a row".
const STEADY: Duration = Duration::from_secs(600);
/// The longest pause, unless the description asks for a longer one.
const LONGEST_PAUSE_S: u64 = 60;

/// The restarts of one launch.
#[derive(Debug)]
pub(crate) struct Restarts {
    terms: Option<Restart>,
    in_a_row: u32,
}

/// What follows from an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It stays ended.
    End,
    /// It is started again after this time.
    Again(Duration),
    /// It would be, but was so often already.
    Enough(u32),
}

impl Restarts {
    pub(crate) fn new(terms: Option<Restart>) -> Self {
        Self { terms, in_a_row: 0 }
    }

    /// What follows from `ending`, of a guest that had been ready for `ready_for`.
    pub(crate) fn after(&mut self, ending: &Ending, ready_for: Duration) -> Next {
        let Some(terms) = self.terms.filter(|terms| matters(ending, terms.policy)) else { return Next::End };
        if ready_for >= STEADY {
            self.in_a_row = 0;
        }
        if self.in_a_row >= terms.limit {
            return Next::Enough(self.in_a_row);
        }
        let doubled = terms.delay_s.saturating_mul(1 << self.in_a_row.min(16));
        self.in_a_row += 1;
        Next::Again(Duration::from_secs(doubled.min(LONGEST_PAUSE_S.max(terms.delay_s))))
    }
}

fn matters(ending: &Ending, policy: RestartPolicy) -> bool {
    match ending {
        Ending::Stopped { .. } | Ending::Simulated { .. } | Ending::MeasuredOtherwise { .. } | Ending::KvmCannotRun => {
            false
        }
        Ending::GuestFailed { stage, .. } if stage == crate::life::ANOTHER_GUEST => false,
        Ending::GuestPoweredOff | Ending::WorkloadEnded { exit_code: 0 } => policy == RestartPolicy::Always,
        Ending::WorkloadEnded { .. }
        | Ending::GuestFailed { .. }
        | Ending::GuestPanicked { .. }
        | Ending::GuestReset
        | Ending::GuestSilent { .. }
        | Ending::GuestHung { .. }
        | Ending::NotReadyInTime { .. }
        | Ending::QemuDied { .. }
        | Ending::NetworkEnded { .. } => policy != RestartPolicy::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ending::StopHow;

    fn restarts(policy: RestartPolicy, limit: u32, delay_s: u64) -> Restarts {
        Restarts::new(Some(Restart { policy, limit, delay_s }))
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_end_at_the_limit() {
        let mut restarts = restarts(RestartPolicy::OnFailure, 9, 1);
        let pauses: Vec<_> = (0..9)
            .map(|_| match restarts.after(&Ending::GuestReset, Duration::ZERO) {
                Next::Again(pause) => pause.as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(restarts.after(&Ending::GuestReset, Duration::ZERO), Next::Enough(9));
        // One that ran for long enough begins anew.
        assert_eq!(restarts.after(&Ending::GuestReset, STEADY), Next::Again(Duration::from_secs(1)));
    }

    #[test]
    fn what_was_wanted_or_must_not_be_is_not_started_again() {
        let other = |stage: &str| Ending::GuestFailed { stage: stage.to_owned(), reason: String::new() };
        let measured = Ending::MeasuredOtherwise {
            register: "MEASUREMENT".to_owned(),
            expected: "aa".to_owned(),
            found: "ab".to_owned(),
            simulation: None,
        };
        let stopped = Ending::Stopped { by: "SIGTERM", how: StopHow::Quit };
        for ending in [stopped, measured, other("identity"), Ending::KvmCannotRun] {
            assert_eq!(restarts(RestartPolicy::Always, 5, 1).after(&ending, STEADY), Next::End, "{ending:?}");
        }
        for (ending, on_failure) in [
            (Ending::GuestPoweredOff, false),
            (Ending::WorkloadEnded { exit_code: 0 }, false),
            (Ending::WorkloadEnded { exit_code: 1 }, true),
            (other("verity"), true),
            (Ending::GuestSilent { seconds: 30 }, true),
            (Ending::GuestHung { seconds: 30 }, true),
        ] {
            let again = Next::Again(Duration::from_secs(1));
            assert_eq!(restarts(RestartPolicy::Always, 5, 1).after(&ending, STEADY), again);
            let next = restarts(RestartPolicy::OnFailure, 5, 1).after(&ending, STEADY);
            assert_eq!(next, if on_failure { again } else { Next::End }, "{ending:?}");
            assert_eq!(restarts(RestartPolicy::Never, 5, 1).after(&ending, STEADY), Next::End);
        }
        assert_eq!(Restarts::new(None).after(&Ending::GuestReset, STEADY), Next::End);
    }
}
