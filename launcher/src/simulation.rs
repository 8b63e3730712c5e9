//! What a simulated launch leaves behind: the simulator's report on what QEMU submitted.
//!
//! Nothing in it is evidence. It says what a secure processor would have measured.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::ending::Ending;

/// A report larger than this is not one.
const MAX_BYTES: u64 = 16 << 20;

/// The simulator's report.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationReport {
    /// Where it was written.
    pub path: PathBuf,
    /// All it says.
    pub values: Map<String, Value>,
}

/// Where the files are that the guest of a simulation read by fw_cfg, by the place of the report on it.
pub fn fw_cfg(report: &Path) -> PathBuf {
    report.with_file_name("fw_cfg")
}

impl SimulationReport {
    /// Reads the report at `path`.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(Self { path: path.to_owned(), values: serde_json::from_slice(&bytes)? })
    }

    /// Why the simulated secure processor or TDX module refused the launch, if it did.
    pub fn failed(&self) -> Option<&str> {
        self.values.get("failed")?.as_str()
    }

    /// The launch digest (SEV-SNP) or MRTD (TDX) in hex.
    pub fn digest(&self) -> Option<&str> {
        ["launch_digest", "mrtd"].iter().find_map(|key| self.values.get(*key)?.as_str())
    }

    /// How the launch ended, given what the TEE should have measured: at most one register.
    pub(crate) fn ending(self, expected: &[(String, String)]) -> Ending {
        if let (None, Some(found), Some((register, expected))) = (self.failed(), self.digest(), expected.first())
            && !found.eq_ignore_ascii_case(expected)
        {
            let (register, expected, found) = (register.clone(), expected.clone(), found.to_owned());
            return Ending::MeasuredOtherwise { register, expected, found, simulation: Some(self) };
        }
        Ending::Simulated { report: self }
    }
}
