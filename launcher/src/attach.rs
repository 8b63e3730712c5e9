//! Typing to a VM that runs: what the supervisor and `bullion console` agree on.
//!
//! The supervisor alone has QEMU's serial line, and goes on writing the log. In the run directory of a VM that admits typing
//! it listens on a socket (`visitors`); `session` is who comes there. The supervisor says one line of JSON first, then passes
//! the guest's bytes on; what the other side sends is typed. A serial line has no size, so none is told.

pub mod session;
pub(crate) mod visitors;

use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::manifest::Class;

/// The socket's name in the directory of a running VM.
const SOCKET: &str = "console.sock";
/// The longest first line.
const MAX_GREETING: usize = 1024;

/// Whether guests of an image may be typed to: a release has no shell on its serial line, and listens to nobody.
pub fn admits_typing(class: Class) -> bool {
    class != Class::Release
}

/// What the supervisor says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
enum Greeting {
    /// Come in.
    Welcome {
        /// How many of the bytes that follow the guest wrote before.
        before: usize,
    },
    /// Somebody types already, and the connection ends here.
    Taken {
        /// Who that is.
        by: Holder,
    },
}

/// Who types to a guest, as the kernel says it (unix(7), SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
    /// Whether it is the VM's own `launch --console`.
    pub launch: bool,
}

impl Greeting {
    fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }

    /// Reads the first line and nothing of what follows it. A time limit of `source` ends it as it ends a read.
    fn read(source: &mut impl Read, line: &mut Vec<u8>) -> io::Result<Self> {
        let mut byte = [0];
        while line.last() != Some(&b'\n') {
            match source.read(&mut byte) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) if line.len() < MAX_GREETING => line.extend(byte),
                Ok(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "its first line has no end")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        serde_json::from_slice(line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Opens the directory of a running VM, and names the socket in it in fewer bytes than a socket's address has (108, unix(7)),
/// however long the directory's own path is. The name holds as long as the directory is open.
fn address(running: &Path) -> io::Result<(File, PathBuf)> {
    let directory = File::open(running)?;
    let address = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    Ok((directory, PathBuf::from(address)))
}

/// Listens in the directory of a running VM, which is its owner's alone, and so is the socket.
fn listen(running: &Path) -> io::Result<UnixListener> {
    let (_directory, address) = address(running)?;
    let listener = UnixListener::bind(&address)?;
    std::fs::set_permissions(&address, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to who listens there.
fn connect(running: &Path) -> io::Result<UnixStream> {
    let (_directory, address) = address(running)?;
    UnixStream::connect(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_first_line_is_read_alone_and_in_parts() {
        let taken = Greeting::Taken { by: Holder { pid: 7, uid: 0, launch: false } };
        let mut sent = taken.line().unwrap();
        sent.extend(b"{guest}");
        let mut rest = sent.as_slice();
        assert_eq!(Greeting::read(&mut rest, &mut Vec::new()).unwrap(), taken);
        assert_eq!(rest, b"{guest}");
        let (mut first, mut second) = sent.split_at(10);
        let mut line = Vec::new();
        assert!(Greeting::read(&mut first, &mut line).is_err());
        assert_eq!(Greeting::read(&mut second, &mut line).unwrap(), taken);
    }

    proptest! {
        #[test]
        fn any_first_line_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut line = Vec::new();
            let _ = Greeting::read(&mut bytes.as_slice(), &mut line);
            prop_assert!(line.len() <= MAX_GREETING);
        }
    }

    #[test]
    fn a_directory_may_have_a_longer_path_than_a_socket() {
        let root = tempfile::tempdir().unwrap();
        let running = root.path().join("d".repeat(200));
        std::fs::create_dir(&running).unwrap();
        assert_eq!(connect(&running).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = listen(&running).unwrap();
        assert_eq!(std::fs::metadata(running.join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
        connect(&running).unwrap();
        drop(listener);
        assert_eq!(connect(&running).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
