//! MRTD: the TDX module's hash over TDH.MEM.PAGE.ADD and TDH.MR.EXTEND (Intel 348549, "MRTD").
//!
//! Written from the specification alone and on purpose not shared with anything that predicts measurements: it judges them.

use sha2::{Digest as _, Sha384};

/// The bytes that one TDH.MR.EXTEND covers.
const CHUNK_SIZE: usize = 256;

/// A running MRTD.
#[derive(Clone, Debug)]
pub(crate) struct Mrtd(Sha384);

impl Mrtd {
    /// The measurement of a TD that has just been initialised.
    pub(crate) fn new() -> Self {
        Self(Sha384::new())
    }

    /// TDH.MEM.PAGE.ADD: the address is measured, the content is not.
    pub(crate) fn add_page(&mut self, gpa: u64) {
        self.0.update(Self::operation(b"MEM.PAGE.ADD", gpa));
    }

    /// TDH.MR.EXTEND over all of a page.
    pub(crate) fn extend_page(&mut self, gpa: u64, content: &[u8]) {
        for (chunk, address) in content.chunks_exact(CHUNK_SIZE).zip((gpa..).step_by(CHUNK_SIZE)) {
            self.0.update(Self::operation(b"MR.EXTEND", address));
            self.0.update(chunk);
        }
    }

    /// TDH.MR.FINALIZE.
    pub(crate) fn finalize(&self) -> [u8; 48] {
        self.0.clone().finalize().into()
    }

    fn operation(name: &[u8], gpa: u64) -> [u8; 128] {
        let mut buffer = [0; 128];
        buffer.iter_mut().zip(name).for_each(|(place, byte)| *place = *byte);
        buffer.iter_mut().skip(16).zip(gpa.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        buffer
    }
}
