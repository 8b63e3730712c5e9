//! Launches from outside: plans as golden text, refusals, and whole lives of a VM.
//!
//! `toy` supervises a shell script that plays QEMU, so that every end of a guest can be had in milliseconds; `qemu` does
//! it with the real one where there is one.
#![allow(clippy::print_stderr, reason = "a test that is skipped says so, and the supervisor process reports here")]

mod fixture;
mod golden;
mod gpus;
mod hosts;
mod oracle;
mod prepare;
mod process;
mod qemu;
mod refusals;
mod snp_tables;
mod toy;
mod unit;
