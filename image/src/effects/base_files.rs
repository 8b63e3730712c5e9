//! What the scripts of base-files, libc-bin, libpam-modules, netbase, readline-common and tzdata lay out on a new system:
//! directories, links, the names of this host, and configuration copied from `/usr/share`.

use super::accounts::Accounts;
use super::{EffectError, add_directory, add_file, add_link, set_owner};
use crate::tree::Tree;

const EFFECT: &str = "the base-files effect";

/// From where to where; nothing is copied over a file that is there.
const DEFAULTS: [(&str, &str); 7] = [
    ("usr/share/readline/inputrc", "etc/inputrc"),
    ("usr/share/base-files/dot.profile", "root/.profile"),
    ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
    ("usr/share/base-files/profile", "etc/profile"),
    ("usr/share/base-files/motd", "etc/motd"),
    ("usr/share/base-files/info.dir", "usr/share/info/dir"),
    ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
];
const DIRECTORIES: [&str; 16] = [
    "mnt",
    "srv",
    "opt",
    "etc/opt",
    "var/opt",
    "media",
    "usr/local/share",
    "usr/local/share/man",
    "usr/local/bin",
    "usr/local/games",
    "usr/local/lib",
    "usr/local/libexec",
    "usr/local/include",
    "usr/local/sbin",
    "usr/local/src",
    "usr/local/etc",
];
/// What netbase writes where nobody has.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n\n";
const NETWORKS: &str = "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n\n";
/// Directories of the package that become links, because what belongs in them is gone after each boot.
const MOVED: [(&str, &str); 2] = [("var/run", "/run"), ("var/lock", "/run/lock")];
/// Path, mode; of root and the group utmp.
const LOGS: [(&str, u16); 3] = [("var/log/wtmp", 0o664), ("var/log/btmp", 0o660), ("var/log/lastlog", 0o664)];

pub(super) fn apply(tree: &mut Tree) -> Result<(), EffectError> {
    for (from, to) in DEFAULTS {
        // The directory of info pages has an entry only where there is such a directory.
        let wanted = !to.starts_with("usr/share/info") || tree.get("usr/share/info").is_some();
        if let Some(content) = tree.file(from).filter(|_| wanted).map(<[u8]>::to_vec) {
            add_file(tree, to, 0o644, content, EFFECT);
        }
    }
    if tree.get("usr/share/base-files").is_some() {
        base_files(tree)?;
    }
    // netbase, by a file that no other package has.
    if tree.get("etc/ethertypes").is_some() {
        add_file(tree, "etc/hosts", 0o644, HOSTS.as_bytes().to_vec(), EFFECT);
        add_file(tree, "etc/networks", 0o644, NETWORKS.as_bytes().to_vec(), EFFECT);
    }
    if tree.get("usr/share/zoneinfo/Etc/UTC").is_some() {
        add_link(tree, "etc/localtime", "/usr/share/zoneinfo/Etc/UTC", EFFECT);
    }
    if tree.get("etc/dpkg/origins/debian").is_some() {
        add_link(tree, "etc/dpkg/origins/default", "debian", EFFECT);
    }
    if tree.get("etc/security").is_some() {
        add_file(tree, "etc/security/opasswd", 0o600, Vec::new(), EFFECT);
        add_file(tree, "etc/environment", 0o644, Vec::new(), EFFECT);
    }
    Ok(())
}

fn base_files(tree: &mut Tree) -> Result<(), EffectError> {
    let accounts = Accounts::of(tree)?;
    DIRECTORIES.iter().for_each(|path| add_directory(tree, path, 0o755, EFFECT));
    add_link(tree, "usr/local/man", "share/man", EFFECT);
    if tree.get("var/mail").is_none() {
        add_directory(tree, "var/mail", 0o2775, EFFECT);
        set_owner(tree, "var/mail", 0, accounts.gid("mail").unwrap_or(0));
    }
    add_directory(tree, "var/spool", 0o755, EFFECT);
    add_link(tree, "var/spool/mail", "../mail", EFFECT);
    for (path, target) in MOVED {
        if tree.below(path).next().is_none() {
            tree.insert(path, crate::tree::Node::symlink(target, EFFECT));
        }
    }
    for (path, mode) in LOGS {
        if tree.get(path).is_none() {
            add_file(tree, path, mode, Vec::new(), EFFECT);
            set_owner(tree, path, 0, accounts.gid("utmp").unwrap_or(0));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Kind, Node};

    #[test]
    fn nothing_is_laid_out_without_the_package() {
        let mut tree = Tree::default();
        apply(&mut tree).unwrap();
        assert_eq!(tree.len(), 1);
    }

    #[test]
    fn configuration_is_copied_where_there_is_none() {
        let mut tree = Tree::default();
        tree.insert("usr/share/base-files", Node::directory(0o755, "t"));
        tree.insert("usr/share/base-files/profile", Node::file(b"new".to_vec(), 0o644, "t"));
        tree.insert("usr/share/base-files/motd", Node::file(b"new".to_vec(), 0o644, "t"));
        tree.insert("etc/motd", Node::file(b"own".to_vec(), 0o644, "t"));
        tree.insert("var/run", Node::directory(0o755, "t"));
        tree.insert("var/lock/x", Node::directory(0o755, "t"));
        tree.insert("etc/group", Node::file(b"utmp:*:43:\n".to_vec(), 0o644, "t"));
        apply(&mut tree).unwrap();
        assert_eq!(tree.file("etc/profile"), Some(b"new".as_slice()));
        assert_eq!(tree.file("etc/motd"), Some(b"own".as_slice()));
        assert_eq!(tree.get("var/run").unwrap().kind, Kind::Symlink("/run".to_owned()));
        assert!(tree.get("var/lock").is_none(), "what a package put there stays");
        assert_eq!(tree.get("var/log/btmp").map(|node| (node.mode, node.gid)), Some((0o660, 43)));
    }
}
