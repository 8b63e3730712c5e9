//! The supervisor's side: lets one in at a time, shows them what the guest writes, and hears what they type.
//!
//! Nothing here waits. Whoever does not read is shown less, and told so (`screen`); whoever types faster than the guest takes it
//! is not read from. The guest and its log never notice either.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::{Greeting, Holder, listen};
use crate::keyboard::Keyboard;
use crate::screen::Screen;

/// How much of what the guest wrote before is shown to who comes: two screenfuls.
const KEPT_BYTES: usize = 4 << 10;

/// Who may come, and who is there.
#[derive(Debug)]
pub(crate) struct Visitors {
    /// None once nobody can be let in any more.
    door: Option<UnixListener>,
    visitor: Option<Visitor>,
    /// The last of what the guest wrote.
    before: VecDeque<u8>,
    /// Whether bytes older than `before` were dropped.
    cut: bool,
}

#[derive(Debug)]
struct Visitor {
    screen: Screen,
    socket: UnixStream,
    holder: Holder,
}

impl Visitors {
    /// Listens in the directory of a running VM.
    pub(crate) fn expect(running: &Path) -> io::Result<Self> {
        Ok(Self { door: Some(listen(running)?), visitor: None, before: VecDeque::new(), cut: false })
    }

    /// Where somebody may come.
    pub(crate) fn door(&self) -> Option<BorrowedFd<'_>> {
        self.door.as_ref().map(AsFd::as_fd)
    }

    /// Who is there, and what is waited for from them. That they are gone is told in any case (poll(2), POLLHUP).
    pub(crate) fn visitor(&self, guest_takes_more: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let Visitor { screen, socket, .. } = self.visitor.as_ref()?;
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLOUT, screen.has_backlog());
        flags.set(PollFlags::POLLIN, guest_takes_more && screen.keyboard().is_some());
        Some((socket.as_fd(), flags))
    }

    /// Lets in who has come, if nobody types yet: `launch` says whether somebody does where the VM was launched. An error
    /// means that nobody will be let in any more.
    pub(crate) fn let_in(&mut self, launch: bool) -> io::Result<()> {
        let Some(door) = &self.door else { return Ok(()) };
        let mut socket = match door.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == ErrorKind::WouldBlock || is_theirs(&error) => return Ok(()),
            Err(error) => {
                // Asked again, it would fail again at once, and for ever.
                self.door = None;
                return Err(error);
            }
        };
        // One who has gone again is no reason to let in nobody else.
        if let Ok(Some(visitor)) = self.admit(&mut socket, launch) {
            self.visitor = Some(visitor);
        }
        Ok(())
    }

    fn admit(&self, socket: &mut UnixStream, launch: bool) -> io::Result<Option<Visitor>> {
        socket.set_nonblocking(true)?;
        let peer = getsockopt(&*socket, PeerCredentials)?;
        // The directory's rights say so already.
        if peer.uid() != geteuid().as_raw() && peer.uid() != 0 {
            return Ok(None);
        }
        let own = || Holder { pid: std::process::id().cast_signed(), uid: geteuid().as_raw(), launch: true };
        if let Some(by) = self.visitor.as_ref().map(|visitor| visitor.holder).or_else(|| launch.then(own)) {
            socket.write_all(&Greeting::Taken { by }.line()?)?;
            return Ok(None);
        }
        let before = self.lines_before();
        let mut screen = Screen::new(&*socket)?.with_keyboard(Keyboard::new(&*socket)?);
        screen.show(&Greeting::Welcome { before: before.len() }.line()?);
        screen.show(&before);
        let holder = Holder { pid: peer.pid(), uid: peer.uid(), launch: false };
        Ok(Some(Visitor { screen, socket: socket.try_clone()?, holder }))
    }

    /// What is kept of what the guest wrote, from the beginning of a line.
    fn lines_before(&self) -> Vec<u8> {
        let start = self.before.iter().position(|byte| *byte == b'\n').filter(|_| self.cut);
        self.before.iter().copied().skip(start.map_or(0, |newline| newline + 1)).collect()
    }

    /// Shows what the guest writes.
    pub(crate) fn show(&mut self, bytes: &[u8]) {
        self.before.extend(bytes);
        let surplus = self.before.len().saturating_sub(KEPT_BYTES);
        self.cut |= surplus > 0;
        self.before.drain(..surplus);
        if let Some(visitor) = &mut self.visitor {
            visitor.screen.show(bytes);
        }
    }

    /// Writes and reads a little, and lets go of who is gone. Returns what was typed: nothing, unless the guest takes more.
    pub(crate) fn serve(&mut self, guest_takes_more: bool) -> Zeroizing<Vec<u8>> {
        let Some(Visitor { screen, socket, .. }) = &mut self.visitor else { return Zeroizing::default() };
        if screen.has_backlog() {
            screen.write_some();
        }
        let typed = if guest_takes_more { screen.typed() } else { Zeroizing::default() };
        if has_hung_up(socket) {
            self.visitor = None;
        }
        typed
    }

    /// Another life of the guest begins: what was typed to the one before is not for it.
    pub(crate) fn begin(&mut self) {
        // More than a socket holds: one who goes on typing is heard later.
        for _ in 0..4096 {
            if self.serve(true).is_empty() {
                return;
            }
        }
    }

    /// The screen of who is there, as long as something waits to be shown.
    pub(crate) fn unseen(&mut self) -> Option<&mut Screen> {
        self.visitor.as_mut().map(|visitor| &mut visitor.screen).filter(|screen| screen.has_backlog())
    }
}

