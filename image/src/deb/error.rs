//! Why a package cannot be read.

use spec::{Diagnostic, Outcome};

/// A .deb file that is damaged or holds what no package may hold.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The outer `ar` archive.
    #[error("the ar archive is damaged at byte {offset}: {reason}")]
    Archive {
        /// Where.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The members of the `ar` archive are not those of a package.
    #[error("found the member \"{found}\" where {expected} belongs")]
    Member {
        /// What deb(5) wants there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A compressed member cannot be decoded.
    #[error("cannot decode {member}")]
    Codec {
        /// The member.
        member: String,
        /// What the decoder said.
        source: std::io::Error,
    },
    /// A compressed member grows beyond every honest package.
    #[error("{member} of {packed} bytes unpacks to more than {limit} bytes")]
    Bomb {
        /// The member.
        member: String,
        /// Its size.
        packed: usize,
        /// How much was allowed.
        limit: u64,
    },
    /// The control file.
    #[error("the control file has no usable field \"{0}\"")]
    Control(&'static str),
    /// A tar archive is damaged.
    #[error("the tar archive is damaged")]
    Tar(#[source] std::io::Error),
    /// An entry that no package may have.
    #[error("the entry \"{path}\" {reason}")]
    Entry {
        /// Its path, as far as it can be shown.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl DebError {
    /// An error about the entry `path`.
    pub(crate) fn entry(path: &[u8], reason: impl Into<String>) -> Self {
        Self::Entry { path: String::from_utf8_lossy(path).escape_debug().to_string(), reason: reason.into() }
    }
}

impl Diagnostic for DebError {
    fn outcome(&self) -> Outcome {
        Outcome::InputMismatch
    }
}
