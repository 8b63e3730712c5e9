//! What somebody typed and nobody has taken up yet: bounded, and wiped, since a password may be in it.
//!
//! It is between two descriptors that take bytes at different speeds: a terminal or client on one side, QEMU's serial port or
//! the supervisor on the other. Nothing here is ever logged; what the guest echoes is the guest's word, and is.

use std::fmt;
use std::io::{ErrorKind, Write};

use zeroize::{Zeroize as _, Zeroizing};

/// How much is kept: a screenful of pasted text.
const MAX_BYTES: usize = 16 << 10;

/// Bytes that were typed, in their order.
pub(crate) struct Typed {
    // Made as large as it will ever be: growing would leave copies behind.
    bytes: Zeroizing<Vec<u8>>,
}

impl Typed {
    pub(crate) fn new() -> Self {
        Self { bytes: Zeroizing::new(Vec::with_capacity(MAX_BYTES)) }
    }

    /// Adds what was typed, and says how much of it found no room.
    pub(crate) fn push(&mut self, typed: &[u8]) -> usize {
        let (kept, dropped) = typed.split_at(typed.len().min(MAX_BYTES - self.bytes.len()));
        self.bytes.extend_from_slice(kept);
        dropped.len()
    }

    /// Whether all of it was taken up.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Gives `sink`, which does not block, as much as it takes. What is for a sink that is gone is thrown away.
    pub(crate) fn write_to(&mut self, sink: &mut impl Write) {
        while !self.bytes.is_empty() {
            match sink.write(&self.bytes) {
                Ok(written) if written > 0 => self.forget(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => self.forget(self.bytes.len()),
            }
        }
    }

    fn forget(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        let left = self.bytes.len() - count;
        self.bytes.rotate_left(count);
        if let Some(taken) = self.bytes.get_mut(left..) {
            taken.zeroize();
        }
        self.bytes.truncate(left);
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Typed({} bytes)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Takes three bytes at a time, ten in all, and then no more for now.
    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(3).min(10 - self.0.len());
            self.0.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_lost_before_the_bound_and_nothing_is_shown() {
        let mut typed = Typed::new();
        assert_eq!(typed.push(b"the password is 1234"), 0);
        let mut slow = Slow(Vec::new());
        typed.write_to(&mut slow);
        assert_eq!(slow.0, b"the passwo");
        assert!(!typed.is_empty());
        assert_eq!(format!("{typed:?}"), "Typed(10 bytes)");
        let mut rest = Vec::new();
        typed.write_to(&mut rest);
        assert_eq!(rest, b"rd is 1234");
        assert!(typed.is_empty());
        let before = typed.bytes.as_ptr();
        assert_eq!(typed.push(&[b'x'; MAX_BYTES + 7]), 7);
        assert_eq!(typed.bytes.as_ptr(), before, "it has not grown");
    }
}
