//! `[topology]`: how a guest's vCPUs are arranged. A part of the machine: in a TDX guest RTMR0 says so, by the tables that tell it.

use serde::{Deserialize, Serialize};

/// How vCPUs are arranged in sockets, cores and threads; there are as many cores as that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// Sockets (default 1).
    #[serde(default = "one")]
    pub sockets: u32,
    /// Threads of a core (default 1).
    #[serde(default = "one")]
    pub threads: u32,
}

fn one() -> u32 {
    1
}

impl Default for Topology {
    fn default() -> Self {
        Self { sockets: 1, threads: 1 }
    }
}

impl Topology {
    /// The cores of a socket; none where so many vCPUs cannot be arranged like this.
    pub fn cores(self, vcpus: u32) -> Option<u32> {
        let apart = self.sockets.checked_mul(self.threads).filter(|apart| *apart > 0)?;
        vcpus.is_multiple_of(apart).then(|| vcpus / apart).filter(|cores| *cores > 0)
    }
}
