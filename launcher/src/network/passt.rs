//! User-mode networking by passt, a process beside QEMU that speaks for one NIC (passt(1)): frames go through a socket that both
//! inherit, so QEMU itself reaches no network, and what answers the guest's packets is confined on its own.
//!
//! It has the addresses that QEMU's user mode has, unless the guest's configuration names others, and gives the guest no name and
//! no way to the host's own loopback addresses. It cannot be told to let nothing out: a NIC that is not to reach anything stays
//! with QEMU's own user mode (`restrict=on`).

use core::net::Ipv4Addr;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use spec::network::Network;
use spec::vm::{Nic, Protocol};

use crate::child::{self, Child, Place};
use crate::confine::Confinement;

/// The number of the socket to QEMU in passt.
const SOCKET: i32 = 3;

/// A passt that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passt {
    /// The NIC it speaks for.
    pub nic: usize,
    /// The whole command.
    pub argv: Vec<String>,
    /// What it sees of its host; none where QEMU is not confined either.
    pub(crate) confinement: Option<Confinement>,
}

impl Passt {
    /// The passt of NIC `index`, started by the words of `command`, which is of a tree of packages.
    pub(crate) fn new(command: &[String], tree: &Path, index: usize, nic: &Nic, guest: Option<&Network>) -> Self {
        let mut argv = command.to_vec();
        argv.extend(words(nic, index, guest));
        let mut confinement = Confinement::new(vec![tree.to_owned()]);
        confinement.speaks_for_guest();
        Self { nic: index, argv, confinement: Some(confinement) }
    }

    /// Starts it; the descriptor is QEMU's. Over `mount_point`, an empty directory, the root is mounted that it sees.
    pub(crate) fn start(&self, mount_point: &Path, group: Option<File>) -> io::Result<(OwnedFd, Child)> {
        let (ours, its) = UnixStream::pair()?;
        let confinement = self.confinement.as_ref().map(|confinement| (confinement, mount_point));
        let place = Place { confinement, group };
        let child = child::spawn_in(&self.argv, &BTreeMap::new(), vec![(SOCKET, its.into())], place)?;
        Ok((ours.into(), child))
    }
}

/// What the guest's side of the network looks like: address, prefix, gateway, and whom it asks for names.
struct Sight {
    address: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
    resolver: Option<Ipv4Addr>,
}

impl Sight {
    /// The configuration is of the guest's first NIC.
    fn of(index: usize, guest: Option<&Network>) -> Self {
        let configured = guest.filter(|_| index == 0).and_then(|network| Some((network, network.parts()?)));
        let Some((network, (address, prefix))) = configured else {
            let [address, gateway, resolver] = [15, 2, 3].map(|host| Ipv4Addr::new(10, 0, 2, host));
            return Self { address, prefix: 24, gateway, resolver: Some(resolver) };
        };
        let host_bits = 32 - u32::from(prefix);
        let inside = |other: &Ipv4Addr| other.to_bits() >> host_bits == address.to_bits() >> host_bits;
        // One that is elsewhere is reached like everything else.
        let resolver = network.nameservers.iter().copied().find(inside);
        // What is forwarded comes from this address: without a route elsewhere, the guest answers nobody outside its own network.
        let base = address.to_bits() >> host_bits << host_bits;
        let neighbours = [2, 1].map(|host| Ipv4Addr::from_bits(base + host));
        let free = neighbours.into_iter().find(|other| *other != address && Some(*other) != resolver);
        // Of two hosts of the smallest network, the other may be the resolver.
        Self { address, prefix, gateway: network.gateway.or(free).or(resolver).unwrap_or(address), resolver }
    }
}

