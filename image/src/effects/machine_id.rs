//! `/etc/machine-id`, empty: the image has no identity of its own, and what needs one makes it at boot (machine-id(5)).

use super::add_file;
use crate::tree::Tree;

pub(super) fn apply(tree: &mut Tree) {
    add_file(tree, "etc/machine-id", 0o444, Vec::new(), "the machine-id effect");
}
