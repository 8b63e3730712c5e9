//! `[snp]` and `[tdx]`: what the TEE lets the host do with the guest, beyond what Bullion asks of every one.
//!
//! Both are measured: POLICY and ATTRIBUTES are fields of the report and the quote. What weakens a guest has a name that says so.

use serde::{Deserialize, Serialize};

/// `[snp]`: bits of POLICY (AMD 56860, GUEST_POLICY). What is left out has the value of 0x30000: SMT is allowed, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SnpPolicy {
    /// Refuse to run on a host whose cores run two threads (bit 16 is cleared).
    #[serde(default)]
    pub forbid_smt: bool,
    /// Run on one socket only (bit 20).
    #[serde(default)]
    pub single_socket: bool,
    /// Refuse memory that is not encrypted by AES-256-XTS (bit 22).
    #[serde(default)]
    pub require_aes_256_xts: bool,
    /// Refuse a host that can read its power meters, from which keys can be guessed (bit 23, RAPL_DIS).
    #[serde(default)]
    pub forbid_power_meters: bool,
    /// Refuse a host that can see the ciphertext in DRAM (bit 24, CIPHERTEXT_HIDING_DRAM).
    #[serde(default)]
    pub require_ciphertext_hiding: bool,
    /// Let the host read and write the guest's memory (bit 19, DEBUG). The guest keeps no secret from it.
    #[serde(default)]
    pub dangerously_allow_debug: bool,
}

impl SnpPolicy {
    /// POLICY. Bit 17 is reserved and must be one.
    pub fn bits(self) -> u64 {
        let bits = [
            (!self.forbid_smt, 16),
            (true, 17),
            (self.dangerously_allow_debug, 19),
            (self.single_socket, 20),
            (self.require_aes_256_xts, 22),
            (self.forbid_power_meters, 23),
            (self.require_ciphertext_hiding, 24),
        ];
        bits.into_iter().map(|(set, bit)| u64::from(set) << bit).sum()
    }
}

/// `[tdx]`: bits of ATTRIBUTES (Intel 348549, ATTRIBUTES). SEPT_VE_DISABLE is always set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TdxAttributes {
    /// Let the host read and write the guest's memory (bit 0, DEBUG). The guest keeps no secret from it.
    #[serde(default)]
    pub dangerously_allow_debug: bool,
}

impl TdxAttributes {
    /// ATTRIBUTES.
    pub fn bits(self) -> u64 {
        1 << 28 | u64::from(self.dangerously_allow_debug)
    }
}
