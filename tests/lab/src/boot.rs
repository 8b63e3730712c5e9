//! How the server starts: with the kernel of its image, and an initrd that gives way to systemd instead of to `bullion-guest`.
//!
//! The kernel unpacks several archives one over the other: the image's own, with the modules, then a small one with Debian's busybox
//! and another `/init`. The root is the image's, read-only, below an overlay in memory. With a kernel of its own (component
//! `lab-kernel`), in which everything is built in, the image's modules stay unused, and `modprobe` is told what there is. What a
//! test has put into `etc` of the state disk is in `/etc` before systemd starts, as on a server whose root is a disk.

use image::cpio::{Entry, write_newc};

const INIT: &str = r#"#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
while read -r when name rest; do
  [ -e /modules.builtin ] || { [ "$when" = boot ] && busybox insmod "/modules/$name.ko"; }
done < /etc/bullion/modules
busybox mkdir -p /lower /upper /new
while [ ! -e /dev/vda ]; do busybox sleep 0.1; done
busybox mount -t erofs -o ro /dev/vda /lower
[ -e /modules.builtin ] || busybox insmod /lower/usr/lib/bullion/modules/overlay.ko
busybox mount -t tmpfs tmpfs /upper
busybox mkdir /upper/up /upper/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/up,workdir=/upper/work overlay /new
if [ -e /modules.builtin ]; then
  modules=/lib/modules/$(busybox uname -r)
  busybox mkdir -p "/new$modules"
  busybox cp /modules.builtin "/new$modules/"
  busybox touch "/new$modules/modules.order"
  busybox chroot /new /usr/sbin/depmod
fi
busybox mount --move /dev /new/dev
busybox mount --bind /proc /lower/proc
busybox mount --bind /sys /lower/sys
busybox chroot /lower /usr/sbin/modprobe -q ext4
busybox mkdir /state
if busybox mount -t ext4 /new/dev/vdc /state 2>/dev/null; then
  [ -d /state/etc ] && busybox cp -a /state/etc/. /new/etc/
  busybox umount /state
fi
busybox cp /bin/busybox /new/usr/local/sbin/busybox
busybox umount /lower/proc /lower/sys /sys /proc
exec busybox switch_root /new /usr/lib/systemd/systemd
"#;

/// The words of the kernel's command line. Timers are not tried out and the clock is not the processor's: both are judged by how
/// fast the machine is that emulates this one, which may be busy; systemd waits ten minutes for the same reason, where it would
/// take a slow disk for one that is not there.
pub(crate) const COMMAND_LINE: &str = "console=ttyS0 panic=-1 intel_iommu=on no_timer_check clocksource=acpi_pm rcupdate.rcu_cpu_stall_suppress=1 systemd.default_device_timeout_sec=600 systemd.default_timeout_start_sec=600 loglevel=4";

/// The image's initrd, with what makes a server of it; `built_in` lists the modules of a kernel that has them built in.
pub(crate) fn initrd(mut image: Vec<u8>, busybox: &[u8], built_in: Option<&[u8]>) -> Vec<u8> {
    // Archives begin at multiples of four.
    image.resize(image.len().next_multiple_of(4), 0);
    let entry = |path, mode, content| Entry { path, mode, device: (0, 0), content };
    let entries = [
        entry("bin", 0o040_755, &[][..]),
        entry("bin/busybox", 0o100_755, busybox),
        entry("init", 0o100_755, INIT.as_bytes()),
    ];
    let list = built_in.map(|list| entry("modules.builtin", 0o100_644, list));
    write_newc(&mut image, entries.into_iter().chain(list)).unwrap();
    image
}
