//! Preset files: which unit is to be enabled (systemd.preset(5)).

use super::pattern::Pattern;
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
    lines: Vec<(Pattern, Answer)>,
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
        self.lines.iter().find(|(pattern, _)| pattern.fits(unit)).map_or(DEFAULT, |(_, answer)| answer)
    }
}

/// `enable PATTERN [INSTANCE]...`, `disable PATTERN`, `ignore PATTERN`.
fn preset(words: &[&str]) -> Option<(Pattern, Answer)> {
    let (pattern, answer) = match words {
        ["enable", pattern, instances @ ..] => {
            (pattern, Answer::Enable(instances.iter().map(|&instance| instance.to_owned()).collect()))
        }
        ["disable", pattern] => (pattern, Answer::Disable),
        ["ignore", pattern] => (pattern, Answer::Ignore),
        _ => return None,
    };
    Some((Pattern::parse(pattern)?, answer))
}
