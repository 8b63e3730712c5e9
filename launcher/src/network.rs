//! What a guest has of this host's networks besides QEMU's own: a vsock, tap devices on bridges, and passt.
//!
//! The first two are the kernel's to keep apart. A context identifier belongs to the descriptor that asked for it first, and that very
//! descriptor is QEMU's; a tap device goes when its last descriptor is closed, whoever was killed. So there is nothing to
//! journal and nothing to clear away. passt is a child like QEMU, and ends with it.

mod passt;
mod speaker;
mod tap;
mod vsock;

use std::io;

use spec::vm::{Nic, Vsock};
use spec::{Diagnostic, Outcome, Sha256Digest};

use crate::host::HostFacts;
pub use passt::Passt;
pub(crate) use speaker::{Over, Speaker};
pub use tap::Tap;
pub(crate) use vsock::claim;

/// Where the kernel gives out context identifiers.
pub const VHOST_VSOCK: &str = "/dev/vhost-vsock";
/// Where the kernel takes over the packets of a tap device.
pub const VHOST_NET: &str = "/dev/vhost-net";
/// Where tap devices are made.
pub const TUN: &str = "/dev/net/tun";

/// A network that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Another guest has the context identifier.
    #[error("CID {cid} is in use by another guest")]
    CidInUse {
        /// The identifier.
        cid: u32,
    },
    /// The vsock cannot be had.
    #[error("cannot take CID {cid} from {VHOST_VSOCK}")]
    Vsock {
        /// The identifier.
        cid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no such bridge.
    #[error("there is no bridge \"{bridge}\" on this host")]
    NoBridge {
        /// Its name.
        bridge: String,
    },
    /// The process cannot be started that speaks for a NIC.
    #[error("cannot start {program} for NIC {nic}")]
    Passt {
        /// The NIC.
        nic: usize,
        /// The first word of the command.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tap device cannot be had.
    #[error("cannot {what} tap device {name} on bridge \"{bridge}\"")]
    Tap {
        /// What was tried.
        what: &'static str,
        /// The device.
        name: String,
        /// The bridge.
        bridge: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Diagnostic for NetworkError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }
    fn hint(&self) -> Option<String> {
        let denied = |source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied;
        let hint = match self {
            Self::CidInUse { .. } => "give this VM another `cid` in [host.vsock]",
            Self::NoBridge { .. } => "make it: ip link add NAME type bridge; ip link set NAME up",
            Self::Tap { source, .. } if denied(source) => {
                "plugging into a bridge needs CAP_NET_ADMIN: launch as root or by the unit of `bullion vm install`"
            }
            Self::Tap { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => "another guest has this device",
            Self::Vsock { .. } | Self::Tap { .. } | Self::Passt { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// The context identifier of VM `name`: the one that is asked for, or one that only this name leads to, of 2^31 that no one
/// picks by hand.
pub(crate) fn cid(name: &str, vsock: Vsock) -> u32 {
    let Sha256Digest([a, b, c, d, ..]) = Sha256Digest::of(format!("{name} vsock").as_bytes());
    vsock.cid.unwrap_or(u32::from_be_bytes([a, b, c, d]) >> 1 | 1 << 30)
}

/// The tap device of NIC `index` of VM `name`.
pub(crate) fn tap_name(name: &str, index: usize) -> String {
    let Sha256Digest([a, b, c, d, e, ..]) = Sha256Digest::of(format!("{name} tap {index}").as_bytes());
    format!("bul{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}")
}

/// Who moves the packets of a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Means {
    /// A tap device on a bridge.
    Tap,
    /// passt, beside QEMU.
    Passt,
    /// QEMU itself, in its user mode.
    Qemu,
}

/// What a NIC is plugged into, where passt can be had or not. passt cannot keep a guest from reaching out.
pub(crate) fn means(nic: &Nic, has_passt: bool) -> Means {
    match &nic.bridge {
        Some(_) => Means::Tap,
        None if has_passt && !nic.no_outbound => Means::Passt,
        None => Means::Qemu,
    }
}

/// Whether the host's kernel moves the packets of tap devices.
pub(crate) fn by_vhost(facts: &HostFacts) -> bool {
    facts.answers.opens(VHOST_NET).is_ok()
}
