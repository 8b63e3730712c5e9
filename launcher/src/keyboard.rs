//! What a person types for a guest: the terminal without its own editing, so that every key reaches the guest's serial line,
//! and one key that gives the terminal back.
//!
//! Only images with a shell on that line have a use for it; whether one may be typed to is decided by the caller.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Gives the terminal back: Ctrl-].
pub const LEAVE: u8 = 0x1d;
/// How much is read at a time: QEMU's serial port takes it up slowly.
const READ_BYTES: usize = 256;

/// A descriptor that somebody types on. Dropped, it leaves the terminal as it was.
#[derive(Debug)]
pub struct Keyboard {
    source: OwnedFd,
    before: Option<Termios>,
}

impl Keyboard {
    /// Reads from `source`, which is duplicated. A terminal no longer edits, echoes, or makes signals of keys.
    pub fn new(source: &impl AsFd) -> io::Result<Self> {
        let source = source.as_fd().try_clone_to_owned()?;
        let before = source.is_terminal().then(|| tcgetattr(&source)).transpose()?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            let output = raw.output_flags;
            cfmakeraw(&mut raw);
            // What is printed beside the guest's own words still has its lines ended by the terminal.
            raw.output_flags = output;
            tcsetattr(&source, SetArg::TCSANOW, &raw)?;
        }
        Ok(Self { source, before })
    }

    /// Whether it is a terminal, which has a key to leave with: it is read from even while nobody takes what is typed.
    pub(crate) fn is_terminal(&self) -> bool {
        self.before.is_some()
    }

    /// What was typed; `None` at the end of the input, and when the terminal is to be given back.
    pub(crate) fn read(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        let mut buffer = Zeroizing::new([0; READ_BYTES]);
        match nix::unistd::read(&self.source, buffer.as_mut_slice()) {
            Err(Errno::EAGAIN | Errno::EINTR) => Some(Zeroizing::default()),
            Ok(0) | Err(_) => None,
            Ok(length) => {
                let typed = buffer.get(..length).unwrap_or_default();
                let leave = self.is_terminal() && typed.contains(&LEAVE);
                (!leave).then(|| Zeroizing::new(typed.to_vec()))
            }
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // What nobody has read is no command for the shell: the terminal may have answered a question of the guest.
            let _ = tcsetattr(&self.source, SetArg::TCSAFLUSH, before);
        }
    }
}

impl AsFd for Keyboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::pty::openpty;

    use super::*;

    #[test]
    fn keys_pass_as_they_are_and_one_gives_the_terminal_back() {
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let mut keyboard = Keyboard::new(&pty.slave).unwrap();
        nix::unistd::write(&pty.master, b"ls\r\x03").unwrap();
        assert_eq!(*keyboard.read().unwrap(), b"ls\r\x03");
        nix::unistd::write(&pty.master, &[b'x', LEAVE]).unwrap();
        assert_eq!(keyboard.read(), None);
        drop(keyboard);
        assert_eq!(tcgetattr(&pty.slave).unwrap().local_flags, before.local_flags);
    }

    #[test]
    fn a_pipe_passes_whole_and_ends() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut keyboard = Keyboard::new(&reader).unwrap();
        nix::unistd::write(&writer, &[b'a', LEAVE, b'b']).unwrap();
        assert_eq!(*keyboard.read().unwrap(), [b'a', LEAVE, b'b']);
        drop(writer);
        assert_eq!(keyboard.read(), None);
    }
}
