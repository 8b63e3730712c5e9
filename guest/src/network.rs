//! The guest's network interfaces: loopback, which programs expect, and the NIC with the address of the configuration.
//!
//! What is behind the NIC is the host's. So nothing that it says configures anything (no DHCP, no router advertisements, no
//! redirects), and only what a container publishes is reached from there; the rules for that are in place before the
//! interface is up.
//!
//! ABI: Linux `include/uapi/linux/if.h`, `sockios.h`, `in.h` and `route.h`.
#![allow(unsafe_code, reason = "interfaces are set up by ioctls on structures that the kernel reads")]

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use spec::network::Network;

use crate::children::{Children, Program};
use crate::failure::{Failure, OrFail as _, Stage};
use crate::writable;

/// How long a NIC may take to appear after its driver was loaded.
const PATIENCE: Duration = Duration::from_secs(10);
/// IFF_UP.
const UP: u16 = 1;
/// RTF_UP and RTF_GATEWAY.
const ROUTE_BY_GATEWAY: u16 = 3;
/// AF_INET.
const INET: u16 = 2;

/// `struct sockaddr_in`; all zeros is no address.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Address {
    family: u16,
    port: u16,
    bytes: [u8; 4],
    rest: [u8; 8],
}

impl Address {
    fn of(address: Ipv4Addr) -> Self {
        Self { family: INET, bytes: address.octets(), ..Self::default() }
    }
}

/// `struct ifreq` with flags.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `struct ifreq` with an address.
#[repr(C)]
struct InterfaceAddress {
    name: [u8; 16],
    address: Address,
    rest: [u8; 8],
}

/// `struct rtentry` without a device, metric or limit.
#[repr(C)]
#[derive(Default)]
struct Route {
    first: u64,
    destination: Address,
    gateway: Address,
    mask: Address,
    flags: u16,
    rest: [u16; 3],
    more: [u64; 7],
}

const _: () = assert!(size_of::<InterfaceFlags>() == 40);
const _: () = assert!(size_of::<InterfaceAddress>() == 40);
const _: () = assert!(size_of::<Route>() == 120);

nix::ioctl_write_ptr_bad!(set_flags, 0x8914, InterfaceFlags);
nix::ioctl_write_ptr_bad!(set_address, 0x8916, InterfaceAddress);
nix::ioctl_write_ptr_bad!(set_mask, 0x891c, InterfaceAddress);
nix::ioctl_write_ptr_bad!(add_route, 0x890b, Route);

/// Brings `lo` up.
pub(crate) fn bring_loopback_up() -> nix::Result<()> {
    up(&control()?, "lo")
}

/// Gives the NIC its address, once nothing but published ports can be reached through it.
pub(crate) fn configure(network: &Network, children: &Children) -> Result<(), Failure> {
    let nic = wait_for_nic()?;
    tell_kernel(&nic).or_fail_doing(Stage::Network, format_args!("setting what {nic} listens to"))?;
    let rules = format!("{}/firewall", writable::RUN);
    writable::make(writable::RUN)?;
    fs::write(&rules, firewall(&nic)).or_fail_doing(Stage::Network, &rules)?;
    children.run(&Program::new(["/usr/sbin/nft", "--file", &rules])).or_fail(Stage::Network)?;
    let doing = format_args!("giving {nic} the address {}", network.address);
    assign(network, &nic).or_fail_doing(Stage::Network, doing)
}

fn assign(network: &Network, nic: &str) -> nix::Result<()> {
    let (address, length) = network.parts().ok_or(nix::errno::Errno::EINVAL)?;
    let mask = Ipv4Addr::from_bits(u32::MAX << (32 - u32::from(length)));
    let request = |address| InterfaceAddress { name: name(nic), address: Address::of(address), rest: [0; 8] };
    let (ours, mask, socket) = (request(address), request(mask), control()?);
    // SAFETY: the kernel reads 40 bytes at each address, which is the size of the structure (checked above).
    unsafe {
        set_address(socket.as_raw_fd(), &raw const ours)?;
        set_mask(socket.as_raw_fd(), &raw const mask)?;
    }
    up(&socket, nic)?;
    let Some(gateway) = network.gateway else { return Ok(()) };
    let anywhere = Address::of(Ipv4Addr::UNSPECIFIED);
    let (gateway, flags) = (Address::of(gateway), ROUTE_BY_GATEWAY);
    let route = Route { destination: anywhere, gateway, mask: anywhere, flags, ..Route::default() };
    // SAFETY: the kernel reads 120 bytes at the address, which is the size of the structure (checked above), and follows
    // its one pointer, the device's name, only where it is not null.
    unsafe { add_route(socket.as_raw_fd(), &raw const route) }?;
    Ok(())
}

