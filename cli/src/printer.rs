//! The one place that writes to the terminal: data to stdout, everything else to stderr, colour and progress only where
//! a person looks.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::Failure;

/// Writes what the user sees.
pub(crate) struct Printer {
    json: bool,
    quiet: bool,
    colour: bool,
    bar: RefCell<Option<ProgressBar>>,
}

impl Printer {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let colour =
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, quiet, colour, bar: RefCell::new(None) }
    }

    /// Whether the caller wants JSON on stdout and nothing else there.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// One line of data for people. Says nothing under `--json`, where `value` carries the data.
    pub(crate) fn line(&self, text: impl Display) {
        if !self.json {
            out(format!("{}\n", printable(&text.to_string())).as_bytes());
        }
    }

    /// The data of a verb for machines. Says nothing without `--json`.
    pub(crate) fn value(&self, value: &impl Serialize) {
        if self.json {
            match serde_json::to_string_pretty(value) {
                Ok(text) => out(format!("{text}\n").as_bytes()),
                Err(error) => self.warning(format_args!("cannot write JSON: {error}")),
            }
        }
    }

    /// Raw bytes to stdout, whatever the mode.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        out(bytes);
    }

    /// What is going on; silenced by `--quiet`.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            self.above_bar(&printable(&text.to_string()));
        }
    }

    /// Something the user must know although the command goes on.
    pub(crate) fn warning(&self, text: impl Display) {
        self.above_bar(&format!("{} {}", self.paint("33;1", "warning:"), printable(&text.to_string())));
    }

    /// The end of a verb that failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.text_failure(failure);
        self.value(&serde_json::json!({ "error": {
            "outcome": format!("{:?}", failure.outcome),
            "exit_code": failure.outcome.code(),
            "messages": failure.messages,
            "hint": failure.hint,
        }}));
    }

    /// A failure as text only, for a verb that has JSON of its own to print.
    pub(crate) fn text_failure(&self, failure: &Failure) {
        let (first, causes) =
            failure.messages.split_first().map_or(("unknown failure", &[][..]), |(first, rest)| (first, rest));
        self.above_bar(&format!("{} {}", self.paint("31;1", "error:"), printable(first)));
        for cause in causes {
            self.above_bar(&format!("  {}", printable(cause)));
        }
        if let Some(hint) = &failure.hint {
            self.above_bar(&format!("{} {}", self.paint("36;1", "hint:"), printable(hint)));
        }
    }

    /// Starts a progress bar over `bytes`; drawn on a terminal only.
    pub(crate) fn start_bar(&self, bytes: u64, files: usize) {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(bytes), target);
        let template = "  {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(format!("{files} files"));
        bar.enable_steady_tick(Duration::from_millis(200));
        *self.bar.borrow_mut() = Some(bar);
    }

    /// Starts a progress bar over so many things to try; drawn on a terminal only.
    pub(crate) fn start_count(&self, things: usize) {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(things as u64), target);
        bar.set_style(
            ProgressStyle::with_template("  {bar:30} {pos}/{len}").unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        *self.bar.borrow_mut() = Some(bar);
    }

    /// Moves the bar.
    pub(crate) fn advance_bar(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.inc(bytes);
        }
    }

    /// Moves the bar back: what had arrived was thrown away.
    pub(crate) fn rewind_bar(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.set_position(bar.position().saturating_sub(bytes));
        }
    }

    /// Removes the bar.
    pub(crate) fn end_bar(&self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn above_bar(&self, text: &str) {
        match &*self.bar.borrow() {
            Some(bar) if !bar.is_hidden() => bar.println(text),
            // Nobody can be told that nobody can be told.
            _ => drop(writeln!(std::io::stderr(), "{text}")),
        }
    }
}

/// Texts hold names and words that somebody else wrote: what could drive a terminal is shown as a replacement character.
fn printable(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Writes to stdout. A reader that went away (`bullion ps | head`) ends the program quietly, as it does for other tools;
/// anything else that keeps data from its reader is a failure of the host.
fn out(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: writing standard output: {error}");
            std::process::exit(spec::Outcome::HostCannot.code().into());
        }
    }
}

/// A size for people: `151 B`, `14.0 kB`, `13.0 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let tenths = |unit: u64| (bytes + unit / 20) / (unit / 10);
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{}.{} kB", tenths(1000) / 10, tenths(1000) % 10),
        _ => format!("{}.{} MB", tenths(1_000_000) / 10, tenths(1_000_000) % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_drive_a_terminal_is_not_printed() {
        assert_eq!(printable("a\x1b[31mb\r\n\tc\u{9b}d"), "a\u{fffd}[31mb\u{fffd}\n\tc\u{fffd}d");
    }

    #[test]
    fn sizes_have_the_unit_that_fits() {
        let sizes =
            [(999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (1_000_000, "1.0 MB"), (14_012_345, "14.0 MB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
