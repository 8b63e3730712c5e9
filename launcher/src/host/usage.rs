//! Whether a PCI function does something for the host that would end if its driver let go: a mounted disk, swap, a disk that
//! another device is made of, a network interface with an address.
//!
//! Read from the kernel's tables alone, so that known hosts can be judged in tests. What no table shows (a disk that a program
//! has open for itself) is asked of the kernel just before a driver is unbound (`prepare`).

use std::path::Path;

use super::{names, read_trimmed};

/// What the host's disks and networks are used for.
pub(super) struct Usage {
    disks: Vec<Disk>,
    interfaces: Vec<Interface>,
    mounts: Vec<Mount>,
    swaps: Vec<String>,
}

/// A block device or a partition of one.
struct Disk {
    name: String,
    /// The path of its directory in sysfs, the functions that it hangs on among its components.
    place: String,
    number: String,
    holders: Vec<String>,
}

struct Interface {
    name: String,
    place: String,
    is_port: bool,
    has_route: bool,
    is_default_route: bool,
    has_global_address: bool,
}

struct Mount {
    number: String,
    point: String,
    source: String,
}

impl Usage {
    pub(super) fn read(root: &Path) -> Self {
        let text = |path: &str| read_trimmed(&root.join(path)).unwrap_or_default();
        let blocks = root.join("sys/class/block");
        let networks = root.join("sys/class/net");
        let (routes, addresses) = (text("proc/net/route"), text("proc/net/if_inet6"));
        let place = |path: &Path| std::fs::read_link(path).unwrap_or_default().to_string_lossy().into_owned();
        Self {
            disks: names(&blocks)
                .into_iter()
                .map(|name| Disk {
                    place: place(&blocks.join(&name)),
                    number: read_trimmed(&blocks.join(&name).join("dev")).unwrap_or_default(),
                    holders: names(&blocks.join(&name).join("holders")),
                    name,
                })
                .collect(),
            interfaces: names(&networks)
                .into_iter()
                .map(|name| Interface {
                    place: place(&networks.join(&name)),
                    is_port: networks.join(&name).join("master").symlink_metadata().is_ok(),
                    has_route: routes.lines().any(|line| line.split_whitespace().next() == Some(&name)),
                    is_default_route: routes.lines().any(|line| is_default_route(line, &name)),
                    has_global_address: addresses.lines().any(|line| is_global_address(line, &name)),
                    name,
                })
                .collect(),
            mounts: text("proc/self/mountinfo").lines().filter_map(mount).collect(),
            swaps: text("proc/swaps").lines().skip(1).filter_map(|line| Some(first(line)?.to_owned())).collect(),
        }
    }

    /// The block devices behind a function, without their partitions.
    pub(super) fn disks_of(&self, address: &str) -> Vec<String> {
        let whole = self.disks.iter().filter(|disk| disk.is_behind(address, &self.disks));
        whole.filter(|disk| !disk.is_partition(&self.disks)).map(|disk| disk.name.clone()).collect()
    }

    /// What the function at `address` is used for: a phrase for each use.
    pub(super) fn of(&self, address: &str) -> Vec<String> {
        let disks = self.disks.iter().filter(|disk| disk.is_behind(address, &self.disks));
        let disks = disks.flat_map(|disk| self.uses_of_disk(disk));
        let interfaces = self.interfaces.iter().filter(|interface| has_component(&interface.place, address));
        disks.chain(interfaces.filter_map(Interface::in_use)).collect()
    }

    fn uses_of_disk(&self, disk: &Disk) -> Vec<String> {
        let (name, path) = (&disk.name, format!("/dev/{}", disk.name));
        // A file system over several disks (btrfs) shows one of them as its source, and a number of its own.
        let mounted = self.mounts.iter().find(|mount| mount.number == disk.number || mount.source == path);
        let mounted = mounted.map(|mount| format!("{name} is mounted on {}", mount.point));
        let swap = self.swaps.contains(&path).then(|| format!("{name} is swap space"));
        let held = (!disk.holders.is_empty()).then(|| format!("{name} is a part of {}", disk.holders.join(", ")));
        [mounted, swap, held].into_iter().flatten().collect()
    }
}

