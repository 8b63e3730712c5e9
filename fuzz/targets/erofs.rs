//! The reader of EROFS images: any bytes, and an image of our own writer with bytes changed.
#![no_main]

use std::sync::LazyLock;

use image::erofs::{Image, read};
use image::tree::{Node, Tree};
use libfuzzer_sys::fuzz_target;

/// A small image with every kind of inode.
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut tree = Tree::default();
    tree.insert("a", Node::directory(0o755, "fuzz"));
    tree.insert("a/long", Node::file(vec![7; 5000], 0o644, "fuzz"));
    tree.insert("a/short", Node::file(vec![7; 50], 0o644, "fuzz"));
    tree.insert("link", Node::symlink("a/short", "fuzz"));
    tree.insert("null", Node::char_device(1, 3, 0o666, "fuzz"));
    let mut image = Vec::new();
    Image::plan(&tree, [1; 16]).expect("a layout").write_to(&mut image).expect("an image");
    assert_eq!(read(&image).expect("an image that can be read").len(), 6);
    image
});

fuzz_target!(|bytes: &[u8]| {
    let _ = read(bytes);
    let mut image = GOOD.clone();
    for change in bytes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = image.get_mut(at) {
            *byte = change[2];
        }
    }
    let _ = read(&image);
});
