//! Addresses of PCI functions, as `lspci -D` and sysfs write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The address of a PCI function: `domain:bus:device.function`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(with = "String"))]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

/// A text that is not the address of a PCI function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a PCI address: write it as in 0000:41:00.0")]
pub struct PciAddressError(String);

impl PciAddress {
    /// The bus the function is on, as sysfs names it: `domain:bus`.
    pub fn bus(&self) -> String {
        format!("{:04x}:{:02x}", self.domain, self.bus)
    }
}

impl FromStr for PciAddress {
    type Err = PciAddressError;

    /// Reads `0000:41:00.0`, or `41:00.0` for domain 0.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| PciAddressError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<PciAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let hex = |digits: &str, length: usize| {
        (digits.len() == length && digits.bytes().all(|c| c.is_ascii_hexdigit()))
            .then(|| u16::from_str_radix(digits, 16).ok())
            .flatten()
    };
    let byte = |value: u16| u8::try_from(value).ok();
    Some(PciAddress {
        domain: hex(domain, 4)?,
        bus: byte(hex(bus, 2)?)?,
        device: hex(device, 2).and_then(byte).filter(|device| *device < 32)?,
        function: hex(function, 1).and_then(byte).filter(|function| *function < 8)?,
    })
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

impl TryFrom<String> for PciAddress {
    type Error = PciAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_as_sysfs_and_lspci_write_them() {
        let address: PciAddress = "0000:41:1f.7".parse().unwrap();
        assert_eq!(address.to_string(), "0000:41:1f.7");
        assert_eq!("41:1F.7".parse(), Ok(address));
        assert_eq!(address.bus(), "0000:41");
        for bad in ["", "41", "41:00", "41:20.0", "41:00.8", "0:41:00.0", "+041:00.0", "0000:41:00.0 ", "x:41:00.0"] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text in ".{0,16}") {
            if let Ok(address) = text.parse::<PciAddress>() {
                prop_assert_eq!(address.to_string().parse::<PciAddress>(), Ok(address));
            }
        }
    }
}
