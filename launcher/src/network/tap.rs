//! Tap devices (Linux `Documentation/networking/tuntap.rst`), plugged into a bridge (netdevice(7), `SIOCBRADDIF`).
#![allow(unsafe_code, reason = "ioctls on network devices take a structure with a union by pointer")]
#![allow(clippy::cast_possible_truncation, reason = "flags of interfaces are ints in C and 16 bits wide in an ifreq")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, ifreq};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{NetworkError, TUN};

nix::ioctl_write_ptr_bad!(set_tap, libc::TUNSETIFF, ifreq);
nix::ioctl_readwrite_bad!(get_index, libc::SIOCGIFINDEX, ifreq);
nix::ioctl_readwrite_bad!(get_flags, libc::SIOCGIFFLAGS, ifreq);
nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, ifreq);
// SIOCBRADDIF (include/uapi/linux/sockios.h).
nix::ioctl_write_ptr_bad!(add_to_bridge, 0x89a2, ifreq);

/// No other descriptor may attach to the device, and none that is there already is taken (if_tun.h, IFF_TUN_EXCL).
const EXCLUSIVE: libc::c_int = 0x8000;

/// A tap device that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its name.
    pub name: String,
    /// The bridge.
    pub bridge: String,
}

impl Tap {
    /// Makes the device, plugs it in and brings it up. It is there for as long as the descriptor, or a duplicate of it, is open.
    pub(crate) fn create(&self) -> Result<OwnedFd, NetworkError> {
        let failed = |what| {
            move |source: io::Error| NetworkError::Tap {
                what,
                name: self.name.clone(),
                bridge: self.bridge.clone(),
                source,
            }
        };
        let tap = OpenOptions::new().read(true).write(true).open(TUN).map_err(failed("make"))?;
        let mut request = request(&self.name);
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | EXCLUSIVE;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        // SAFETY: the kernel reads and writes one ifreq.
        unsafe { set_tap(tap.as_raw_fd(), &request) }.map_err(|error| failed("make")(error.into()))?;
        let control = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|error| failed("plug in")(error.into()))?;
        let control = control.as_raw_fd();
        match self.plug_in(control) {
            Ok(()) => {}
            // The device was made a moment ago: what is missing is the bridge.
            Err(Errno::ENODEV | Errno::EOPNOTSUPP) => {
                return Err(NetworkError::NoBridge { bridge: self.bridge.clone() });
            }
            Err(error) => return Err(failed("plug in")(error.into())),
        }
        bring_up(control, &self.name).map_err(|error| failed("bring up")(error.into()))?;
        Ok(tap.into())
    }

    fn plug_in(&self, control: RawFd) -> nix::Result<()> {
        let mut device = request(&self.name);
        // SAFETY: the kernel reads and writes one ifreq.
        unsafe { get_index(control, &mut device) }?;
        let mut bridge = request(&self.bridge);
        // SAFETY: SIOCGIFINDEX has filled in this member of the union.
        bridge.ifr_ifru.ifru_ifindex = unsafe { device.ifr_ifru.ifru_ifindex };
        // SAFETY: the kernel reads one ifreq.
        unsafe { add_to_bridge(control, &bridge) }.map(drop)
    }
}

fn bring_up(control: RawFd, name: &str) -> nix::Result<()> {
    let mut device = request(name);
    // SAFETY: the kernel reads and writes one ifreq.
    unsafe { get_flags(control, &mut device) }?;
    // SAFETY: SIOCGIFFLAGS has filled in this member of the union.
    let flags = unsafe { device.ifr_ifru.ifru_flags };
    device.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads one ifreq.
    unsafe { set_flags(control, &device) }.map(drop)
}

/// A request about the interface `name`, of which as much is taken as a name can have.
fn request(name: &str) -> ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 } }
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
mod tests {
    use nix::sched::{CloneFlags, unshare};
    use spec::Diagnostic as _;

    use super::*;

    // SIOCBRADDBR.
    nix::ioctl_write_ptr_bad!(add_bridge, 0x89a0, [libc::c_char; libc::IFNAMSIZ]);

    /// In a network namespace of its own, in a thread that ends with it. The kernel is the judge.
    #[test]
    fn a_tap_device_is_on_its_bridge_and_goes_with_its_descriptor() {
        let test = || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("skipped: no network namespace can be made: {error}");
                return;
            }
            let control = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
            let control = control.as_raw_fd();
            let tap = Tap { name: "bul0123456789".to_owned(), bridge: "br-test".to_owned() };
            if OpenOptions::new().read(true).write(true).open(TUN).is_err() {
                eprintln!("skipped: {TUN} cannot be opened");
                return;
            }
            assert!(matches!(tap.create(), Err(NetworkError::NoBridge { .. })));
            // SAFETY: the kernel reads one name.
            if let Err(error) = unsafe { add_bridge(control, &request("br-test").ifr_name) } {
                eprintln!("skipped: no bridge can be made: {error}");
                return;
            }
            let held = tap.create().unwrap();
            assert_eq!(tap.plug_in(control), Err(Errno::EBUSY), "it is on a bridge already");
            let mut device = request(&tap.name);
            // SAFETY: the kernel reads and writes one ifreq, and fills in the flags.
            let flags = unsafe { get_flags(control, &mut device).map(|_| device.ifr_ifru.ifru_flags) }.unwrap();
            assert_ne!(flags & libc::IFF_UP as libc::c_short, 0);
            let second = tap.create().unwrap_err();
            assert!(second.hint().is_some_and(|hint| hint.contains("another guest")), "{second:?}");
            drop(held);
            // SAFETY: the kernel reads and writes one ifreq.
            assert_eq!(unsafe { get_index(control, &mut request(&tap.name)) }, Err(Errno::ENODEV));
            drop(tap.create().unwrap());
        };
        std::thread::spawn(test).join().unwrap();
    }
}