impl Disk {
    fn is_behind(&self, address: &str, all: &[Disk]) -> bool {
        if has_component(&self.place, address) {
            return true;
        }
        // With native multipath an NVMe namespace is a device of no controller, beside a hidden one for each path to it.
        all.iter().any(|path| {
            has_component(&path.place, address)
                && head_of_path(&path.name)
                    .is_some_and(|head| self.name == head || self.place.contains(&format!("/{head}/")))
        })
    }

    fn is_partition(&self, all: &[Disk]) -> bool {
        all.iter()
            .any(|whole| whole.name != self.name && self.place.ends_with(&format!("/{}/{}", whole.name, self.name)))
            || head_of_path(&self.name).is_some()
    }
}

/// `nvme0n1` of `nvme0c3n1`.
fn head_of_path(name: &str) -> Option<String> {
    let (subsystem, rest) = name.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    [subsystem, controller, namespace].into_iter().all(digits).then(|| format!("nvme{subsystem}n{namespace}"))
}

impl Interface {
    fn in_use(&self) -> Option<String> {
        let name = &self.name;
        if self.is_default_route {
            Some(format!("{name} has the default route"))
        } else if self.has_route || self.has_global_address {
            Some(format!("{name} has an address"))
        } else if self.is_port {
            Some(format!("{name} is a port of a bridge or bond"))
        } else {
            None
        }
    }
}

fn has_component(path: &str, name: &str) -> bool {
    path.split('/').any(|component| component == name)
}

fn first(line: &str) -> Option<&str> {
    line.split_whitespace().next()
}

/// `/proc/net/route`: interface, destination, gateway, ..., mask in the eighth column.
fn is_default_route(line: &str, interface: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    words.first() == Some(&interface) && words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")
}

/// `/proc/net/if_inet6`: address, index, prefix length, scope, flags, interface. Scope 0 is global.
fn is_global_address(line: &str, interface: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    words.get(5) == Some(&interface) && words.get(3) == Some(&"00")
}