/// `/etc/resolv.conf`. It is there without a network too: the resolver of container networks does not start without it.
pub(crate) fn resolver(network: Option<&Network>) -> String {
    let servers = network.map(|network| network.nameservers.as_slice()).unwrap_or_default();
    servers.iter().map(|server| format!("nameserver {server}\n")).collect()
}

/// Rules for `nft`: from the NIC come answers, and what a published port turns to a container. They stand before those that
/// container networks bring, and what they drop is dropped for good.
fn firewall(nic: &str) -> String {
    let chain = |hook: &str, but: &str| {
        format!(
            "chain {hook} {{ type filter hook {hook} priority -10; policy accept;\n\
             iifname \"{nic}\" ct state established,related accept\n{but}iifname \"{nic}\" drop\n}}\n"
        )
    };
    let published = format!("iifname \"{nic}\" ct status dnat accept\n");
    format!("table inet bullion {{\n{}{}}}\n", chain("input", ""), chain("forward", &published))
}

/// No address, route or neighbour that the network offers is taken.
fn tell_kernel(nic: &str) -> std::io::Result<()> {
    let of = |family: &str, interface: &str, key: &str| format!("/proc/sys/net/{family}/conf/{interface}/{key}");
    fs::write(of("ipv4", nic, "accept_redirects"), "0")?;
    fs::write(of("ipv4", "all", "accept_redirects"), "0")?;
    let version_6 = of("ipv6", nic, "disable_ipv6");
    if Path::new(&version_6).exists() { fs::write(version_6, "1") } else { Ok(()) }
}

/// The first interface by name that has a device behind it. Which one it is does not matter: all are the host's.
fn wait_for_nic() -> Result<String, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(nic) = nics(Path::new("/sys/class/net")).into_iter().next() {
            return Ok(nic);
        }
        if Instant::now() >= deadline {
            let reason = format_args!("no network interface after {} s, or no driver for it", PATIENCE.as_secs());
            return Err(Failure::new(Stage::Network, reason));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn nics(class: &Path) -> Vec<String> {
    let entries = fs::read_dir(class).into_iter().flatten().flatten();
    let devices = entries.filter(|entry| entry.path().join("device").exists());
    let mut names: Vec<String> = devices.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn control() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
}

/// A name as the kernel reads it: of at most 15 bytes, which is what it gives interfaces.
fn name(interface: &str) -> [u8; 16] {
    let mut name = [0; 16];
    name.iter_mut().zip(interface.bytes().take(15)).for_each(|(slot, byte)| *slot = byte);
    name
}

fn up(socket: &OwnedFd, interface: &str) -> nix::Result<()> {
    let request = InterfaceFlags { name: name(interface), flags: UP, rest: [0; 22] };
    // SAFETY: the kernel reads 40 bytes at the address, which is the size of the structure (checked above).
    unsafe { set_flags(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_is_an_interface_with_a_device() {
        let class = tempfile::tempdir().unwrap();
        for (name, device) in [("lo", false), ("eth1", true), ("eth0", true), ("podman0", false)] {
            fs::create_dir_all(class.path().join(name)).unwrap();
            if device {
                fs::create_dir(class.path().join(name).join("device")).unwrap();
            }
        }
        assert_eq!(nics(class.path()), ["eth0", "eth1"]);
        assert!(nics(&class.path().join("absent")).is_empty());
    }

    #[test]
    fn name_servers_are_those_of_the_configuration() {
        let nameservers = vec![Ipv4Addr::new(10, 0, 2, 3)];
        let network = Network { address: "10.0.2.15/24".to_owned(), gateway: None, nameservers };
        assert_eq!(resolver(Some(&network)), "nameserver 10.0.2.3\n");
        assert_eq!(resolver(None), "");
    }
}
