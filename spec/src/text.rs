//! Reading TOML so that every mistake is reported with file, line and, where one is near, a suggestion.

use serde::de::DeserializeOwned;

use crate::diagnostic::{Diagnostic, Outcome};

/// A file that is not what it should be: bad syntax, an unknown key, a value of the wrong kind, a contradiction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {message}", .line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct SyntaxError {
    /// The file as the user named it.
    pub file: String,
    /// The line, from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

impl SyntaxError {
    /// An error about the whole file.
    pub fn whole(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, message: message.into(), suggestion: None }
    }

    /// An error about the line of `text` that mentions `needle`, or about the whole file where there is none.
    pub fn at(file: &str, text: &str, needle: &str, message: impl Into<String>) -> Self {
        Self { line: line_of(text, needle), ..Self::whole(file, message) }
    }

    /// Adds what was probably meant: the nearest of `known` to `found`, where one is near.
    #[must_use]
    pub fn suggesting<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.suggestion = nearest(found, known).map(|name| format!("did you mean \"{name}\"?"));
        self
    }
}

impl Diagnostic for SyntaxError {
    fn outcome(&self) -> Outcome {
        Outcome::Usage
    }
    fn hint(&self) -> Option<String> {
        self.suggestion.clone()
    }
}

/// The first line, from 1, that has `needle` as a whole word ("cpu" is not in "vcpus"), else the first that has it at
/// all. Comment lines do not count.
pub(crate) fn line_of(text: &str, needle: &str) -> Option<usize> {
    let within_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '+');
    let whole_word = |line: &str| {
        line.match_indices(needle).any(|(start, found)| {
            let before = line.get(..start).and_then(|head| head.chars().next_back());
            let after = line.get(start + found.len()..).and_then(|tail| tail.chars().next());
            !before.is_some_and(within_word) && !after.is_some_and(within_word)
        })
    };
    let position = |wanted: &dyn Fn(&str) -> bool| {
        text.lines().position(|line| !line.trim_start().starts_with('#') && wanted(line)).map(|index| index + 1)
    };
    position(&whole_word).or_else(|| position(&|line| line.contains(needle)))
}

/// The nearest of `known` to `found`, if it is near enough to be a slip of the keyboard.
pub(crate) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(found, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// Reads a TOML document into `T`; `file` is used in messages only.
pub(crate) fn from_toml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, SyntaxError> {
    toml::from_str(text).map_err(|error| {
        let message = error.message().trim().to_owned();
        // What is missing at the top level is missing from the file, not from its first line.
        let span = error.span().filter(|span| span.start > 0 || !message.starts_with("missing field"));
        let line = span.map(|span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        let suggestion = suggest(&message);
        SyntaxError { file: file.to_owned(), line, message, suggestion }
    })
}

/// The suggestion behind serde's "unknown field `x`, expected one of `a`, `b`".
fn suggest(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("unknown field `").or_else(|| message.split_once("unknown variant `"))?;
    let (found, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2);
    nearest(found, known).map(|name| format!("did you mean \"{name}\"?"))
}
