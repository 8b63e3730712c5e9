//! The guest's serial console: kept in a log, and watched for the few lines that say how a boot went.
//!
//! The console is the guest's, unfiltered: the log holds every byte. What is read out of it only ever makes a failure
//! easier to understand; that a guest is ready is never concluded from here.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use spec::agent::CONSOLE_FAILED;

use crate::agent::one_line;
use crate::lines::{Line, Lines};
use crate::log::Log;
use crate::typed::Typed;

/// The longest line that is looked at.
const MAX_LINE: usize = 4096;
/// How many lines are remembered for a report.
const LAST_WORDS: usize = 12;
const READ_BYTES: usize = 16 << 10;
/// How the kernel starts the line that says why it stops (kernel/panic.c).
const PANIC: &str = "Kernel panic - not syncing: ";

/// Something that the console said about the boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// `bullion-guest` stopped the boot.
    Failed {
        /// What it was doing.
        stage: String,
        /// What went wrong.
        reason: String,
    },
    /// The kernel panicked.
    Panic(String),
}

/// Reads findings out of console bytes and remembers the last lines.
#[derive(Debug)]
pub(crate) struct Watch {
    lines: Lines,
    last_words: VecDeque<String>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { lines: Lines::new(MAX_LINE), last_words: VecDeque::new() }
    }

    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let last_words = &mut self.last_words;
        self.lines.feed(bytes, |line| {
            let Line::Whole(line) = line else { return };
            let text = one_line(&String::from_utf8_lossy(line));
            findings.extend(read_line(&text));
            if !text.trim().is_empty() {
                if last_words.len() == LAST_WORDS {
                    last_words.pop_front();
                }
                last_words.push_back(text);
            }
        });
        findings
    }

    /// The last lines that were not empty, the one without an end included.
    pub(crate) fn last_words(&self) -> Vec<String> {
        let rest = one_line(&String::from_utf8_lossy(self.lines.rest()));
        self.last_words.iter().cloned().chain(Some(rest).filter(|rest| !rest.trim().is_empty())).collect()
    }
}

fn read_line(text: &str) -> Option<Finding> {
    if let Some((_, failure)) = text.split_once(CONSOLE_FAILED) {
        let (stage, reason) = failure.split_once(": ").unwrap_or(("boot", failure));
        return Some(Finding::Failed { stage: stage.to_owned(), reason: reason.to_owned() });
    }
    text.split_once(PANIC).map(|(_, panic)| Finding::Panic(panic.to_owned()))
}

/// The host's end of the console.
#[derive(Debug)]
pub(crate) struct Console<'a> {
    stream: UnixStream,
    log: &'a mut Log,
    watch: Watch,
    typed: Typed,
}

/// What came with one read.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The bytes, for the screen.
    pub(crate) bytes: Vec<u8>,
    /// What they said.
    pub(crate) findings: Vec<Finding>,
    /// The log could not be written. The guest runs on: its life does not hang on a full disk.
    pub(crate) log_error: Option<io::Error>,
}

impl<'a> Console<'a> {
    /// A console that is logged to `log`, and the descriptor that QEMU inherits.
    pub(crate) fn pair(log: &'a mut Log) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self { stream: ours, log, watch: Watch::new(), typed: Typed::new() }, theirs.into()))
    }

    /// Reads what there is, once; `None` when QEMU has closed its end.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Received>> {
        let mut buffer = [0; READ_BYTES];
        let bytes = match self.stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(length) => buffer.get(..length).unwrap_or_default().to_vec(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(Some(Received::default()));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        };
        let findings = self.watch.feed(&bytes);
        let log_error = self.log.write(&bytes).err();
        Ok(Some(Received { bytes, findings, log_error }))
    }

    /// Gives bytes to the guest's serial line, now or when `flush` finds room. QEMU takes them up as the guest reads them: whoever
    /// types on while it does not, types again.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.typed.push(bytes);
        self.flush();
    }

    /// Sends what could not be sent before.
    pub(crate) fn flush(&mut self) {
        self.typed.write_to(&mut self.stream);
    }

    /// Whether all that was typed so far was sent.
    pub(crate) fn takes_more(&self) -> bool {
        self.typed.is_empty()
    }

    /// The last lines.
    pub(crate) fn last_words(&self) -> Vec<String> {
        self.watch.last_words()
    }
}

impl AsFd for Console<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lines_that_matter_are_found_as_the_kernel_prints_them() {
        let mut watch = Watch::new();
        let text = b"[    1.9] device-mapper: verity: 254:0: data block 12 is corrupted\r\n\
            [    2.0] Kernel panic - not syncing: dm-verity device has I/O error\r\n\
            bullion-guest: FAILED verity: block 3: bad\r\n\
            bullion-guest: FAILED whatever\r\nno end";
        let (first, second) = text.split_at(100);
        let mut findings = watch.feed(first);
        findings.extend(watch.feed(second));
        let failed = |stage: &str, reason: &str| Finding::Failed { stage: stage.to_owned(), reason: reason.to_owned() };
        let panic = Finding::Panic("dm-verity device has I/O error".to_owned());
        assert_eq!(findings, [panic, failed("verity", "block 3: bad"), failed("boot", "whatever")]);
        assert_eq!(watch.last_words().len(), 5);
        assert_eq!(watch.last_words()[4], "no end");
    }

    #[test]
    fn what_is_typed_waits_for_the_guest_and_is_never_logged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut log = Log::begin(&path, Default::default()).unwrap();
        let (mut console, theirs) = Console::pair(&mut log).unwrap();
        let mut guest = UnixStream::from(theirs);
        guest.write_all(b"password: ").unwrap();
        console.receive().unwrap();
        let secret = b"hunter2\n".repeat(32);
        let mut typed = 0;
        while console.takes_more() {
            console.send(&secret);
            typed += secret.len();
        }
        let mut read = vec![0; typed];
        let (first, rest) = read.split_at_mut(typed / 2);
        guest.read_exact(first).unwrap();
        console.flush();
        assert!(console.takes_more());
        guest.read_exact(rest).unwrap();
        assert!(read.chunks(8).all(|word| word == b"hunter2\n"));
        console.receive().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"password: ");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic_and_memory_is_bounded(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6000), 0..8)) {
            let mut watch = Watch::new();
            for chunk in chunks {
                watch.feed(&chunk);
            }
            prop_assert!(watch.last_words().len() <= LAST_WORDS + 1);
            prop_assert!(watch.last_words().iter().all(|line| line.chars().count() <= 500 && !line.chars().any(char::is_control)));
        }
    }
}
