//! Taking a context identifier (Linux `drivers/vhost/vsock.c`).
#![allow(unsafe_code, reason = "an ioctl takes the identifier by pointer")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;

use super::{NetworkError, VHOST_VSOCK};

// VHOST_VSOCK_SET_GUEST_CID (include/uapi/linux/vhost.h).
nix::ioctl_write_ptr!(set_guest_cid, 0xaf, 0x60, u64);

/// Takes `cid`. It is held for as long as the descriptor, or a duplicate of it, is open; QEMU sets it once more on the same one,
/// which the kernel allows.
pub(crate) fn claim(cid: u32) -> Result<OwnedFd, NetworkError> {
    let failed = |source| NetworkError::Vsock { cid, source };
    let file = OpenOptions::new().read(true).write(true).open(VHOST_VSOCK).map_err(failed)?;
    // SAFETY: the kernel reads eight bytes from a live u64.
    match unsafe { set_guest_cid(file.as_raw_fd(), &u64::from(cid)) } {
        Ok(_) => Ok(file.into()),
        Err(Errno::EADDRINUSE) => Err(NetworkError::CidInUse { cid }),
        Err(error) => Err(failed(io::Error::from(error))),
    }
}
