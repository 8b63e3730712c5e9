//! A replayed log beside the registers of a TDX quote or TDREPORT: whether the log is the whole story of that guest. The
//! quote's signature is not looked at, so a match says that the two belong together, not that either is true.

use std::path::{Path, PathBuf};

use measure::Digest384;
use measure::eventlog::EventLog;
use serde::Serialize;
use spec::Outcome;

use super::{Kind, kind};
use crate::evidence_file::{Content, EvidenceFile};
use crate::failure::Failure;
use crate::printer::Printer;

/// What software extends after the firmware's log has ended.
const AFTER_BOOT: [&str; 2] = ["RTMR2", "RTMR3"];

/// RTMR0 to RTMR3 of a log and of a quote.
#[derive(Serialize)]
pub(super) struct Compared {
    file: PathBuf,
    /// `TDX quote` or `TDREPORT`.
    kind: &'static str,
    matches: bool,
    registers: Vec<Register>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Register {
    name: String,
    log: String,
    quote: String,
    matches: bool,
    /// Whether the log has events for it at all.
    logged: bool,
}

impl Compared {
    /// Reads the quote at `path` and replays `log`, which was read from `log_file`.
    pub(super) fn new(path: &Path, log_file: &Path, log: &EventLog<'_>) -> Result<Self, Failure> {
        let evidence = EvidenceFile::read(path)?;
        let Content::Tdx(measurement) = &evidence.content else {
            let message = format!("{} is an {}, not a TDX quote or TDREPORT", path.display(), evidence.kind());
            return Err(Failure::new(Outcome::Usage, message));
        };
        if kind(log) != Kind::Tdx {
            let message = format!("{} is the log of a TPM: a TDX quote has no PCRs", log_file.display());
            return Err(Failure::new(Outcome::Usage, message)
                .with_hint("name the log of the guest itself, /sys/firmware/acpi/tables/data/CCEL"));
        }
        let failed = |error: measure::eventlog::ReplayError| {
            Failure::new(Outcome::InputMismatch, format!("{}: {error}", log_file.display()))
        };
        let replayed = log.replay().map_err(failed)?.rtmr;
        let registers = registers(&replayed, &measurement.rtmr);
        let matches = registers.iter().all(|register| register.matches);
        Ok(Self { file: path.to_owned(), kind: measurement.kind, matches, registers })
    }

    /// The exit code: 6 where the log is not what the registers were extended with.
    pub(super) fn code(&self) -> u8 {
        if self.matches { 0 } else { Outcome::Refused.code() }
    }

    pub(super) fn show(&self, printer: &Printer) {
        let (kind, file) = (self.kind, self.file.display());
        for register in self.registers.iter().filter(|register| !register.matches) {
            let name = &register.name;
            printer.line(format_args!("{name} differs: {} in the {kind}", register.quote));
            if !register.logged {
                printer.line(format_args!("      the log has no event for {name}: what was extended is not in it"));
            }
        }
        if self.matches {
            printer.line(format_args!("the log leads to the registers of the {kind} {file}"));
        } else {
            printer.line(format_args!("the log does not lead to the registers of the {kind} {file}"));
            let mut differing = self.registers.iter().filter(|register| !register.matches);
            if differing.all(|register| AFTER_BOOT.contains(&register.name.as_str())) {
                printer.note(
                    "RTMR2 and RTMR3 may have been extended after the log ended, by IMA or by the guest's software",
                );
            }
        }
        printer.note(format_args!("no signature was looked at: the {kind} is a claim too until it is verified"));
    }
}

fn registers(log: &[Digest384; 4], quote: &[Digest384; 4]) -> Vec<Register> {
    let pairs = (0..).zip(log.iter().zip(quote));
    let register = |(number, (log, quote)): (u32, (&Digest384, &Digest384))| Register {
        name: format!("RTMR{number}"),
        log: log.to_string(),
        quote: quote.to_string(),
        matches: log == quote,
        logged: *log != Digest384::ZERO,
    };
    pairs.map(register).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_that_was_never_logged_is_told_from_one_that_differs() {
        let (one, other) = (Digest384([1; 48]), Digest384([2; 48]));
        let compared = registers(&[one, Digest384::ZERO, Digest384::ZERO, one], &[one, Digest384::ZERO, other, other]);
        let found: Vec<_> = compared.iter().map(|register| (register.matches, register.logged)).collect();
        assert_eq!(found, [(true, true), (true, false), (false, false), (false, true)]);
        assert_eq!(compared[2].name, "RTMR2");
    }
}
