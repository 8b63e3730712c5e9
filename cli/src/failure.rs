//! An error on its way to the user: what failed, why, what it means and what to do next.

use std::error::Error;

use spec::{Diagnostic, Outcome};

/// What a verb returns when it cannot do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The meaning, and so the exit code.
    pub(crate) outcome: Outcome,
    /// What failed, then its causes, outermost first.
    pub(crate) messages: Vec<String>,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure that no library error stands behind.
    pub(crate) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, messages: vec![message.into()], hint: None }
    }

    /// Adds or replaces the advice.
    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let outcome = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::IsADirectory | std::io::ErrorKind::NotADirectory => {
                Outcome::Usage
            }
            _ => Outcome::HostCannot,
        };
        Self::new(outcome, format!("{doing} {}: {error}", path.display()))
    }
}

impl<E: Diagnostic> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut messages = vec![error.to_string()];
        let mut cause: Option<&dyn Error> = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if messages.last().is_none_or(|last| !last.ends_with(&text)) {
                messages.push(text);
            }
            cause = inner.source();
        }
        Self { outcome: error.outcome(), messages, hint: error.hint() }
    }
}
