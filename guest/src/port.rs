//! The virtio-serial port that the host gave the agent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use spec::agent::{Event, PORT_NAME};

use crate::agent;
use crate::channel::Wire;

/// How long a guest that gives up waits for its port to appear: it may give up before the driver has made it.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(200);
/// How long a guest on its way out waits for the host to listen.
const LISTEN_PATIENCE_MS: u16 = 500;

/// The port, open; calls return at once.
#[derive(Debug)]
pub(crate) struct Port {
    file: File,
}

impl Port {
    /// Opens the port, if it is there. The kernel lets one opener in at a time.
    pub(crate) fn open() -> Option<Self> {
        let node = Path::new("/dev").join(find(Path::new("/sys/class/virtio-ports"))?);
        let file = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(node).ok()?;
        Some(Self { file })
    }

    /// Sends the guest's last bytes, if a host listens or comes to listen soon. Returns when the host has them: power-off
    /// would overtake bytes that are only queued.
    pub(crate) fn finish(mut self, bytes: &[u8]) {
        let mut state = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        let _ = poll(&mut state, PollTimeout::from(LISTEN_PATIENCE_MS));
        let [state] = state;
        let events = state.revents().unwrap_or(PollFlags::empty());
        // The driver's blocking write waits until the host has taken the bytes, and for ever when there is no host.
        if events.contains(PollFlags::POLLOUT) && !events.contains(PollFlags::POLLHUP) {
            let _ = fcntl(&self.file, FcntlArg::F_SETFL(OFlag::empty()));
            let _ = self.file.write_all(bytes);
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Wire for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }
}

/// Tells the host why the guest gives up, if there is a port and a host that listens.
pub(crate) fn say_last_words(event: &Event) {
    let deadline = Instant::now() + LAST_WORDS_PATIENCE;
    let port = loop {
        match Port::open() {
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            found => break found,
        }
    };
    if let Some(port) = port {
        port.finish(&agent::encode(event));
    }
}

/// The kernel name (`vport2p1`) of the port with the agent's name.
fn find(class: &Path) -> Option<String> {
    fs::read_dir(class).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end_matches('\n') == PORT_NAME).then(|| entry.file_name().into_string().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_whole_name() {
        let class = tempfile::tempdir().unwrap();
        for (port, name) in
            [("vport0p1", "org.bullion.agent.01\n"), ("vport0p2", "org.bullion.agent.0\n"), ("vport0p3", "")]
        {
            fs::create_dir(class.path().join(port)).unwrap();
            fs::write(class.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(find(class.path()), Some("vport0p2".to_owned()));
        assert_eq!(find(&class.path().join("absent")), None);
    }
}
