//! What only serves to make something else, or is made again where it is missed: caches, and the hooks with which a host
//! makes its own initrd. An image's initrd comes from the builder.

use crate::tree::{Glob, Tree};

const LEFT_OUT: [&str; 12] = [
    "/usr/share/initramfs-tools/**",
    "/etc/initramfs-tools/**",
    "/etc/kernel/*.d/initramfs-tools",
    "/etc/kernel/*.d/dracut",
    "/usr/lib/dracut/**",
    "/usr/lib/kernel/install.d/**",
    "/var/cache/fontconfig/**",
    "/var/cache/ldconfig/**",
    "/var/cache/man/**",
    "/usr/share/icons/*/icon-theme.cache",
    "/usr/share/mime/mime.cache",
    "/usr/share/applications/mimeinfo.cache",
];

pub(super) fn apply(tree: &mut Tree) {
    let globs: Vec<Glob> = LEFT_OUT.iter().filter_map(|pattern| Glob::parse(pattern).ok()).collect();
    tree.remove_matching(&globs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn every_pattern_is_one() {
        assert!(LEFT_OUT.iter().all(|pattern| Glob::parse(pattern).is_ok()));
    }

    #[test]
    fn initramfs_hooks_and_caches_go_and_nothing_beside_them() {
        let mut tree = Tree::default();
        for path in ["usr/share/initramfs-tools/hooks/fuse", "usr/share/mime/mime.cache", "usr/share/mime/globs2"] {
            tree.insert(path, Node::file(Vec::new(), 0o644, "t"));
        }
        apply(&mut tree);
        assert_eq!(tree.iter().map(|(path, _)| path).collect::<Vec<_>>(), ["", "usr/share/mime/globs2"]);
    }
}
