//! Showing a guest's console to a person without letting the guest drive the person's terminal.
//!
//! `TerminalGuard` takes escape sequences and control characters out of a byte stream; what remains is text, tabs and
//! newlines. `Screen` feeds a descriptor from the supervisor's loop and is never waited for: a terminal that was stopped
//! with Ctrl-S must not stop the supervision of the guest.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

use crate::keyboard::Keyboard;

/// How much may wait to be shown. What does not fit is left out; the log has it.
const MAX_BACKLOG: usize = 256 << 10;
/// How much is written at a time: POSIX promises that a pipe with room takes this much without blocking (PIPE_BUF), and
/// Linux's terminal says it has room when at least 256 bytes fit.
const WRITE_BYTES: usize = 256;

/// Where in an escape sequence (ECMA-48, section 5) the stream is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    ControlSequence,
    /// OSC, DCS and their like. Ended by ST, BEL, or the end of the line, so that one cannot swallow the rest.
    ControlString,
}

/// Takes escape sequences, control characters and bytes that are not UTF-8 out of a stream. `\n` and `\t` pass.
/// `\r` is dropped, because it lets a guest overwrite what was shown; a terminal adds its own to every newline.
#[derive(Debug, Default)]
pub struct TerminalGuard {
    state: State,
    partial: Vec<u8>,
}

impl TerminalGuard {
    /// The harmless rest of `bytes`; how the stream is cut into calls does not matter.
    pub fn filter(&mut self, bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len());
        for byte in bytes {
            self.take(*byte, &mut out);
        }
        out
    }

    fn take(&mut self, byte: u8, out: &mut String) {
        if !self.partial.is_empty() && self.continue_character(byte, out) {
            return;
        }
        self.state = match (self.state, byte) {
            (State::Text, 0x80..) => {
                self.start_character(byte, out);
                State::Text
            }
            (_, b'\n') | (State::Text, b'\t' | 0x20..=0x7e) => {
                out.push(char::from(byte));
                State::Text
            }
            (_, 0x1b) => State::Escape,
            (State::Text, _) => State::Text,
            (State::Escape, b'[') => State::ControlSequence,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::ControlString,
            (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Escape, _) => State::Text,
            (State::ControlSequence, 0x20..=0x3f) => State::ControlSequence,
            (State::ControlSequence, _) => State::Text,
            (State::ControlString, 0x07) => State::Text,
            (State::ControlString, _) => State::ControlString,
        };
    }

    fn start_character(&mut self, byte: u8, out: &mut String) {
        if (0xc2..=0xf4).contains(&byte) {
            self.partial.push(byte);
        } else {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }

    /// Adds a byte to a character that has begun; `false` where the byte does not belong to it.
    fn continue_character(&mut self, byte: u8, out: &mut String) -> bool {
        self.partial.push(byte);
        match std::str::from_utf8(&self.partial) {
            Ok(text) => {
                out.extend(text.chars().filter(|c| !c.is_control()));
                self.partial.clear();
                true
            }
            Err(error) if error.error_len().is_none() => true,
            Err(_) => {
                out.push(char::REPLACEMENT_CHARACTER);
                self.partial.clear();
                false
            }
        }
    }
}

/// A place where the console is shown.
#[derive(Debug)]
pub struct Screen {
    target: OwnedFd,
    guard: Option<TerminalGuard>,
    keyboard: Option<Keyboard>,
    backlog: Vec<u8>,
    left_out: u64,
}

impl Screen {
    /// Shows on `target`, guarding it if it is a terminal. The descriptor is duplicated.
    pub fn new(target: &impl AsFd) -> io::Result<Self> {
        let target = target.as_fd().try_clone_to_owned()?;
        let guard = target.is_terminal().then(TerminalGuard::default);
        Ok(Self { target, guard, keyboard: None, backlog: Vec::new(), left_out: 0 })
    }

    /// With a keyboard that is a terminal's, what the guest writes drives the terminal as it likes: programs that read keys edit lines with it.
    #[must_use]
    pub fn with_keyboard(self, keyboard: Keyboard) -> Self {
        let guard = self.guard.filter(|_| !keyboard.is_terminal());
        Self { guard, keyboard: Some(keyboard), ..self }
    }

    /// The keyboard, for as long as somebody types on it.
    pub(crate) fn keyboard(&self) -> Option<&Keyboard> {
        self.keyboard.as_ref()
    }

