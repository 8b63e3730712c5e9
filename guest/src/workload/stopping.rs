//! That the workload is to end: said once by the supervisor, seen by the thread that runs it even while it pauses.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Whether it was said.
#[derive(Debug, Default)]
pub(super) struct Stopping {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Stopping {
    /// Says it.
    pub(super) fn ask(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether it was said.
    pub(super) fn asked(&self) -> bool {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses, no longer than until it is said; true where it was.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(asked, time, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_pause_ends_when_the_workload_is_to_end() {
        let stopping = Stopping::default();
        assert!(!stopping.pause(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let begun = Instant::now();
            let paused = scope.spawn(|| stopping.pause(Duration::from_secs(600)));
            stopping.ask();
            assert!(paused.join().unwrap());
            assert!(begun.elapsed() < Duration::from_secs(300));
        });
        assert!(stopping.asked());
    }
}
