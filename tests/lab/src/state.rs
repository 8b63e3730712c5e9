//! What a scenario must leave as it found it: drivers of devices, huge pages, processes, mounts, files. Asked with the server's
//! own tools, not with ours.

use crate::server::Server;

/// The lines that describe a server, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostState(Vec<String>);

/// Threads of the kernel come and go, and so do systemd's helpers.
const QUESTIONS: &str = r#"
for device in /sys/bus/pci/devices/*; do
  driver=$(readlink $device/driver || true)
  echo "device ${device##*/} driver ${driver##*/} override $(cat $device/driver_override)"
done
for pages in /sys/kernel/mm/hugepages/*/nr_hugepages /sys/devices/system/node/node*/hugepages/*/nr_hugepages; do
  echo "pages $pages $(cat $pages)"
done
ps -eo ppid=,comm=,args= | awk '$1 != 2 && ($2 ~ /^qemu|^bullion/ || $3 ~ /qemu-system|\/bullion/) { print "process", $0 }'
awk '{ print "mount", $5, $9, $10 }' /proc/self/mountinfo | grep -v '/run/credentials'
find /run/bullion /var/lib/bullion /etc/modprobe.d /etc/udev /etc/sysctl.d /etc/systemd/system -mindepth 1 2>/dev/null | sed 's/^/file /' | grep -v -e '\.lock$'
ls -l /dev/kvm /dev/vfio 2>/dev/null | awk 'NF > 3 { print "node", $1, $3, $4, $NF }'
ls /sys/class/net | sed 's/^/link /'
"#;

impl HostState {
    /// As it is now.
    #[track_caller]
    pub fn of(server: &mut Server<'_>) -> Self {
        let mut lines: Vec<String> = server.run(QUESTIONS).stdout.lines().map(str::to_owned).collect();
        lines.sort();
        Self(lines)
    }

    /// Asserts that nothing differs.
    #[track_caller]
    pub fn expect_same(&self, now: &Self) {
        let only = |a: &Self, b: &Self| a.0.iter().filter(|line| !b.0.contains(line)).cloned().collect::<Vec<_>>();
        let (gone, new) = (only(self, now), only(now, self));
        assert!(gone.is_empty() && new.is_empty(), "the host is not as it was: gone {gone:#?}, new {new:#?}");
    }
}
