//! Packages configured by dpkg itself, with their maintainer scripts, in a root and in namespaces of their own. All that
//! runs in there comes from the locked packages; the host lends `unshare`, `mount` and `chroot`, and is not changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use image::deb::{self, EntryKind};
use spec::lock::{Lock, Use};
use store::Store;

/// Namespaces without a network, in which every mount and process ends with the command.
const NAMESPACES: [&str; 7] = ["--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts"];

/// First the toolbox, whose files have no owners and modes, unpacks all packages as dpkg-deb does; dpkg runs among the result.
const SCRIPT: &str = r#"
set -eu
umask 022
target=$1/target
chroot "$1" sh -c 'for deb in /target/debs/base-files.deb /target/debs/*.deb; do dpkg-deb -x "$deb" /target; done'
mkdir -p "$target/var/lib/dpkg"
: > "$target/var/lib/dpkg/status"
mount -t proc proc "$target/proc"
for node in null zero full random urandom; do : > "$target/dev/$node"; mount --bind "/dev/$node" "$target/dev/$node"; done
printf '#!/bin/sh\nexit 101\n' > "$target/usr/sbin/policy-rc.d"
chmod 755 "$target/usr/sbin/policy-rc.d"
chroot "$target" sh -c '
  set -eu
  install="dpkg --force-depends --force-confnew --force-unsafe-io"
  $install --unpack /debs/base-passwd.deb /debs/base-files.deb
  $install --configure base-passwd base-files
  $install --unpack /debs/*.deb
  dpkg --configure --pending
  rm -r /debs'
"#;

/// Why it cannot be done here.
pub(crate) fn cannot_run() -> Option<&'static str> {
    let tried = Command::new("unshare").args(NAMESPACES).args(["mount", "-t", "tmpfs", "none", "/mnt"]).output();
    match tried {
        Ok(output) if output.status.success() && nix::unistd::geteuid().is_root() => None,
        _ => Some("dpkg configures packages as root only, where namespaces can be made"),
    }
}

/// The root that dpkg configures the packages of a lock in, below `directory`.
pub(crate) fn configured(lock: &Lock, directory: &Path) -> PathBuf {
    let store = Store::open(&Store::default_dir().unwrap()).unwrap();
    let toolbox = directory.join("toolbox");
    let target = toolbox.join("target");
    std::fs::create_dir_all(target.join("debs")).unwrap();
    let mut packages: Vec<_> = lock.package.iter().filter(|package| package.uses.contains(&Use::Tree)).collect();
    // It brings the links of a merged /usr.
    packages.sort_by_key(|package| package.name != "base-files");
    for package in packages {
        let bytes = store.read(&package.sha256, package.size).unwrap();
        unpack(&deb::read(&bytes).unwrap(), &toolbox);
        std::fs::write(target.join("debs").join(format!("{}.deb", package.name)), bytes).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(NAMESPACES).args(["sh", "-c", SCRIPT, "sh"]).arg(&toolbox).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root").env("LC_ALL", "C");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("DEBCONF_NONINTERACTIVE_SEEN", "true");
    command.env("SOURCE_DATE_EPOCH", "1");
    let run = e2e::run(&mut command);
    assert_eq!(run.code, 0, "{run:#?}");
    target
}

/// Files and links, enough to run programs from.
fn unpack(package: &deb::Package, root: &Path) {
    for entry in &package.entries {
        let place = root.join(&entry.path);
        let above = place.parent().unwrap_or(root);
        std::fs::create_dir_all(above).unwrap();
        match &entry.kind {
            EntryKind::Directory => std::fs::create_dir_all(&place).unwrap(),
            EntryKind::File(content) => {
                std::fs::write(&place, content.bytes()).unwrap();
                let mode = std::os::unix::fs::PermissionsExt::from_mode(u32::from(entry.mode));
                std::fs::set_permissions(&place, mode).unwrap();
            }
            EntryKind::Symlink(target) => std::os::unix::fs::symlink(target, &place).unwrap(),
            EntryKind::HardLink(first) => std::fs::hard_link(root.join(first), &place).unwrap(),
        }
    }
}
