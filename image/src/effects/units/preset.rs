//! Preset files: which unit is to be enabled (systemd.preset(5)).

use crate::effects::{EffectError, configuration};
use crate::tree::Tree;

/// What a preset says of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Enabled; a template with these instances.
    Enable(Vec<String>),
    Disable,
    /// Left as it is.
    Ignore,
}

/// The lines of all files in their order: the first that fits a unit counts.
#[derive(Debug, Default)]
pub(super) struct Presets {
    lines: Vec<(String, Answer)>,
}

impl Presets {
    pub(super) fn of(tree: &Tree, directory: &str) -> Result<Self, EffectError> {
        let mut presets = Self::default();
        for (path, text) in configuration(tree, directory, ".preset") {
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
                let words: Vec<&str> = line.split_whitespace().collect();
                presets.lines.push(preset(&words).ok_or_else(|| EffectError {
                    effect: "units",
                    path: path.clone(),
                    reason: format!("\"{line}\" is not understood"),
                })?);
            }
        }
        Ok(presets)
    }

    /// What is to become of `unit`; it is enabled where nothing speaks of it.
    pub(super) fn answer(&self, unit: &str) -> &Answer {
        const DEFAULT: &Answer = &Answer::Enable(Vec::new());
        self.lines.iter().find(|(pattern, _)| matches(pattern, unit)).map_or(DEFAULT, |(_, answer)| answer)
    }
}

/// `enable PATTERN [INSTANCE]...`, `disable PATTERN`, `ignore PATTERN`.
fn preset(words: &[&str]) -> Option<(String, Answer)> {
    let (pattern, answer) = match words {
        ["enable", pattern, instances @ ..] => {
            (pattern, Answer::Enable(instances.iter().map(|&instance| instance.to_owned()).collect()))
        }
        ["disable", pattern] => (pattern, Answer::Disable),
        ["ignore", pattern] => (pattern, Answer::Ignore),
        _ => return None,
    };
    // Sets of characters are in nobody's presets.
    (!pattern.contains(['[', '\\'])).then(|| ((*pattern).to_owned(), answer))
}

/// fnmatch(3) with `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut in_name) = (0, 0);
    // Where the last `*` was, and how much of the name it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match (pattern.get(at), star) {
            (Some(b'*'), _) => {
                star = Some((at, in_name));
                at += 1;
            }
            (Some(c), _) if *c == b'?' || name.get(in_name) == Some(c) => {
                (at, in_name) = (at + 1, in_name + 1);
            }
            (_, Some((last, taken))) => {
                star = Some((last, taken + 1));
                (at, in_name) = (last + 1, taken + 1);
            }
            _ => return false,
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_fnmatch() {
        for (pattern, name, fits) in [
            ("a.service", "a.service", true),
            ("*", "x", true),
            ("systemd-journal-remote.*", "systemd-journal-remote.socket", true),
            ("*.service", "a.socket", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("q?.service", "q1.service", true),
            ("q?.service", "q.service", false),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
