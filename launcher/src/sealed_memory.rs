//! Bytes as a file that QEMU inherits, on no disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file in memory that nobody, this process included, can change any more.
pub(crate) fn sealed_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    sealed_copy(bytes)
}

/// The same of all that is read. How much that is, is for the caller to say.
pub(crate) fn sealed_copy(mut bytes: impl Read) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"bullion", flags)?);
    io::copy(&mut bytes, &mut file)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}
