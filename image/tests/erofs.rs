//! The EROFS writer against `fsck.erofs`, which checks an image and extracts it.

#![allow(clippy::cast_possible_truncation, reason = "test data is made of the low bytes of counters")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use image::erofs::{BLOCK, Image, read};
use image::tree::{Kind, Node, Tree, Xattrs};
use proptest::prelude::*;
use spec::recipe::Compression;
use support::{run, tool};

const UUID: [u8; 16] = *b"0123456789abcdef";

const COMPRESSIONS: [Compression; 2] = [Compression::None, Compression::Lz4];

fn image(tree: &Tree) -> Vec<u8> {
    image_with(tree, Compression::None)
}

fn image_with(tree: &Tree, compression: Compression) -> Vec<u8> {
    let plan = Image::plan(tree, UUID, compression).unwrap();
    let mut bytes = Vec::new();
    plan.write_to(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, plan.blocks() * BLOCK as u64);
    bytes
}

/// Contents that compress well, badly, in part, and over every boundary of the compressor.
fn shapes() -> Vec<(String, Vec<u8>)> {
    let text: Vec<u8> = (0..900_000_u32).flat_map(|number| (number / 3 * 7).to_string().into_bytes()).collect();
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(100_000)
    .collect();
    let mut all: Vec<(String, Vec<u8>)> =
        [1, 63, 64, 65, 100, 4000, 4095, 4096, 4097, 9000, 65_600, 1 << 20, (4 << 20) + 1]
            .into_iter()
            .map(|size| (format!("text-{size}"), text[..size].to_vec()))
            .collect();
    all.extend([1000, 5000, 3 << 20, 9 << 20].map(|size| (format!("zeros-{size}"), vec![0; size])));
    all.extend([1000, 5000, 100_000].map(|size| (format!("noise-{size}"), noise[..size].to_vec())));
    all.push((
        "mixed".to_owned(),
        [&noise[..30_001], &text[..50_000], &noise[..4096], &[0; 70_000], &text[..999]].concat(),
    ));
    all
}

/// A tree with every kind of node, sizes on both sides of every boundary, and directories of more than one block.
fn rich_tree() -> Tree {
    let mut tree = Tree::default();
    for (directory, mode) in [("a", 0o755), ("a/b", 0o700), ("dev", 0o755), ("many", 0o755), ("tmp", 0o1777)] {
        tree.insert(directory, Node::directory(mode, "test"));
    }
    for size in [0, 1, 31, 4031, 4032, 4064, 4065, 4095, 4096, 4097, 8192, 12_300, 300_000] {
        let content: Vec<u8> = (0..size).map(|index: usize| (index * 7 + size) as u8).collect();
        tree.insert(&format!("a/{size}"), Node::file(content, 0o644, "test"));
    }
    for number in 0..700 {
        tree.insert(
            &format!("many/{}-{number}", "n".repeat(number % 40)),
            Node::file(vec![1; number % 9], 0o600, "test"),
        );
    }
    for (name, content) in shapes() {
        tree.insert(&format!("a/{name}"), Node::file(content, 0o644, "test"));
    }
    // Names that sort before "." and between "." and "..".
    for name in ["!", "+", "-x", ".-", "...", "a/b/\u{e9}"] {
        tree.insert(name, Node::file(name.as_bytes().to_vec(), 0o644, "test"));
    }
    tree.insert("link", Node::symlink(&"t/".repeat(1000), "test"));
    tree.insert("a/up", Node::symlink("../link", "test"));
    tree.insert("dev/console", Node::char_device(5, 1, 0o600, "test"));
    tree.insert("dev/big", Node::char_device(300, 70_000, 0o600, "test"));
    let shared = Node {
        kind: Kind::File { content: vec![9; 5000].into(), inode: Some("one".into()) },
        ..Node::file(vec![], 0o4755, "test")
    };
    for name in ["a/one", "many/one", "z"] {
        tree.insert(name, shared.clone());
    }
    let owned = Node { uid: 70_000, gid: 42, ..Node::file(vec![3; 4050], 0o640, "test") };
    tree.insert("owned", owned);
    attributed(&mut tree);
    tree
}

