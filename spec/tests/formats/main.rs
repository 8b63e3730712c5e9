//! The file formats against files: what is accepted, what is refused and in which words, and that nothing panics.
//!
//! `bad/FORMAT/*.toml` is a shelf: each file says in its first lines which error, line and hint it must give, so a new
//! file is a new test. Good files are the ones this repository ships.

mod canonical;
mod foreign_text;
mod inheritance;
mod manifests;
#[cfg(feature = "schema")]
mod schemas;
mod shelf;
mod shipped;
