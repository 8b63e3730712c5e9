//! A network block device that answers as it likes: the host's side of a disk whose content depends on when it is read.
//!
//! As much of the protocol as QEMU's client needs: fixed newstyle negotiation, simple replies, reads (NBD project,
//! doc/proto.md).

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

/// Changes what a read at an offset gives; an error number instead makes the read fail.
pub type Answer = Box<dyn FnMut(u64, &mut [u8]) -> Result<(), u32> + Send>;

/// A server that runs until the process ends.
pub struct Server(());

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const ANSWER_MAGIC: u32 = 0x6744_6698;
const OPTION_INFO: u32 = 6;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
/// Has flags; read only.
const EXPORT_FLAGS: u16 = 3;
const READ: u16 = 0;
const DISCONNECT: u16 = 2;
const EINVAL: u32 = 22;

impl Server {
    /// Serves `file` to the first client of `socket`.
    pub fn start(socket: &Path, file: File, mut answer: Answer) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        thread::spawn(move || {
            if let Ok((client, _)) = listener.accept() {
                // A machine that ends breaks off in the middle.
                let _ = serve(client, &file, &mut answer);
            }
        });
        Self(())
    }
}

fn serve(mut client: UnixStream, file: &File, answer: &mut Answer) -> io::Result<()> {
    // Fixed newstyle, no zeros.
    client.write_all(&[b"NBDMAGIC".as_slice(), OPTION_MAGIC, &3_u16.to_be_bytes()].concat())?;
    let _flags: [u8; 4] = take(&mut client)?;
    while !option(&mut client, file.metadata()?.len())? {}
    loop {
        let request: [u8; 28] = take(&mut client)?;
        let field = |at: usize| u32::from_be_bytes(request[at..at + 4].try_into().unwrap());
        let kind = u16::from_be_bytes([request[6], request[7]]);
        if field(0) != REQUEST_MAGIC || kind == DISCONNECT {
            return Ok(());
        }
        let (offset, length) = (u64::from(field(16)) << 32 | u64::from(field(20)), field(24));
        let mut data = vec![0; usize::try_from(length).unwrap()];
        let result = if kind == READ {
            file.read_exact_at(&mut data, offset).map_err(|_| EINVAL).and_then(|()| answer(offset, &mut data))
        } else {
            Err(EINVAL)
        };
        let error = result.err().unwrap_or(0);
        client.write_all(&[&ANSWER_MAGIC.to_be_bytes(), &error.to_be_bytes(), &request[8..16]].concat())?;
        if error == 0 {
            client.write_all(&data)?;
        }
    }
}

/// Answers one option; true once the client has the export.
fn option(client: &mut UnixStream, size: u64) -> io::Result<bool> {
    let header: [u8; 16] = take(client)?;
    let field = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
    let (option, length) = (field(8), field(12));
    io::copy(&mut client.take(length.into()), &mut io::sink())?;
    if ![OPTION_INFO, OPTION_GO].contains(&option) {
        reply(client, option, REPLY_UNSUPPORTED, &[])?;
        return Ok(false);
    }
    // NBD_INFO_EXPORT is number 0.
    reply(client, option, REPLY_INFO, &[&[0, 0][..], &size.to_be_bytes(), &EXPORT_FLAGS.to_be_bytes()].concat())?;
    reply(client, option, REPLY_ACK, &[])?;
    Ok(option == OPTION_GO)
}

fn reply(client: &mut UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    let header = [&REPLY_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length].concat();
    client.write_all(&[&header, data].concat())
}

fn take<const N: usize>(client: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}
