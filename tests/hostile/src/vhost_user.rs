//! A device of the host's own making behind a socket: as much of a vhost-user backend as QEMU needs to show the device to its guest
//! (QEMU docs/interop/vhost-user). It notes whether a driver in the guest ever set up a queue, which is how anything gets into a guest.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const GET_FEATURES: u32 = 1;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_CONFIG: u32 = 24;
/// VHOST_USER_PROTOCOL_F_CONFIG.
const PROTOCOL_FEATURES: u64 = 1 << 9;
/// The guest's number among sockets, all that the device's configuration holds (VIRTIO 1.2, 5.10.4).
const CONTEXT: u64 = 3;
/// VIRTIO_F_VERSION_1 and VHOST_USER_F_PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 30;
/// Version 1, and that it is a reply.
const REPLY: u32 = 5;

/// A backend that runs until the process ends.
pub struct Backend {
    has_queue: Arc<AtomicBool>,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}

impl Backend {
    /// Listens on `socket`, for one QEMU.
    pub fn start(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let has_queue = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&has_queue);
        thread::spawn(move || {
            if let Ok((client, _)) = listener.accept() {
                // A machine that ends breaks off in the middle.
                let _ = serve(client, &seen);
            }
        });
        Self { has_queue }
    }

    /// Whether a driver has set up a queue.
    pub fn has_queue(&self) -> bool {
        self.has_queue.load(Ordering::SeqCst)
    }
}

fn serve(mut client: UnixStream, has_queue: &AtomicBool) -> io::Result<()> {
    loop {
        let mut header = [0; 12];
        client.read_exact(&mut header)?;
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (request, size) = (field(0), field(8));
        let mut payload = vec![0; usize::try_from(size).unwrap()];
        client.read_exact(&mut payload)?;
        let answer = match request {
            GET_FEATURES => FEATURES.to_le_bytes().to_vec(),
            GET_PROTOCOL_FEATURES => PROTOCOL_FEATURES.to_le_bytes().to_vec(),
            // Of the queue that is asked for: nothing was taken from it.
            GET_VRING_BASE => [&payload[..4], &[0; 4]].concat(),
            // Offset, size and flags come before what is asked for.
            GET_CONFIG => {
                payload.iter_mut().skip(12).zip(CONTEXT.to_le_bytes()).for_each(|(slot, byte)| *slot = byte);
                payload
            }
            _ => Vec::new(),
        };
        if request == SET_VRING_KICK {
            has_queue.store(true, Ordering::SeqCst);
        }
        if !answer.is_empty() {
            let header = [request, REPLY, u32::try_from(answer.len()).unwrap()].map(u32::to_le_bytes).concat();
            client.write_all(&[header, answer].concat())?;
        }
    }
}
