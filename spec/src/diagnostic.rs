//! What an error means to the person who ran the command: its exit code and the advice that goes with it.
//!
//! Libraries say which `Outcome` an error is; only the program turns it into an exit code and prints the hint.

/// The meaning of a failed command, and its exit code (README, "Exit codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// A fault of Bullion itself.
    Internal = 1,
    /// The command line, a recipe or a VM description is not usable as written.
    Usage = 2,
    /// The host cannot do this: a missing device, permission, program, or room on disk.
    HostCannot = 3,
    /// An input does not match its pin, or cannot be had.
    InputMismatch = 4,
    /// A signature or certificate chain is invalid or out of date.
    SignatureInvalid = 5,
    /// Authentic, but refused by policy or measurement.
    Refused = 6,
    /// The guest failed.
    GuestFailed = 7,
}

impl Outcome {
    /// The process exit code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// An error that knows what it means to the user. The text says what failed, on which file or device, what was expected
/// and what was found; advice is in `hint`, never in the text.
pub trait Diagnostic: std::error::Error {
    /// What the failure means, and so the exit code.
    fn outcome(&self) -> Outcome;

    /// What to do next, where that is known. One or two sentences, no trailing full stop needed.
    fn hint(&self) -> Option<String> {
        None
    }
}
