//! RTMR3: events that the guest's own software extends at run time. The kernel keeps no log of them, so software does.

use crate::digest::Digest384;

/// The digest of a run-time event in the form that dstack made common: SHA-384 over the type (32 bits, little-endian), a
/// colon, the name, a colon, and the payload.
pub fn event_digest(event_type: u32, name: &str, payload: &[u8]) -> Digest384 {
    Digest384::of_parts(&[&event_type.to_le_bytes(), b":", name.as_bytes(), b":", payload])
}