/// Extended attributes on every kind of node, few and many, beside data of every layout.
fn attributed(tree: &mut Tree) {
    tree.insert("x", Node::directory(0o755, "test"));
    let capability = ("security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec());
    let with = |node: Node, more: &[(&str, Vec<u8>)]| {
        let all = more.iter().chain([&capability]);
        Node { xattrs: all.map(|(name, value)| ((*name).to_owned(), value.clone())).collect(), ..node }
    };
    for (index, size) in [0, 5, 3000, 4000, 4040, 4096, 5000, 100_000].into_iter().enumerate() {
        let text: Vec<u8> = (0..size).map(|number: usize| (number / 9) as u8).collect();
        let more = [("user.a", vec![7; index * 13 % 40]), ("user.empty", vec![]), ("trusted.b", vec![1])];
        let file = Node::file(text, 0o755, "test");
        tree.insert(&format!("x/{size}"), with(Node { uid: index as u32 * 50_000, ..file }, &more[..index % 4]));
    }
    // As many as the host's file system has room for.
    let many: Vec<(String, Vec<u8>)> = (0..30).map(|number| (format!("user.{number}"), vec![number; 100])).collect();
    let many: Vec<(&str, Vec<u8>)> = many.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    for (name, size) in [("x/many", 200), ("x/many-large", 9000)] {
        tree.insert(name, with(Node::file(vec![5; size], 0o644, "test"), &many));
    }
    let only_trusted =
        Node { xattrs: [("trusted.l".to_owned(), vec![3; 17])].into(), ..Node::directory(0o750, "test") };
    tree.insert("x/directory", only_trusted.clone());
    tree.insert("x/link", Node { kind: Kind::Symlink("many".to_owned()), mode: 0o777, ..only_trusted.clone() });
    tree.insert("x/device", Node { kind: Kind::CharDevice { major: 1, minor: 3 }, ..only_trusted });
}

fn skipped(reason: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// The extended attributes that the host's kernel gives, but for those of its own (such as SELinux').
fn attributes_of(path: &Path) -> Xattrs {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let names = names.map(|name| String::from_utf8(name.to_vec()).unwrap()).filter(|name| name != "security.selinux");
    let value = |name: String| {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::lgetxattr(path, name.as_str(), value.as_mut_slice()).unwrap();
        value.truncate(length);
        (name, value)
    };
    names.map(value).collect()
}

/// What `fsck.erofs` 1.8.6 extracts of a node's attributes: those with a value.
fn extracted(node: &Node) -> Xattrs {
    let with_value = node.xattrs.iter().filter(|(_, value)| !value.is_empty());
    with_value.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[test]
fn the_kernel_gives_the_attributes_that_were_written() {
    let kernel_knows = std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("erofs"));
    if !nix::unistd::geteuid().is_root() || !kernel_knows {
        return skipped("root mounts file systems, where the kernel knows EROFS");
    }
    let directory = tempfile::tempdir().unwrap();
    let (file, at) = (directory.path().join("image"), directory.path().join("mounted"));
    std::fs::create_dir(&at).unwrap();
    let mut tree = rich_tree();
    // More than a block of them.
    let most = (0..60).map(|number| (format!("user.{number}"), vec![number; 100])).collect();
    tree.insert("x/most", Node { xattrs: most, ..Node::file(vec![5; 9000], 0o644, "test") });
    for compression in COMPRESSIONS {
        std::fs::write(&file, image_with(&tree, compression)).unwrap();
        let mounted = [&["-t", "erofs"][..], &["-t", "erofs", "-o", "loop"]].into_iter().any(|how| {
            Command::new("mount").args(how).arg(&file).arg(&at).output().is_ok_and(|output| output.status.success())
        });
        if !mounted {
            return skipped("nothing can be mounted here");
        }
        let compared = std::panic::catch_unwind(|| {
            for (path, node) in tree.iter() {
                assert_eq!(attributes_of(&at.join(path)), node.xattrs, "{path}");
                if let Kind::File { content, .. } = &node.kind {
                    assert!(std::fs::read(at.join(path)).unwrap() == content.bytes(), "{path}");
                }
            }
        });
        run(Command::new("umount").arg(&at));
        compared.unwrap();
    }
}

#[test]
fn our_reader_sees_the_attributes_that_mkfs_writes() {
    let (Some(mkfs), Some(fsck)) = (tool("mkfs.erofs"), tool("fsck.erofs")) else {
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        return skipped("root gives files their attributes");
    }
    let directory = tempfile::tempdir().unwrap();
    let (ours, out, theirs) =
        (directory.path().join("ours"), directory.path().join("out"), directory.path().join("theirs"));
    let mut tree = Tree::default();
    attributed(&mut tree);
    std::fs::write(&ours, image(&tree)).unwrap();
    run(Command::new(&fsck)
        .arg(format!("--extract={}", out.display()))
        .args(["--preserve-perms", "--no-preserve-owner", "--xattrs"])
        .arg(&ours));
    // No attribute is shared by so many inodes that mkfs.erofs would put it elsewhere.
    run(Command::new(&mkfs).args(["--quiet", "-T0", "-x1000", "--ignore-mtime"]).arg(&theirs).arg(&out));
    let bytes = std::fs::read(&theirs).unwrap();
    let nodes = read(&bytes).unwrap();
    for (path, node) in tree.iter() {
        assert_eq!(nodes[path].xattrs().unwrap(), extracted(node), "{path}");
    }
}

#[test]
fn a_rich_tree_comes_back_from_fsck() {
    let Some(fsck) = tool("fsck.erofs") else {
        return;
    };
    for compression in COMPRESSIONS {
        comes_back(&fsck, &rich_tree(), compression);
    }
}

#[track_caller]
fn comes_back(fsck: &Path, tree: &Tree, compression: Compression) {
    let directory = tempfile::tempdir().unwrap();
    let (file, out) = (directory.path().join("image"), directory.path().join("out"));
    std::fs::write(&file, image_with(tree, compression)).unwrap();
    // Without privileges devices and foreign owners cannot be extracted, but all is still checked.
    let root = nix::unistd::geteuid().is_root();
    let owner = if root { "--preserve-owner" } else { "--no-preserve-owner" };
    let check = run(Command::new(fsck).arg(&file));
    assert!(check.stderr.is_empty(), "{}", String::from_utf8_lossy(&check.stderr));
    if root {
        run(Command::new(fsck)
            .arg(format!("--extract={}", out.display()))
            .args(["--preserve-perms", "--xattrs", owner])
            .arg(&file));
    } else {
        return;
    }
    let mut inodes: BTreeMap<String, u64> = BTreeMap::new();
    for (path, node) in tree.iter() {
        let real = out.join(path);
        let found = real.symlink_metadata().unwrap_or_else(|error| panic!("{path}: {error}"));
        if !matches!(node.kind, Kind::Symlink(_)) {
            assert_eq!(found.permissions().mode() & 0o7777, u32::from(node.mode), "{path}");
        }
        assert_eq!((found.uid(), found.gid()), (node.uid, node.gid), "{path}");
        assert_eq!(found.mtime(), 0, "{path}");
        // fsck.erofs changes the owner last, and the kernel takes capabilities away with that.
        let mut kept = extracted(node);
        kept.remove("security.capability");
        assert_eq!(attributes_of(&real), kept, "{path}");
        match &node.kind {
            Kind::Directory => assert!(found.is_dir(), "{path}"),
            Kind::File { content, inode } => {
                assert!(std::fs::read(&real).unwrap() == content.bytes(), "{path}");
                if let Some(inode) = inode {
                    assert_eq!(*inodes.entry(inode.to_string()).or_insert(found.ino()), found.ino(), "{path}");
                }
            }
            Kind::Symlink(target) => assert_eq!(std::fs::read_link(&real).unwrap(), Path::new(target), "{path}"),
            Kind::CharDevice { major, minor } => {
                assert!(found.file_type().is_char_device(), "{path}");
                assert_eq!(nix::sys::stat::major(found.rdev()), u64::from(*major), "{path}");
                assert_eq!(nix::sys::stat::minor(found.rdev()), u64::from(*minor), "{path}");
            }
        }
    }
    assert_eq!(count(&out), tree.len());
}

fn count(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    1 + entries.map(|path| if path.symlink_metadata().unwrap().is_dir() { count(&path) } else { 1 }).sum::<usize>()
}

#[test]
fn the_superblock_is_what_dump_expects() {
    let Some(dump) = tool("dump.erofs") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    std::fs::write(&file, image(&rich_tree())).unwrap();
    let said = String::from_utf8(run(Command::new(dump).arg("-s").arg(&file)).stdout).unwrap();
    for word in ["30313233-3435-3637-3839-616263646566", "Thu Jan  1 00:00:00 1970", "sb_csum"] {
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn the_checksum_is_checked() {
    let Some(fsck) = tool("fsck.erofs") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("image");
    let mut bytes = image(&rich_tree());
    bytes[1024 + 48] ^= 1; // the UUID
    std::fs::write(&file, bytes).unwrap();
    // fsck.erofs 1.8.6 reports it and still exits with 0.
    let said = String::from_utf8(run(Command::new(fsck).arg(&file)).stderr).unwrap();
    assert!(said.contains("failed to verify superblock checksum"), "{said}");
}

#[test]
fn our_reader_sees_what_was_written() {
    COMPRESSIONS.into_iter().for_each(our_reader_sees);
}

fn our_reader_sees(compression: Compression) {
    let tree = rich_tree();
    let bytes = image_with(&tree, compression);
    let nodes = read(&bytes).unwrap();
    assert_eq!(nodes.len(), tree.len());
    for (path, node) in tree.iter() {
        let found = nodes[path];
        assert_eq!(u32::from(found.mode & 0o7777), u32::from(node.mode), "{path}");
        assert_eq!(found.xattrs().unwrap(), node.xattrs, "{path}");
        if let Kind::File { content, .. } = &node.kind {
            assert!(found.content().unwrap() == content.bytes(), "{path}");
        }
    }
    assert_eq!(nodes["z"].nid, nodes["a/one"].nid);
    assert_eq!(nodes["z"].links, 3);
    assert_eq!(nodes[""].links, 2 + 5);
}

#[test]
fn the_bytes_depend_on_the_tree_alone() {
    for compression in COMPRESSIONS {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| image_with(&rich_tree(), compression))
        };
        let first = with(1);
        assert!([2, 7].into_iter().all(|threads| with(threads) == first));
    }
}

#[test]
fn a_node_without_a_directory_is_an_error() {
    let mut tree = Tree::default();
    tree.insert("a/b", Node::file(vec![], 0o644, "test"));
    assert!(Image::plan(&tree, UUID, Compression::None).is_err());
}

fn arbitrary_tree() -> impl Strategy<Value = Tree> {
    let name = "[ -.0-9A-Za-z]{1,30}".prop_filter("not a dot", |name| name != "." && name != "..");
    let size = prop_oneof![0usize..200, 3900usize..4300, 8000usize..8300, 0usize..40_000];
    let leaf = (0u8..8, size, 0u16..0o10000, any::<u32>());
    proptest::collection::vec((proptest::collection::vec(name, 1..5), leaf), 0..60).prop_map(|nodes| {
        let mut tree = Tree::default();
        for (parts, (kind, size, mode, owner)) in nodes {
            let mut path = String::new();
            let mut blocked = false;
            for part in &parts[..parts.len() - 1] {
                path = if path.is_empty() { part.clone() } else { format!("{path}/{part}") };
                match tree.get(&path) {
                    None => tree.insert(&path, Node::directory(0o755, "test")),
                    Some(node) => blocked |= !node.is_directory(),
                }
            }
            let last = parts.last().unwrap();
            let path = if path.is_empty() { last.clone() } else { format!("{path}/{last}") };
            if blocked || tree.get(&path).is_some() {
                continue;
            }
            let node = match kind {
                0 => Node::directory(mode, "test"),
                1 => Node::symlink(&"x".repeat(1 + size % 4000), "test"),
                _ => {
                    let content: Vec<u8> = (0..size).map(|index| (index as u32 ^ owner) as u8).collect();
                    let owner = if kind == 2 { owner >> 1 } else { owner & 0xfff };
                    Node { uid: owner, gid: owner / 2, ..Node::file(content, mode, "test") }
                }
            };
            tree.insert(&path, node);
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_comes_back(tree in arbitrary_tree()) {
        let bytes = image_with(&tree, Compression::Lz4);
        prop_assert_eq!(read(&bytes).unwrap().len(), tree.len());
        if let Some(fsck) = tool("fsck.erofs") {
            for compression in COMPRESSIONS {
                comes_back(&fsck, &tree, compression);
            }
        }
    }
}

proptest! {
    #[test]
    fn damage_never_panics_the_reader(at in 1024usize..20_000, byte in any::<u8>(), cut in 0usize..30_000) {
        static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| image_with(&rich_tree(), Compression::Lz4));
        let mut bytes = IMAGE.clone();
        bytes[at] = byte;
        for bytes in [&bytes[..], &bytes[..cut]] {
            for node in read(bytes).unwrap_or_default().values().filter(|node| node.size < 100_000) {
                let _ = (node.content(), node.xattrs());
            }
        }
    }
}
