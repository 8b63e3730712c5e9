//! `/etc/passwd` and `/etc/group`: the master files of base-passwd, as its `update-passwd` installs them on a new system;
//! without that package, root and nobody. There is no `/etc/shadow`: every password field is `*`, so nobody can log in.

use super::add_file;
use crate::tree::Tree;

const EFFECT: &str = "the accounts effect";

const PASSWD: &str =
    "root:*:0:0:root:/root:/usr/sbin/nologin\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:*:0:\nnogroup:*:65534:\n";

pub(super) fn apply(tree: &mut Tree) {
    for (path, master, minimal) in [
        ("etc/passwd", "usr/share/base-passwd/passwd.master", PASSWD),
        ("etc/group", "usr/share/base-passwd/group.master", GROUP),
    ] {
        let content = tree.file(master).unwrap_or(minimal.as_bytes()).to_vec();
        add_file(tree, path, 0o644, content, EFFECT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn the_master_files_win_over_the_minimal_ones() {
        let mut tree = Tree::default();
        apply(&mut tree);
        assert_eq!(tree.file("etc/passwd"), Some(PASSWD.as_bytes()));

        let mut tree = Tree::default();
        tree.insert("usr/share/base-passwd/passwd.master", Node::file(b"daemon".to_vec(), 0o644, "base-passwd"));
        apply(&mut tree);
        assert_eq!(tree.file("etc/passwd"), Some(b"daemon".as_slice()));
        assert_eq!(tree.file("etc/group"), Some(GROUP.as_bytes()));
    }

    #[test]
    fn no_account_has_a_password() {
        for line in PASSWD.lines().chain(GROUP.lines()) {
            assert_eq!(line.split(':').nth(1), Some("*"), "{line}");
        }
    }
}
