//! What maintainer scripts would have done and a guest needs, as pure functions over the tree.
//!
//! No script runs. An effect looks only at the tree, adds what is missing, and leaves alone what a package brought.
//! Not done here, because nothing needs it yet: alternatives, diversions, systemd presets, sysusers and tmpfiles, hash
//! links of certificates, and `ld.so.cache` (the loader of Debian's libc searches `/usr/lib/x86_64-linux-gnu` without it).

mod accounts;
mod certificates;
mod machine_id;
mod mount_points;

use crate::tree::{Node, Tree};

/// Applies every effect.
pub fn apply(tree: &mut Tree) {
    accounts::apply(tree);
    certificates::apply(tree);
    machine_id::apply(tree);
    mount_points::apply(tree);
}

/// Adds a file where there is nothing.
fn add_file(tree: &mut Tree, path: &str, mode: u16, content: Vec<u8>, effect: &str) {
    if tree.get(path).is_none() {
        tree.insert(path, Node::file(content, mode, effect));
    }
}
