//! What a VM asks for beyond what every guest has: networks, a vsock, passed PCI functions.
//!
//! Each function has a root port of its own, at a place that depends on nothing but its number: nothing here moves what others
//! have, and a VM that asks for none of it has the same machine as before.

use measure::shape::TeeShape;
use spec::Sha256Digest;
use spec::vm::{MAX_NICS, Nic, Vsock};

use super::arguments::{Arguments, Properties};
use super::{CommandLine, bars, descriptor};
use crate::network::{self, Means};

/// Places on the root bus: a slot for each NIC from here on, then slots of eight ports each for PCI functions. Volumes begin at 0x10.
const FIRST_SLOT: usize = 0x5;
const PORTS_IN_A_SLOT: usize = 8;
/// The slot before the volumes.
const VSOCK_SLOT: &str = "0xf";
/// Not the name of the property that holds it: QEMU finds an object by its name below every other, by properties too, and takes the
/// second function's for ambiguous once the first one has it.
const IOMMUFD: &str = "iommufd0";
/// The window for 64-bit BARs that the ACPI tables of a TDX guest with passed functions name: all that firmware has for them with
/// 46 bits of addresses. By default QEMU names what is used, so that RTMR0 would depend on the BARs of one host's devices.
const TDX_WINDOW: &str = "8T";

impl CommandLine<'_> {
    /// Networks and passed functions.
    pub(super) fn devices(&self, arguments: &mut Arguments) {
        for (index, nic) in self.host.nics.iter().enumerate() {
            self.nic(arguments, index, nic);
        }
        if let Some(vsock) = self.host.vsock {
            self.vsock(arguments, vsock);
        }
        if self.host.pci.is_empty() {
            return;
        }
        if let Some(mib) = self.window_mib {
            let window = Properties::with_first("name", "opt/ovmf/X-PciMmio64Mb").with("string", &mib.to_string());
            arguments.option("-fw_cfg", window);
        }
        let named = match self.shape.tee {
            TeeShape::Tdx(_) => Some(TDX_WINDOW.to_owned()),
            TeeShape::Snp(_) => bars::named_by_snp(self.window_mib, self.shape.memory_mib).map(|gib| format!("{gib}G")),
            // SeaBIOS begins where the sizes of the BARs let it.
            TeeShape::None => None,
        };
        if let Some(window) = named {
            arguments.option("-global", Properties::with_first("q35-pcihost.pci-hole64-size", &window));
        }
        if self.by_iommufd {
            let iommufd = Properties::of("iommufd").with("id", IOMMUFD).with("fd", &descriptor::IOMMUFD.to_string());
            arguments.option("-object", iommufd);
        }
        for (index, device) in self.host.pci.iter().enumerate() {
            let bus = root_port(arguments, &format!("pci{index}"), &pci_place(index), MAX_NICS + index);
            if self.stand_in {
                arguments.option("-device", Properties::of("pci-testdev").with("bus", &bus));
                continue;
            }
            let function = Properties::of("vfio-pci").with("id", &format!("pci{index}")).with("bus", &bus);
            let function = if self.by_iommufd {
                function.with("fd", &descriptor::pci(index).to_string()).with("iommufd", IOMMUFD)
            } else {
                function.with("host", &device.address)
            };
            // A device's ROM is code that nobody measured.
            arguments.option("-device", function.with("rombar", "0"));
        }
    }

    /// The guest's end of a socket to the host. The kernel gives a context identifier to one guest only, by the descriptor that
    /// asked first.
    fn vsock(&self, arguments: &mut Arguments, vsock: Vsock) {
        let device = if self.stand_in {
            // Needs no part of the host's kernel; to firmware's tables it is a device in the same place.
            Properties::of("virtio-rng-pci").with("id", "vsock")
        } else {
            let cid = network::cid(self.name, vsock).to_string();
            let device = Properties::of("vhost-vsock-pci").with("id", "vsock").with("guest-cid", &cid);
            device.with("vhostfd", &descriptor::VSOCK.to_string())
        };
        let device = device.with("bus", "pcie.0").with("addr", VSOCK_SLOT);
        arguments.option("-device", self.tee().virtio(device));
    }

    /// The tap device of a NIC on a bridge; the host's kernel moves the packets where it can.
    fn tap(&self, index: usize) -> Properties {
        let tap = Properties::of("tap")
            .with("id", &format!("net{index}"))
            .with("fd", &descriptor::network(index).to_string());
        if !network::by_vhost(self.facts) {
            return tap;
        }
        tap.with("vhost", "on").with("vhostfd", &descriptor::vhost_net(index).to_string())
    }

    /// The socket to the passt that speaks for a NIC.
    fn passt(index: usize) -> Properties {
        let socket = Properties::of("stream").with("id", &format!("net{index}")).with("addr.type", "fd");
        socket.with("addr.str", &descriptor::network(index).to_string())
    }

    fn user_network(index: usize, nic: &Nic) -> Properties {
        let mut network = Properties::of("user").with("id", &format!("net{index}"));
        if nic.no_outbound {
            network = network.with("restrict", "on");
        }
        for forward in &nic.forward {
            let (protocol, address) = (forward.protocol.as_str(), &forward.address);
            network = network.with("hostfwd", &format!("{protocol}:{address}:{}-:{}", forward.host, forward.guest));
        }
        network
    }

    fn nic(&self, arguments: &mut Arguments, index: usize, nic: &Nic) {
        let network = match network::means(nic, self.has_passt) {
            Means::Tap => self.tap(index),
            Means::Passt => Self::passt(index),
            Means::Qemu => Self::user_network(index, nic),
        };
        arguments.option("-netdev", network);
        let bus = root_port(arguments, &format!("nic{index}"), &format!("{:#x}", FIRST_SLOT + index), index);
        let mac = nic.mac.clone().unwrap_or_else(|| mac(self.name, index));
        let device = Properties::of("virtio-net-pci").with("id", &format!("nic{index}")).with("bus", &bus);
        let device = device.with("netdev", &format!("net{index}")).with("mac", &mac).with("romfile", "");
        arguments.option("-device", self.tee().virtio(device));
    }
}

/// Where the root port of a passed function is.
fn pci_place(index: usize) -> String {
    format!("{:#x}.{}", FIRST_SLOT + MAX_NICS + index / PORTS_IN_A_SLOT, index % PORTS_IN_A_SLOT)
}

/// A root port for one function, at a place of the root bus; its name.
fn root_port(arguments: &mut Arguments, function: &str, place: &str, number: usize) -> String {
    let name = format!("port-{function}");
    let port = Properties::of("pcie-root-port").with("id", &name).with("bus", "pcie.0").with("addr", place);
    let port = if place.contains('.') { port.with("multifunction", "on") } else { port };
    arguments.option("-device", port.with("chassis", &(number + 1).to_string()));
    name
}

/// A MAC address of QEMU's range that belongs to this NIC of this VM.
fn mac(vm: &str, index: usize) -> String {
    let Sha256Digest([a, b, c, ..]) = Sha256Digest::of(format!("{vm} nic {index}").as_bytes());
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}
