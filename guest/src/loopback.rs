//! Brings the loopback interface up: programs on the guest's own network expect it.
//!
//! ABI: Linux `include/uapi/linux/if.h` and `sockios.h`.
#![allow(unsafe_code, reason = "an interface's flags are set by an ioctl on a structure that the kernel reads")]

use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// IFF_UP.
const UP: u16 = 1;
/// SIOCSIFFLAGS.
const SET_FLAGS: u64 = 0x8914;

/// `struct ifreq` with its flags.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceFlags>() == 40);

nix::ioctl_write_ptr_bad!(set_interface_flags, SET_FLAGS, InterfaceFlags);

/// Brings `lo` up.
pub(crate) fn up() -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut name = [0; 16];
    name.iter_mut().zip(b"lo").for_each(|(slot, byte)| *slot = *byte);
    let request = InterfaceFlags { name, flags: UP, rest: [0; 22] };
    // SAFETY: the kernel reads 40 bytes at the address, which is the size of the structure (checked above).
    unsafe { set_interface_flags(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}
