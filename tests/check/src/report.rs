//! What the checks found, and how it is shown: one line a check, then every finding with its place.

/// A broken rule, or something worth knowing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, and the line where it is known: `image/src/lib.rs:12`.
    pub(crate) place: String,
    /// What is wrong there.
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

/// The outcome of one check.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How many things were looked at: a check that looked at nothing proves nothing, and is reported as broken.
    pub(crate) looked_at: usize,
    /// Broken rules.
    pub(crate) findings: Vec<Finding>,
    /// What is no fault, but worth knowing.
    pub(crate) notes: Vec<Finding>,
}

/// All checks in the order they ran.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: Vec<(&'static str, Outcome)>,
}

impl Report {
    pub(crate) fn add(&mut self, name: &'static str, mut outcome: Outcome) {
        if outcome.looked_at == 0 {
            outcome.findings.push(Finding::new("bullion-check", "this check looked at nothing"));
        }
        self.checks.push((name, outcome));
    }

    pub(crate) fn has_findings(&self) -> bool {
        self.checks.iter().any(|(_, outcome)| !outcome.findings.is_empty())
    }

    pub(crate) fn as_text(&self) -> String {
        let width = self.checks.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, outcome) in &self.checks {
            let verdict = match outcome.findings.len() {
                0 => "kept".to_owned(),
                count => format!("BROKEN in {count} places"),
            };
            text += &format!("{name:<width$}  {:>5} looked at  {verdict}\n", outcome.looked_at);
        }
        for (kind, pick) in [("broken", Outcome::findings as fn(&Outcome) -> &[Finding]), ("note", Outcome::notes)] {
            for (name, outcome) in &self.checks {
                for finding in pick(outcome) {
                    text += &format!("{kind}: {name}: {}: {}\n", finding.place, finding.message);
                }
            }
        }
        text
    }
}

impl Outcome {
    fn findings(&self) -> &[Finding] {
        &self.findings
    }

    fn notes(&self) -> &[Finding] {
        &self.notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_looked_at_nothing_is_broken() {
        let mut report = Report::default();
        report.add("empty", Outcome::default());
        assert!(report.has_findings());
        assert!(report.as_text().contains("looked at nothing"));
    }

    #[test]
    fn notes_do_not_break_anything() {
        let mut report = Report::default();
        let notes = vec![Finding::new("a", "b")];
        report.add("noted", Outcome { looked_at: 1, notes, ..Outcome::default() });
        assert!(!report.has_findings());
        assert!(report.as_text().contains("note: noted: a: b"));
    }
}
