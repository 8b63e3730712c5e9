//! Modes and owners that scripts set because the archive cannot say them: programs that run as root for everyone.

use super::accounts::Accounts;
use super::{EffectError, set_owner};
use crate::tree::{Node, Tree};

/// Path, mode, group: from the postinst of fuse3, and of dbus.
const MODES: [(&str, u16, &str); 2] =
    [("usr/bin/fusermount3", 0o4755, "root"), ("usr/lib/dbus-1.0/dbus-daemon-launch-helper", 0o4754, "messagebus")];

pub(super) fn apply(tree: &mut Tree) -> Result<(), EffectError> {
    for (path, mode, group) in MODES {
        let Some(node) = tree.get(path).cloned() else {
            continue;
        };
        let unknown = || EffectError {
            effect: "modes",
            path: format!("/{path}"),
            reason: format!("belongs to the group \"{group}\", which no package declares"),
        };
        let gid = Accounts::of(tree)?.gid(group).ok_or_else(unknown)?;
        tree.insert(path, Node { mode, ..node });
        set_owner(tree, path, 0, gid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_its_mode_and_an_unknown_group_is_refused() {
        let mut tree = Tree::default();
        tree.insert("etc/group", Node::file(b"root:*:0:\n".to_vec(), 0o644, "t"));
        tree.insert("usr/bin/fusermount3", Node::file(Vec::new(), 0o755, "fuse3"));
        apply(&mut tree).unwrap();
        assert_eq!(tree.get("usr/bin/fusermount3").unwrap().mode, 0o4755);
        tree.insert(MODES[1].0, Node::file(Vec::new(), 0o755, "dbus"));
        assert!(apply(&mut tree).unwrap_err().to_string().contains("messagebus"));
    }
}