fn words(nic: &Nic, index: usize, guest: Option<&Network>) -> Vec<String> {
    let sight = Sight::of(index, guest);
    let mut words: Vec<String> = [
        "--foreground",
        "--quiet",
        "--ipv4-only",
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ndp",
        "--no-ra",
        // The host's loopback is no part of the network that a guest was given.
        "--no-map-gw",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("--fd", SOCKET.to_string());
    option("--address", sight.address.to_string());
    option("--netmask", sight.prefix.to_string());
    option("--gateway", sight.gateway.to_string());
    if let Some(resolver) = sight.resolver {
        option("--dns-forward", resolver.to_string());
    }
    for forward in &nic.forward {
        let name = match forward.protocol {
            Protocol::Tcp => "--tcp-ports",
            Protocol::Udp => "--udp-ports",
        };
        option(name, format!("{}/{}:{}", forward.address, forward.host, forward.guest));
    }
    words
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::network::Speaker;
    use crate::qemu::QemuProgram;

    fn line(index: usize, nic: &str, guest: Option<&Network>) -> String {
        let nic: Nic = serde_json::from_str(nic).unwrap();
        let argv = Passt::new(&["passt".to_owned()], Path::new("/tree"), index, &nic, guest).argv;
        argv[9..].join(" ")
    }

    #[test]
    fn a_guest_sees_what_its_configuration_says_and_else_what_qemu_would_show() {
        let usual = "--fd 3 --address 10.0.2.15 --netmask 24 --gateway 10.0.2.2 --dns-forward 10.0.2.3";
        assert_eq!(line(0, "{}", None), usual);
        let guest: Network = serde_json::from_str(
            r#"{"address": "192.168.7.9/29", "gateway": "192.168.7.10", "nameservers": ["9.9.9.9", "192.168.7.11"]}"#,
        )
        .unwrap();
        let own = "--fd 3 --address 192.168.7.9 --netmask 29 --gateway 192.168.7.10 --dns-forward 192.168.7.11";
        assert_eq!(line(0, "{}", Some(&guest)), own);
        assert_eq!(line(1, "{}", Some(&guest)), usual, "the configuration is of the first");
        let closed = Network { gateway: None, nameservers: Vec::new(), ..guest };
        let neighbour = "--fd 3 --address 192.168.7.9 --netmask 29 --gateway 192.168.7.10";
        assert_eq!(line(0, "{}", Some(&closed)), neighbour, "what is forwarded comes from the guest's own network");
        let smallest = Network {
            address: "192.168.7.9/30".to_owned(),
            gateway: None,
            nameservers: vec![[192, 168, 7, 10].into()],
        };
        let both = "--fd 3 --address 192.168.7.9 --netmask 30 --gateway 192.168.7.10 --dns-forward 192.168.7.10";
        assert_eq!(line(0, "{}", Some(&smallest)), both);
        let forward = r#"{"forward": [{"host": 8443, "guest": 443}, {"protocol": "udp", "address": "0.0.0.0", "host": 53, "guest": 5353}]}"#;
        assert_eq!(
            line(0, forward, None),
            format!("{usual} --tcp-ports 127.0.0.1/8443:443 --udp-ports 0.0.0.0/53:5353")
        );
    }

    /// A port that nobody has a moment later.
    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// passt itself is the judge of the words, and the kernel of what it sees.
    #[test]
    fn it_runs_confined_listens_and_ends_with_qemu_or_says_why_it_cannot() {
        let Some(tree) = std::env::var_os("BULLION_TEST_QEMU_TREE") else {
            eprintln!("skipped: BULLION_TEST_QEMU_TREE is not set");
            return;
        };
        let tree = Path::new(&tree);
        let command = QemuProgram::from_tree(tree).unwrap().passt.expect("the pinned tree has passt");
        let place = tempfile::tempdir().unwrap();
        let start = |port: u16| {
            let nic: Nic =
                serde_json::from_str(&format!(r#"{{"forward": [{{"host": {port}, "guest": 80}}]}}"#)).unwrap();
            let (socket, child) = Passt::new(&command, tree, 0, &nic, None).start(place.path(), None).unwrap();
            let id = child.id();
            (socket, Speaker::new(0, child, tempfile::tempfile().unwrap()).unwrap(), id)
        };
        let within = |what: &str, done: &mut dyn FnMut() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !done() {
                assert!(Instant::now() < deadline, "{what}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let port = free_port();
        let (socket, mut speaker, id) = start(port);
        within("it listens", &mut || TcpStream::connect(("127.0.0.1", port)).is_ok());
        // It listens before it has shut itself up.
        let shut_up = ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"];
        within("it has no rights left", &mut || {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            shut_up.iter().all(|line| status.contains(line))
        });
        let mut over = None;
        drop(socket);
        within("it ends with QEMU's end of the socket", &mut || {
            over = speaker.over().unwrap();
            over.is_some()
        });
        assert!(over.as_ref().is_some_and(|over| over.perhaps_with_qemu), "{over:?}");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let (_socket, mut speaker, _) = start(taken.local_addr().unwrap().port());
        within("it says that the port is taken", &mut || {
            over = speaker.over().unwrap();
            over.is_some()
        });
        assert!(
            over.as_ref()
                .is_some_and(|over| !over.perhaps_with_qemu && over.words.iter().any(|line| line.contains("bind"))),
            "{over:?}"
        );
    }
}