    /// What was typed; the keyboard is given up when its user leaves. The screen is guarded again then.
    pub(crate) fn typed(&mut self) -> Zeroizing<Vec<u8>> {
        let typed = self.keyboard.as_mut().and_then(Keyboard::read);
        if typed.is_none() && self.keyboard.take().is_some() && self.target.is_terminal() {
            self.guard = Some(TerminalGuard::default());
        }
        typed.unwrap_or_default()
    }

    /// Whether a person looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.target.is_terminal()
    }

    /// Adds console bytes to what is to be shown.
    pub(crate) fn show(&mut self, bytes: &[u8]) {
        if self.backlog.len() + bytes.len() > MAX_BACKLOG {
            self.left_out += bytes.len() as u64;
            return;
        }
        if self.left_out > 0 {
            let note = format!("\n[bullion: {} bytes are not shown, the log has them]\n", self.left_out);
            self.backlog.extend_from_slice(note.as_bytes());
            self.left_out = 0;
        }
        match &mut self.guard {
            Some(guard) => self.backlog.extend_from_slice(guard.filter(bytes).as_bytes()),
            None => self.backlog.extend_from_slice(bytes),
        }
    }

    /// Writes a little of it. To be called when the target has room.
    pub(crate) fn write_some(&mut self) {
        let length = self.backlog.len().min(WRITE_BYTES);
        match nix::unistd::write(&self.target, self.backlog.get(..length).unwrap_or_default()) {
            Ok(written) => drop(self.backlog.drain(..written)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // Nobody reads any more. The guest is not stopped for that.
            Err(_) => self.backlog.clear(),
        }
    }

    /// Shows the rest, as far as that can be done until `deadline`.
    pub(crate) fn finish(&mut self, deadline: Instant) {
        while self.has_backlog() && Instant::now() < deadline {
            let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut fds, PollTimeout::from(50_u8)).is_ok_and(|ready| ready > 0) {
                self.write_some();
            }
        }
    }

    /// Whether something waits to be shown.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }
}

impl AsFd for Screen {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn filtered(bytes: &[u8]) -> String {
        TerminalGuard::default().filter(bytes)
    }

    #[test]
    fn sequences_are_taken_out_and_text_stays() {
        // What SeaBIOS and edk2 print first, a title change, a colour, a DCS, and C1 controls raw and as UTF-8.
        assert_eq!(filtered(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n"), "SeaBIOS\n");
        assert_eq!(filtered(b"a\x1b]0;owned\x07b\x1b[31mred\x1b[0m\x1bPq\x1b\\c\x1b(Bd"), "abredcd");
        assert_eq!(filtered("\u{9b}31m \u{85}é→\u{7f}".as_bytes()), "31m é→");
        assert_eq!(filtered(b"\x9b2J \xff\xc3("), "\u{fffd}2J \u{fffd}\u{fffd}(");
        assert_eq!(filtered(b"\x1b]swallow\nnot this"), "\nnot this");
        assert_eq!(filtered(b"good\rbad!\x08\n\tx"), "goodbad!\n\tx");
    }

    proptest! {
        #[test]
        fn nothing_that_drives_a_terminal_passes(bytes in proptest::collection::vec(prop_oneof![Just(0x1b_u8), Just(b'['), Just(b']'), any::<u8>()], 0..300)) {
            prop_assert!(!filtered(&bytes).chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }

        #[test]
        fn where_the_stream_is_cut_does_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..100) {
            let (a, b) = bytes.split_at(at.min(bytes.len()));
            let mut guard = TerminalGuard::default();
            let parts = guard.filter(a) + &guard.filter(b);
            prop_assert_eq!(parts, filtered(&bytes));
        }

        #[test]
        fn text_passes_whole(text in "[ -~é→\n\t]{0,100}") {
            prop_assert_eq!(filtered(text.as_bytes()), text);
        }
    }

    #[test]
    fn a_target_that_nobody_reads_costs_bounded_memory() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut screen = Screen::new(&writer).unwrap();
        drop(writer);
        for _ in 0..100 {
            screen.show(&[b'x'; 16 << 10]);
        }
        assert!(screen.backlog.len() <= MAX_BACKLOG);
        while screen.has_backlog() {
            screen.write_some();
            let mut some = [0; WRITE_BYTES];
            reader.read_exact(&mut some[..1]).unwrap();
            let _ = reader.read(&mut some).unwrap();
        }
        screen.show(b"end");
        while screen.has_backlog() {
            screen.write_some();
        }
        drop(screen);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("bytes are not shown") && rest.ends_with("end"), "{rest}");
    }
}
