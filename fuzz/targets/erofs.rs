//! The reader of EROFS images: any bytes, and an image of our own writer with bytes changed.
#![no_main]

use std::sync::LazyLock;

use image::erofs::{Image, read};
use spec::recipe::Compression;
use image::tree::{Node, Tree};
use libfuzzer_sys::fuzz_target;

/// A small image with every kind of inode.
static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut tree = Tree::default();
    tree.insert("a", Node::directory(0o755, "fuzz"));
    tree.insert("a/long", Node::file(vec![7; 5000], 0o644, "fuzz"));
    let xattrs = [("user.a".to_owned(), vec![1; 9]), ("security.capability".to_owned(), vec![2; 20])].into();
    tree.insert("a/short", Node { xattrs, ..Node::file(vec![7; 50], 0o644, "fuzz") });
    let text: Vec<u8> = (0..20_000_u32).flat_map(|number| (number / 7).to_string().into_bytes()).collect();
    tree.insert("a/text", Node::file(text, 0o644, "fuzz"));
    tree.insert("link", Node::symlink("a/short", "fuzz"));
    tree.insert("null", Node::char_device(1, 3, 0o666, "fuzz"));
    let mut image = Vec::new();
    Image::plan(&tree, [1; 16], Compression::Lz4).expect("a layout").write_to(&mut image).expect("an image");
    assert_eq!(read(&image).expect("an image that can be read").len(), 7);
    image
});

/// Everything, contents too.
fn read_all(image: &[u8]) {
    for node in read(image).unwrap_or_default().values() {
        let _ = (node.content(), node.xattrs());
    }
}

fuzz_target!(|bytes: &[u8]| {
    read_all(bytes);
    let mut image = GOOD.clone();
    for change in bytes.as_chunks::<3>().0 {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        if let Some(byte) = image.get_mut(at) {
            *byte = change[2];
        }
    }
    read_all(&image);
});
