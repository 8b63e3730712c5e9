//! What `explain` answers: equal, different, or that it cannot be told; the registers, the differences, and the reasons.

use std::path::PathBuf;

use serde::Serialize;
use spec::Outcome;

use crate::args::Explain;
use crate::failure::Failure;
use crate::printer::Printer;

/// What was compared.
#[derive(Serialize)]
pub(super) struct Subject {
    pub(super) file: Option<PathBuf>,
    pub(super) kind: &'static str,
}

/// The answer. A missing reference is never a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// All that was compared is as expected.
    Equal,
    /// Something is not.
    Differs,
    /// Nothing that was compared differs, and something could not be compared.
    CannotTell,
}

/// A register.
#[derive(Serialize)]
pub(super) struct Register {
    pub(super) name: String,
    pub(super) found: String,
    /// Null where it is not known.
    pub(super) expected: Option<String>,
    pub(super) verdict: Verdict,
}

impl Register {
    pub(super) fn new(name: impl Into<String>, found: String, expected: Option<String>) -> Self {
        let verdict = match &expected {
            None => Verdict::CannotTell,
            Some(expected) if *expected == found => Verdict::Equal,
            Some(_) => Verdict::Differs,
        };
        Self { name: name.into(), found, expected, verdict }
    }
}

/// Why a guest that was given a configuration is not simply as expected.
pub(super) const UNKNOWN_CONFIGURATION: &str =
    "the guest was given a configuration: whether it is the right one is told against a vm.toml, not against an image";

/// One difference, or one thing that is not known.
#[derive(Clone, Default, Serialize)]
pub(super) struct Row {
    /// The input behind it, for machines.
    pub(super) input: String,
    /// `differs`, `missing`, `unexpected` or `unknown`.
    pub(super) kind: &'static str,
    /// The register, where it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) register: Option<String>,
    /// The event in the log, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) event: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) found: Option<String>,
    /// What the input was, where that is known: a number, a name, a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<serde_json::Value>,
    /// For people.
    pub(super) text: String,
    /// What is known beyond that: sizes, names, the words of a line that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) details: Vec<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    pub(super) subject: Subject,
    pub(super) against: PathBuf,
    /// Set by `tell`.
    verdict: Option<Verdict>,
    /// No signature was verified.
    authenticity_verified: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) registers: Vec<Register>,
    pub(super) differences: Vec<Row>,
    /// What could not be compared.
    pub(super) unknown: Vec<Row>,
    /// Why something could not be compared.
    pub(super) reasons: Vec<String>,
    /// Fields that count too, and that the verdict says nothing about: the evidence does not have them, or nobody knows what they should
    /// be.
    pub(super) not_compared: Vec<&'static str>,
}

impl Answer {
    pub(super) fn new(subject: Subject, verb: &Explain) -> Self {
        Self {
            subject,
            against: verb.against.clone(),
            verdict: None,
            authenticity_verified: false,
            registers: Vec::new(),
            differences: Vec::new(),
            unknown: Vec::new(),
            reasons: Vec::new(),
            not_compared: Vec::new(),
        }
    }

    fn verdict(&self) -> Verdict {
        let any = |verdict| self.registers.iter().any(|register| register.verdict == verdict);
        if !self.differences.is_empty() || any(Verdict::Differs) {
            Verdict::Differs
        } else if !self.unknown.is_empty() || any(Verdict::CannotTell) {
            Verdict::CannotTell
        } else {
            Verdict::Equal
        }
    }

    /// Prints the answer; the exit code says it too.
    pub(super) fn tell(mut self, printer: &Printer) -> Result<u8, Failure> {
        let verdict = self.verdict();
        self.verdict = Some(verdict);
        for register in &self.registers {
            let text = match (register.verdict, &register.expected) {
                (Verdict::Equal, _) => "as expected".to_owned(),
                (_, Some(expected)) => format!("{}\n        expected {expected}", register.found),
                (_, None) => format!("{}\n        not predicted", register.found),
            };
            printer.line(format_args!("{:<7} {text}", register.name));
        }
        for row in &self.differences {
            show("because", row, printer);
        }
        for row in &self.unknown {
            show("unknown", row, printer);
        }
        self.reasons.iter().for_each(|reason| printer.note(reason));
        let first = self.differences.iter().filter_map(|row| row.event).min();
        printer.line(match (verdict, first) {
            (Verdict::Equal, _) if self.not_compared.is_empty() => "as expected".to_owned(),
            (Verdict::Equal, _) => {
                format!("as expected, as far as it was compared: nothing is said of {}", self.not_compared.join(", "))
            }
            (Verdict::Differs, None) => "not as expected".to_owned(),
            (Verdict::Differs, Some(event)) => format!("not as expected: event {event} is the first that differs"),
            (Verdict::CannotTell, _) => "cannot tell: not all that counts is predicted".to_owned(),
        });
        printer.value(&self);
        Ok(match verdict {
            Verdict::Equal => 0,
            Verdict::Differs => Outcome::Refused.code(),
            Verdict::CannotTell => Outcome::InputMismatch.code(),
        })
    }
}

fn show(word: &str, row: &Row, printer: &Printer) {
    let place = match (row.event, &row.register) {
        (Some(event), Some(register)) => format!("event {event} ({register}): "),
        (None, Some(register)) => format!("{register}: "),
        _ => String::new(),
    };
    printer.line(format_args!("{word} {place}{}", row.text));
    row.details.iter().for_each(|detail| printer.line(format_args!("        {detail}")));
}
