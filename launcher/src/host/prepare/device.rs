//! The device nodes that whoever launches has to open, by name: the journal of changes holds no path that could be another file.

use std::fmt;

use serde::{Deserialize, Serialize};
use spec::PciAddress;

use super::change::directory;
use super::machine::Machine;

/// A device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// `/dev/kvm`.
    Kvm,
    /// `/dev/sev`.
    Sev,
    /// `/dev/iommu`.
    Iommu,
    /// `/dev/vfio/vfio`, by which IOMMU groups are opened.
    Vfio,
    /// `/dev/vhost-vsock`.
    VhostVsock,
    /// `/dev/vhost-net`.
    VhostNet,
    /// `/dev/net/tun`.
    Tun,
    /// The node of a function that vfio-pci has: its own where the kernel makes one, else that of its group.
    Function(PciAddress),
}

impl Device {
    /// The module that makes the node.
    pub(super) fn module(self) -> Option<&'static str> {
        match self {
            Self::Iommu => Some("iommufd"),
            Self::Vfio => Some("vfio"),
            Self::VhostVsock => Some("vhost_vsock"),
            Self::VhostNet => Some("vhost_net"),
            Self::Tun => Some("tun"),
            Self::Kvm | Self::Sev | Self::Function(_) => None,
        }
    }

    /// The node, without the leading slash; none where there is none now.
    pub(super) fn node(self, machine: &impl Machine) -> Option<String> {
        let fixed = |path: &str| machine.rights(path).is_ok().then(|| path.to_owned());
        match self {
            Self::Kvm => fixed("dev/kvm"),
            Self::Sev => fixed("dev/sev"),
            Self::Iommu => fixed("dev/iommu"),
            Self::Vfio => fixed("dev/vfio/vfio"),
            Self::VhostVsock => fixed("dev/vhost-vsock"),
            Self::VhostNet => fixed("dev/vhost-net"),
            Self::Tun => fixed("dev/net/tun"),
            Self::Function(address) => {
                let own = machine.names(&format!("{}/vfio-dev", directory(address))).into_iter().next();
                let own = own.and_then(|name| fixed(&format!("dev/vfio/devices/{name}")));
                own.or_else(|| {
                    let group = machine.link(&format!("{}/iommu_group", directory(address)))?;
                    fixed(&format!("dev/vfio/{group}"))
                })
            }
        }
    }

    /// How udev names it.
    pub(super) fn rule(self) -> Option<&'static str> {
        Some(match self {
            Self::Kvm => r#"KERNEL=="kvm""#,
            Self::Sev => r#"KERNEL=="sev""#,
            Self::Iommu => r#"KERNEL=="iommu""#,
            Self::Vfio => r#"KERNEL=="vfio", SUBSYSTEM=="misc""#,
            Self::VhostVsock => r#"KERNEL=="vhost-vsock""#,
            Self::VhostNet => r#"KERNEL=="vhost-net""#,
            Self::Tun => r#"KERNEL=="tun""#,
            // Its number is another after each start: the rule is for all that vfio-pci has.
            Self::Function(_) => return None,
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "/dev/kvm",
            Self::Sev => "/dev/sev",
            Self::Iommu => "/dev/iommu",
            Self::Vfio => "/dev/vfio/vfio",
            Self::VhostVsock => "/dev/vhost-vsock",
            Self::VhostNet => "/dev/vhost-net",
            Self::Tun => "/dev/net/tun",
            Self::Function(address) => return write!(f, "the VFIO device of {address}"),
        })
    }
}
