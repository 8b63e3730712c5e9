//! The directories that the guest mounts on, which a read-only root must bring along.

use crate::tree::{Node, Tree};

const MOUNT_POINTS: [(&str, u16); 5] =
    [("dev", 0o755), ("proc", 0o755), ("run", 0o755), ("sys", 0o755), ("tmp", 0o1777)];

pub(super) fn apply(tree: &mut Tree) {
    for (path, mode) in MOUNT_POINTS {
        if tree.get(path).is_none() {
            tree.insert(path, Node::directory(mode, "the mount-points effect"));
        }
    }
}
