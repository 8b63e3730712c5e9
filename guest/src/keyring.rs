//! Hands a key to the kernel without writing it anywhere: add_key(2) of type `logon`, which user space cannot read back.
#![allow(unsafe_code, reason = "there is no wrapper for add_key(2) and keyctl(2)")]

use std::ffi::CString;

use nix::errno::Errno;
use nix::libc;

/// KEY_SPEC_PROCESS_KEYRING: dm-crypt looks there when this process loads its table (Linux `include/uapi/linux/keyctl.h`).
const PROCESS_KEYRING: libc::c_long = -2;
/// KEYCTL_UNLINK.
const UNLINK: libc::c_long = 9;

/// A key in this process's keyring.
#[derive(Debug)]
pub(crate) struct Held(libc::c_long);

/// Puts `key` into the keyring under `description`, which has the form `PREFIX:NAME`.
pub(crate) fn hold(description: &str, key: &[u8]) -> nix::Result<Held> {
    let description = CString::new(description).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads two strings that end in NUL and `key.len()` bytes, all of which outlive the call.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"logon".as_ptr(),
            description.as_ptr(),
            key.as_ptr(),
            key.len(),
            PROCESS_KEYRING,
        )
    };
    Errno::result(serial).map(Held)
}

/// Takes the key out again: the kernel wipes it when nobody else holds it.
pub(crate) fn forget(held: Held) -> nix::Result<()> {
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, UNLINK, held.0, PROCESS_KEYRING) };
    Errno::result(result).map(drop)
}