/// A line of mountinfo (proc(5)): the third word is the device's number, the fifth the mount point, and the second after the
/// lone hyphen the source.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut words = before.split_whitespace().skip(2);
    let (number, point) = (words.next()?, words.nth(1)?);
    let source = after.split_whitespace().nth(1)?;
    Some(Mount { number: number.to_owned(), point: point.to_owned(), source: source.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn host(files: &[(&str, &str)], links: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        // A link in sysfs leads to a directory that is there.
        for (path, target) in links {
            let path = place(path);
            std::os::unix::fs::symlink(target, &path).unwrap();
            fs::create_dir_all(path.parent().unwrap().join(target)).unwrap();
        }
        for (path, text) in files {
            fs::write(place(path), text).unwrap();
        }
        root
    }

    fn uses(files: &[(&str, &str)], links: &[(&str, &str)], address: &str) -> Vec<String> {
        Usage::read(host(files, links).path()).of(address)
    }

    const DISK: (&str, &str) = ("sys/class/block/nvme0n1", "../../devices/pci0000:40/0000:41:00.0/nvme/nvme0/nvme0n1");
    const PARTITION: (&str, &str) =
        ("sys/class/block/nvme0n1p2", "../../devices/pci0000:40/0000:41:00.0/nvme/nvme0/nvme0n1/nvme0n1p2");

    #[test]
    fn a_mounted_disk_is_in_use_by_number_and_by_name() {
        let numbers = [("sys/class/block/nvme0n1/dev", "259:0\n"), ("sys/class/block/nvme0n1p2/dev", "259:2\n")];
        for line in [
            "25 1 259:2 / /srv/data rw,relatime shared:1 - ext4 /dev/root rw\n",
            "25 1 0:31 / /srv/data rw - btrfs /dev/nvme0n1p2 rw,subvol=/\n",
        ] {
            let files = [numbers.as_slice(), &[("proc/self/mountinfo", line)]].concat();
            assert_eq!(uses(&files, &[DISK, PARTITION], "0000:41:00.0"), ["nvme0n1p2 is mounted on /srv/data"]);
            assert_eq!(uses(&files, &[DISK, PARTITION], "0000:42:00.0"), [""; 0]);
        }
        assert_eq!(Usage::read(host(&[], &[DISK, PARTITION]).path()).disks_of("0000:41:00.0"), ["nvme0n1"]);
        assert_eq!(uses(&numbers, &[DISK, PARTITION], "0000:41:00.0"), [""; 0]);
    }

    #[test]
    fn swap_and_parts_of_other_devices_are_in_use() {
        let swap = "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 1 0 -2\n";
        assert_eq!(uses(&[("proc/swaps", swap)], &[DISK, PARTITION], "0000:41:00.0"), ["nvme0n1p2 is swap space"]);
        let held = [("sys/class/block/nvme0n1p2/holders/dm-0/x", "")];
        assert_eq!(uses(&held, &[DISK, PARTITION], "0000:41:00.0"), ["nvme0n1p2 is a part of dm-0"]);
    }

    #[test]
    fn a_disk_behind_several_paths_is_found() {
        let links = [
            ("sys/class/block/nvme0c3n1", "../../devices/pci0000:40/0000:41:00.0/nvme/nvme3/nvme0c3n1"),
            ("sys/class/block/nvme0n1", "../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"),
            ("sys/class/block/nvme0n1p1", "../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p1"),
            ("sys/class/block/nvme1n1", "../../devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1"),
        ];
        let mounted = [
            ("sys/class/block/nvme0n1p1/dev", "259:5\n"),
            ("sys/class/block/nvme1n1/dev", "259:6\n"),
            ("proc/self/mountinfo", "1 0 259:5 / / rw - ext4 x rw\n2 1 259:6 / /other rw - ext4 y rw\n"),
        ];
        assert_eq!(uses(&mounted, &links, "0000:41:00.0"), ["nvme0n1p1 is mounted on /"]);
        assert_eq!(Usage::read(host(&mounted, &links).path()).disks_of("0000:41:00.0"), ["nvme0n1"]);
    }

    #[test]
    fn an_interface_is_in_use_while_something_goes_over_it() {
        let link = [("sys/class/net/eth0", "../../devices/pci0000:00/0000:01:00.0/virtio0/net/eth0")];
        let of = |files: &[(&str, &str)]| uses(files, &link, "0000:01:00.0");
        assert_eq!(of(&[]), [""; 0]);
        let head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let default = format!("{head}eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\n");
        assert_eq!(of(&[("proc/net/route", &default)]), ["eth0 has the default route"]);
        let local = format!("{head}eth0 0000000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n");
        assert_eq!(of(&[("proc/net/route", &local)]), ["eth0 has an address"]);
        let global = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        assert_eq!(of(&[("proc/net/if_inet6", global)]), ["eth0 has an address"]);
        let link_local = "fe800000000000000000000000000001 02 40 20 80     eth0\n";
        assert_eq!(of(&[("proc/net/if_inet6", link_local)]), [""; 0]);
        assert_eq!(of(&[("sys/class/net/eth0/master", "")]), ["eth0 is a port of a bridge or bond"]);
    }

    proptest! {
        #[test]
        fn any_tables_are_read(text in ".{0,200}", name in "[a-z0-9]{0,12}") {
            let _ = (mount(&text), is_default_route(&text, &name), is_global_address(&text, &name), head_of_path(&text));
        }
    }
}
