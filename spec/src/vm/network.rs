//! `[[host.nic]]`: networks, which are the host's and never measured. The guest must not believe what comes from them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Most NICs of a guest.
pub const MAX_NICS: usize = 4;

/// A NIC: of the user-mode kind, by passt or QEMU itself, without any right on the host, or on a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Its MAC address, `52:54:00:12:34:56`. Default: one that is made from the VM's name.
    pub mac: Option<String>,
    /// The bridge of this host that it is plugged into, by a tap device that comes and goes with the VM. Needs CAP_NET_ADMIN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Let the guest reach nothing: only what is forwarded reaches it.
    #[serde(default)]
    pub no_outbound: bool,
    /// Ports of the host that lead to the guest.
    #[serde(default)]
    pub forward: Vec<Forward>,
}

/// `[host.vsock]`: a socket between this host and the guest, without a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's context identifier, 3 or more. Default: one that is made from the VM's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<u32>,
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// `tcp` or `udp`.
    #[serde(default)]
    pub protocol: Protocol,
    /// The host's address. Default: `127.0.0.1`, which only the host itself reaches.
    #[serde(default = "local")]
    pub address: String,
    /// The host's port.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
}

/// A transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As QEMU and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

fn local() -> String {
    "127.0.0.1".to_owned()
}

/// What is wrong with the NICs: the key it is about, and why.
pub(super) fn fault(nics: &[Nic]) -> Option<(&'static str, String)> {
    if nics.len() > MAX_NICS {
        return Some(("nic", format!("there are {} NICs: use at most {MAX_NICS}", nics.len())));
    }
    let mut taken = BTreeSet::new();
    for nic in nics {
        if let Some(mac) = nic.mac.as_deref().filter(|mac| !is_unicast_mac(mac)) {
            return Some((
                "mac",
                format!("\"{mac}\" is not the MAC address of one NIC: write it like 52:54:00:12:34:56"),
            ));
        }
        if let Some(bridge) = &nic.bridge {
            if !is_interface(bridge) {
                return Some(("bridge", format!("\"{bridge}\" is not the name of a network interface")));
            }
            if nic.no_outbound || !nic.forward.is_empty() {
                let message =
                    "what a NIC on a bridge reaches is the bridge's to say: leave no_outbound and forward out";
                return Some(("bridge", message.to_owned()));
            }
        }
        for forward in &nic.forward {
            if forward.address.parse::<core::net::Ipv4Addr>().is_err() {
                return Some(("address", format!("\"{}\" is not an IPv4 address", forward.address)));
            }
            if forward.host == 0 || forward.guest == 0 {
                return Some(("forward", "port 0 cannot be forwarded: name a port from 1 to 65535".to_owned()));
            }
            if !taken.insert((forward.protocol, &forward.address, forward.host)) {
                let port = format!("{} port {} of {}", forward.protocol.as_str(), forward.host, forward.address);
                return Some(("forward", format!("{port} is forwarded twice")));
            }
        }
    }
    None
}

fn is_unicast_mac(text: &str) -> bool {
    let parts: Vec<_> = text.split(':').collect();
    let byte = |part: &&str| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
    let first = parts.first().and_then(|part| u8::from_str_radix(part, 16).ok());
    parts.len() == 6
        && parts.iter().all(byte)
        && first.is_some_and(|first| first & 1 == 0)
        && text != "00:00:00:00:00:00"
}

/// Whether the kernel would take it for the name of an interface (`dev_valid_name`), in letters that need no quoting.
fn is_interface(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    (1..16).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(plain)
}

/// What is wrong with the vsock: the key it is about, and why. 0 to 2 are the host's side (vsock(7)).
pub(super) fn vsock_fault(vsock: Option<Vsock>) -> Option<(&'static str, String)> {
    let cid = vsock?.cid.filter(|cid| *cid < 3 || *cid == u32::MAX)?;
    Some(("cid", format!("{cid} is not the context identifier of a guest: use 3 to 4294967294")))
}
