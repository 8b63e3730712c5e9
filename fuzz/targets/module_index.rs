//! The indexes of kernel modules, from a module and the files in which a kernel's build describes the others.
#![no_main]

use image::effects;
use image::tree::{Node, Tree};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], &[u8], &[u8])| {
    let (module, order, builtin, modinfo) = input;
    let mut tree = Tree::default();
    for (name, bytes) in [
        ("kernel/a.ko", module),
        ("modules.order", order),
        ("modules.builtin", builtin),
        ("modules.builtin.modinfo", modinfo),
    ] {
        tree.insert(&format!("usr/lib/modules/1/{name}"), Node::file(bytes.to_vec(), 0o644, "fuzz"));
    }
    tree.finish().expect("a tree");
    if effects::index(&mut tree, |_| false, None).is_ok() {
        let lines = tree.file("usr/lib/modules/1/modules.dep").expect("an index");
        assert_eq!(lines, b"kernel/a.ko:\n");
    }
});
