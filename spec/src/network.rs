//! `[guest.network]`: the address that the guest gives its NIC. Measured with the rest of `[guest]`.
//!
//! It is static because nothing that a network says may change what the guest is: DHCP would let the host choose addresses,
//! routes and name servers at run time. The network itself stays the host's; `[[host.nic]]` (`vm`) says what is behind it.

use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// `[guest.network]`. passt is given what this says; a NIC that may reach nothing is of QEMU's user mode, which has 10.0.2.15/24 for the
/// guest, 10.0.2.2 as gateway and 10.0.2.3 as name server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The guest's IPv4 address with the length of its network's prefix: `10.0.2.15/24`.
    pub address: String,
    /// Where what is not on that network goes; without it, nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Whom containers' names are asked of; at most 3, as resolvers read no more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<Ipv4Addr>,
}

impl Network {
    /// The address and the length of the prefix; `None` where `address` is not both.
    pub fn parts(&self) -> Option<(Ipv4Addr, u8)> {
        let (address, length) = self.address.split_once('/')?;
        let parts = (address.parse::<Ipv4Addr>().ok()?, length.parse::<u8>().ok()?);
        // One spelling, so that one network has one digest.
        ((1..=30).contains(&parts.1) && format!("{}/{}", parts.0, parts.1) == self.address).then_some(parts)
    }

    /// The first thing that is wrong: the text to look for, and what to say of it.
    pub(crate) fn fault(&self) -> Option<(String, String)> {
        let say = |text: String, message: String| Some((text, message));
        let Some((address, length)) = self.parts().filter(|(address, _)| is_host(*address)) else {
            let message = format!("\"{}\" is not an address of a guest: write it like 10.0.2.15/24", self.address);
            return say(self.address.clone(), message);
        };
        let network = |address: Ipv4Addr| address.to_bits() >> (32 - u32::from(length));
        if let Some(gateway) =
            self.gateway.filter(|gateway| network(*gateway) != network(address) || *gateway == address)
        {
            return say(
                gateway.to_string(),
                format!("the gateway {gateway} is not another address of {}", self.address),
            );
        }
        let count = self.nameservers.len();
        (count > 3).then(|| ("nameservers".to_owned(), format!("there are {count} name servers: use at most 3")))
    }
}

fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, gateway: Option<&str>) -> Network {
        let gateway = gateway.map(|gateway| gateway.parse().unwrap());
        Network { address: address.to_owned(), gateway, nameservers: Vec::new() }
    }

    #[test]
    fn an_address_has_a_prefix_and_one_spelling() {
        let good = network("10.0.2.15/24", Some("10.0.2.2"));
        assert_eq!(good.parts(), Some((Ipv4Addr::new(10, 0, 2, 15), 24)));
        assert_eq!(good.fault(), None);
        for bad in
            ["", "10.0.2.15", "10.0.2.15/", "10.0.2.15/024", "10.0.2.15/31", "10.0.2.15/0", "127.0.0.1/8", "::1/64"]
        {
            assert!(network(bad, None).fault().is_some(), "{bad}");
        }
        for gateway in ["10.0.3.2", "10.0.2.15"] {
            assert!(network("10.0.2.15/24", Some(gateway)).fault().is_some(), "{gateway}");
        }
    }
}
