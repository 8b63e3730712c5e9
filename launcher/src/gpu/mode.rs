//! The modes a device can be in, asked for, or found in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A mode that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// No confidential computing.
    Off,
    /// Confidential computing. On Hopper: one GPU for one VM.
    On,
    /// Confidential computing with debugging open: for development, attested as such.
    Devtools,
    /// Protected PCIe: all GPUs and NVSwitches of a Hopper board in one VM.
    Ppcie,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Devtools => "devtools",
            Self::Ppcie => "ppcie",
        })
    }
}

/// A mode that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActiveMode {
    /// One of the modes there are.
    Valid(Mode),
    /// Development tools without confidential computing: left by an interrupted tool. Setting any mode mends it.
    Invalid,
}

impl fmt::Display for ActiveMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid(mode) => mode.fmt(f),
            Self::Invalid => f.write_str("invalid"),
        }
    }
}
