//! Which trusted execution environment a guest runs in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The TEE of a guest, as written in `vm.toml` and on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// No TEE: an ordinary virtual machine that can prove nothing.
    None,
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tee::None => "none",
            Tee::Snp => "snp",
            Tee::Tdx => "tdx",
        })
    }
}
