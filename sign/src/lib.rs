//! Keys, and what is signed with them: one place, so that releases and SNP ID blocks are signed with the same key files.
//!
//! No clock and no network: what time it is comes in as an argument. Private keys are zeroized when dropped and show
//! nothing of themselves in `Debug`.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod dsse;
mod error;
mod key;
mod key_file;
mod release;
mod seen;
mod trust;

pub use dsse::{Envelope, EnvelopeError, pre_authentication_encoding};
pub use error::KeyError;
pub use key::{Algorithm, P384Point, P384Signature, PrivateKey, PublicKey};
pub use key_file::{PUBLIC_SUFFIX, public_path};
pub use release::{Rejection, VerifiedRelease, Wanted, sign_release, verify_release};
pub use seen::{Seen, SeenError};
pub use trust::{Trust, TrustError};
