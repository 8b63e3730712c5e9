//! The kernel modules in the verified root file system: what a workload needs, but the way to the root does not.
//!
//! `bullion-guest` reads `/usr/lib/bullion/modules/list`, which has the form of the initrd's list with `boot` lines only,
//! and loads `/usr/lib/bullion/modules/NAME.ko` in its order. There is no `modprobe` and no index: what is not listed is
//! never loaded.

use crate::initrd::module_list;
use crate::kernel::{Kernel, Plan};
use crate::tree::{Node, Tree};

const DIRECTORY: &str = "usr/lib/bullion/modules";
const ORIGIN: &str = "the kernel modules of the recipe";

/// Adds the modules and their list, where there are any.
pub fn add(tree: &mut Tree, kernel: &Kernel) {
    if kernel.plan.root.is_empty() {
        return;
    }
    let list = module_list(&Plan { boot: kernel.plan.root.clone(), ..Plan::default() });
    tree.insert(&format!("{DIRECTORY}/list"), Node::file(list.into_bytes(), 0o644, ORIGIN));
    for (name, elf) in &kernel.root_modules {
        tree.insert(&format!("{DIRECTORY}/{name}.ko"), Node::file(elf.clone(), 0o644, ORIGIN));
    }
}
