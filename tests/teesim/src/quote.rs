//! A TD that asks for a quote by TDG.VP.VMCALL<GetQuote> (Intel GHCI 1.5, section 3.3): QEMU takes the TDREPORT from shared memory
//! to the quote generation service, and puts there what that answers.

use std::time::{Duration, Instant};

use serde::Serialize;
use sha2::{Digest as _, Sha384};

use crate::firmware::Memory;
use crate::report::{as_hex, as_number};

/// Where the shared buffer is, in memory that every guest has, and its size, which is Linux's (`GET_QUOTE_BUF_SIZE`).
const BUFFER: u64 = 32 << 20;
const BUFFER_BYTES: usize = 8 << 10;
/// Version, status, and the lengths of what goes in and comes out.
const HEADER_BYTES: usize = 24;
const VERSION: u64 = 1;
/// GET_QUOTE_IN_FLIGHT.
const IN_FLIGHT: u64 = u64::MAX;
/// The size of a TDREPORT.
const TDREPORT_BYTES: u32 = 1024;
/// A service that takes longer does not answer at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    /// What the call returned: 0, or an error of GHCI, with which the rest is zero.
    #[serde(serialize_with = "as_number")]
    pub(crate) returned: u64,
    /// The status in the buffer: 0, or an error of GHCI.
    #[serde(serialize_with = "as_number")]
    pub(crate) status: u64,
    /// The size of the quote.
    pub(crate) size: usize,
    /// Its SHA-384.
    #[serde(serialize_with = "as_hex")]
    pub(crate) sha384: [u8; 48],
}

/// What the TD does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It makes the call, with the buffer's address and size.
    Call(u64, u64),
    /// It looks again a moment later.
    Wait,
    /// It has its answer.
    Done,
}

/// A TD's question.
#[derive(Debug, Default)]
pub(crate) struct Quote {
    asked: Option<Instant>,
    answer: Option<Answer>,
}

impl Quote {
    /// What was answered.
    pub(crate) fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// The next step. `returned` is what the call returned, once it was made.
    pub(crate) fn next(&mut self, memory: &dyn Memory, returned: u64) -> Result<Step, String> {
        let gone = "GetQuote: the guest has no memory at 32 MiB";
        if self.answer.is_some() {
            return Ok(Step::Done);
        }
        let Some(asked) = self.asked else {
            memory.write(BUFFER, &request()).ok_or(gone)?;
            self.asked = Some(Instant::now());
            return Ok(Step::Call(BUFFER, BUFFER_BYTES as u64));
        };
        let mut header = [0; HEADER_BYTES];
        memory.read(BUFFER, &mut header).ok_or(gone)?;
        let [status, lengths] = [8, 16].map(|place| number(&header, place));
        if returned == 0 && status == IN_FLIGHT {
            let late = asked.elapsed() > PATIENCE;
            return if late { Err("GetQuote: no answer in 30 s".to_owned()) } else { Ok(Step::Wait) };
        }
        let size = if returned == 0 { (lengths >> 32) as usize } else { 0 };
        if size > BUFFER_BYTES - HEADER_BYTES {
            return Err(format!("GetQuote: QEMU says {size} bytes, which do not fit"));
        }
        let mut quote = vec![0; size];
        memory.read(BUFFER + HEADER_BYTES as u64, &mut quote).ok_or(gone)?;
        let status = if returned == 0 { status } else { 0 };
        self.answer = Some(Answer { returned, status, size, sha384: Sha384::digest(&quote).into() });
        Ok(Step::Done)
    }
}

/// The buffer with a TDREPORT of bytes that count up: no module made it, and no service would sign it.
fn request() -> Vec<u8> {
    let mut buffer = [VERSION.to_le_bytes(), [0; 8]].concat();
    buffer.extend(TDREPORT_BYTES.to_le_bytes());
    buffer.extend([0; 4]);
    buffer.extend((0..=u8::MAX).cycle().take(TDREPORT_BYTES as usize));
    buffer.resize(BUFFER_BYTES, 0);
    buffer
}

fn number(header: &[u8], place: usize) -> u64 {
    header.get(place..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Buffer(RefCell<Vec<u8>>);

    impl Memory for Buffer {
        fn read(&self, gpa: u64, buffer: &mut [u8]) -> Option<()> {
            let start = usize::try_from(gpa - BUFFER).ok()?;
            buffer.copy_from_slice(self.0.borrow().get(start..start + buffer.len())?);
            Some(())
        }

        fn write(&self, gpa: u64, bytes: &[u8]) -> Option<()> {
            let start = usize::try_from(gpa - BUFFER).ok()?;
            self.0.borrow_mut().get_mut(start..start + bytes.len())?.copy_from_slice(bytes);
            Some(())
        }
    }

    fn asked() -> (Quote, Buffer) {
        let buffer = Buffer(RefCell::new(vec![0xee; BUFFER_BYTES]));
        let mut quote = Quote::default();
        assert_eq!(quote.next(&buffer, 7), Ok(Step::Call(BUFFER, BUFFER_BYTES as u64)));
        (quote, buffer)
    }

    #[test]
    fn a_quote_is_taken_when_it_is_there() {
        let (mut quote, buffer) = asked();
        assert_eq!(buffer.0.borrow()[16..28], [0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        buffer.write(BUFFER + 8, &IN_FLIGHT.to_le_bytes()).unwrap();
        assert_eq!(quote.next(&buffer, 0), Ok(Step::Wait));
        buffer.write(BUFFER + 8, &[0; 8]).unwrap();
        buffer.write(BUFFER + 20, &[3, 0, 0, 0, b'a', b'b', b'c']).unwrap();
        assert_eq!(quote.next(&buffer, 0), Ok(Step::Done));
        let sha384 = Sha384::digest(b"abc").into();
        assert_eq!(quote.answer(), Some(&Answer { returned: 0, status: 0, size: 3, sha384 }));
    }

    #[test]
    fn a_refused_call_and_a_size_that_lies_are_told() {
        let (mut quote, buffer) = asked();
        assert_eq!(quote.next(&buffer, 1 << 63), Ok(Step::Done));
        assert_eq!(quote.answer().map(|answer| (answer.returned, answer.size)), Some((1 << 63, 0)));
        let (mut quote, buffer) = asked();
        buffer.write(BUFFER + 20, &[0xff; 4]).unwrap();
        assert!(quote.next(&buffer, 0).unwrap_err().contains("do not fit"));
    }
}
