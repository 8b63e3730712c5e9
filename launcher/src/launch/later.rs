//! What the caller of a launch finds out beside it, in the time that QEMU needs until its guest could run.

use std::fmt;

use spec::{Diagnostic, Outcome};

/// What is found out while QEMU is started.
pub trait Later: fmt::Debug {
    /// What the TEE should measure, where `Options::more_is_expected`: a register and its value, as in `Options`. No guest runs before. Asked
    /// once and again.
    fn find_out(&self) -> Result<(String, String), Refusal>;
}

/// The caller's reason for which nothing is launched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What it means.
    pub outcome: Outcome,
    /// What was found.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Diagnostic for Refusal {
    fn outcome(&self) -> Outcome {
        self.outcome
    }
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
