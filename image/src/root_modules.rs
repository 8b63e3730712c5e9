//! The kernel modules in the verified root file system: what a workload needs, but the way to the root does not.
//!
//! They lie where every distribution has them, below `/usr/lib/modules/VERSION`, and the `module-index` effect makes the
//! indexes beside them. `bullion-guest` has no `modprobe`: it reads `/usr/lib/bullion/modules/list`, which has the form of
//! the initrd's list with `boot` lines only, and loads `/usr/lib/bullion/modules/NAME.ko`, which are links, in its order.

use crate::initrd::module_list;
use crate::kernel::{Kernel, Plan};
use crate::tree::{Node, Tree};

const DIRECTORY: &str = "usr/lib/bullion/modules";
/// From there to the root.
const UP: &str = "../../../..";
const ORIGIN: &str = "the kernel modules of the recipe";

/// Adds the modules and their list, where there are any.
pub fn add(tree: &mut Tree, kernel: &Kernel) {
    if kernel.plan.root.is_empty() {
        return;
    }
    let list = module_list(&Plan { boot: kernel.plan.root.clone(), ..Plan::default() });
    tree.insert(&format!("{DIRECTORY}/list"), Node::file(list.into_bytes(), 0o644, ORIGIN));
    for (name, module) in &kernel.root_modules {
        tree.insert(&module.path, Node::file(module.elf.clone(), 0o644, ORIGIN));
        tree.insert(&format!("{DIRECTORY}/{name}.ko"), Node::symlink(&format!("{UP}/{}", module.path), ORIGIN));
    }
    for (name, content) in &kernel.descriptions {
        let path = format!("usr/lib/modules/{}/{name}", kernel.version);
        tree.insert(&path, Node::file(content.clone(), 0o644, ORIGIN));
    }
}
