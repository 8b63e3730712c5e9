//! Evidence as bytes: the layouts of the SNP attestation report, of the TDX TDREPORT and of the TDX quote.
//!
//! **Parsed is not authentic.** Nothing here checks a signature, a MAC, a certificate or a clock: a report that parses may
//! have been written by anyone. A guest that asks its own TEE for a report may rely on the kernel for that; everybody else
//! must verify first, which is left to later modules.
//!
//! No I/O, no clock, and no panic on any input. Layouts are structures whose sizes and offsets the compiler checks against
//! the vendors' tables.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod snp;
pub mod tdx;