/// Whether an error of accept(2) is about who came, and says nothing of the next.
fn is_theirs(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

fn has_hung_up(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    // One who cannot be asked is gone as well.
    poll(&mut fds, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::time::{Duration, Instant};

    use super::super::connect;
    use super::*;

    fn arrive(visitors: &mut Visitors, root: &Path) -> (UnixStream, Greeting) {
        let mut client = connect(root).unwrap();
        visitors.let_in(false).unwrap();
        visitors.serve(true);
        let greeting = Greeting::read(&mut client, &mut Vec::new()).unwrap();
        (client, greeting)
    }

    fn read(client: &mut UnixStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_types_at_a_time_and_the_next_hears_who() {
        let root = tempfile::tempdir().unwrap();
        let mut visitors = Visitors::expect(root.path()).unwrap();
        visitors.show(b"booting\n~ # ");
        let (mut first, greeting) = arrive(&mut visitors, root.path());
        assert_eq!(greeting, Greeting::Welcome { before: 12 });
        assert_eq!(read(&mut first, 12), "booting\n~ # ");
        let me = Holder { pid: std::process::id().cast_signed(), uid: geteuid().as_raw(), launch: false };
        assert_eq!(arrive(&mut visitors, root.path()).1, Greeting::Taken { by: me });

        first.write_all(b"ls\n").unwrap();
        assert!(visitors.serve(false).is_empty(), "the guest takes nothing now");
        assert_eq!(*visitors.serve(true), b"ls\n");
        visitors.show(b"bin\n");
        visitors.serve(true);
        assert_eq!(read(&mut first, 4), "bin\n");
        // A pipe at its end types no more, and is still shown what comes.
        first.shutdown(Shutdown::Write).unwrap();
        visitors.serve(true);
        assert_eq!(visitors.visitor(true).unwrap().1, PollFlags::empty());
        visitors.show(b"dev\n");
        visitors.serve(true);
        assert_eq!(read(&mut first, 4), "dev\n");

        drop(first);
        visitors.serve(true);
        assert!(visitors.visitor(true).is_none());
        let (mut second, greeting) = arrive(&mut visitors, root.path());
        assert_eq!(greeting, Greeting::Welcome { before: 20 });
        assert_eq!(read(&mut second, 20), "booting\n~ # bin\ndev\n");
        drop(second);
        visitors.serve(true);
        // Whoever has launched it at a terminal is there before all others.
        let mut third = connect(root.path()).unwrap();
        visitors.let_in(true).unwrap();
        let launch = Holder { launch: true, ..me };
        assert_eq!(Greeting::read(&mut third, &mut Vec::new()).unwrap(), Greeting::Taken { by: launch });
        visitors.let_in(true).unwrap();
        assert!(visitors.visitor.is_none());
    }

    #[test]
    fn who_does_not_read_costs_bounded_memory_and_no_time() {
        let root = tempfile::tempdir().unwrap();
        let mut visitors = Visitors::expect(root.path()).unwrap();
        let (client, _) = arrive(&mut visitors, root.path());
        let begun = Instant::now();
        for line in 0..4000 {
            visitors.show(format!("{line:01000}\n").as_bytes());
            visitors.serve(true);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it was waited for");
        assert!(visitors.visitor(true).unwrap().1.contains(PollFlags::POLLOUT));
        drop(client);
        visitors.serve(true);
        assert!(visitors.visitor(true).is_none());
        let (mut client, greeting) = arrive(&mut visitors, root.path());
        let Greeting::Welcome { before } = greeting else { panic!("{greeting:?}") };
        assert!(before <= KEPT_BYTES && before % 1001 == 0, "{before}");
        for _ in 0..KEPT_BYTES / 256 {
            visitors.serve(true);
        }
        assert!(read(&mut client, before).ends_with("3999\n"));
    }

    #[test]
    fn what_was_typed_to_one_life_of_a_guest_is_not_for_the_next() {
        let root = tempfile::tempdir().unwrap();
        let mut visitors = Visitors::expect(root.path()).unwrap();
        let (mut client, _) = arrive(&mut visitors, root.path());
        client.write_all(&[b'x'; 10_000]).unwrap();
        visitors.begin();
        client.write_all(b"ls\n").unwrap();
        assert_eq!(*visitors.serve(true), b"ls\n");
    }
}
