//! Predictions beside logs that firmware wrote: a real OVMF measures a real boot into a TPM, and neither is ours.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

mod boots;
mod memory;
mod predicted;
mod secure_boot;
mod tdx_firmware;
