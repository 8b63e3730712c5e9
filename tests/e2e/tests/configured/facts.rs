//! A tree as one line for each path, so that two of them can be compared whatever they are made of.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use spec::Sha256Digest;

/// Kind, mode, owner, and content or target, by path without a leading `/`.
pub(crate) type Tree = BTreeMap<String, String>;

const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// A file system on disk, without what is mounted on it.
pub(crate) fn of_directory(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let place = root.join(&path);
        let data = place.symlink_metadata().unwrap();
        let kind = data.file_type();
        let content = if kind.is_symlink() {
            std::fs::read_link(&place).unwrap().into_os_string().into_encoded_bytes()
        } else if kind.is_file() {
            std::fs::read(&place).unwrap()
        } else {
            assert!(kind.is_dir() || kind.is_char_device(), "{}", place.display());
            Vec::new()
        };
        if kind.is_dir() {
            open.extend(std::fs::read_dir(&place).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        }
        let path = path.to_str().unwrap();
        tree.insert(path.to_owned(), line(path, data.mode(), data.uid(), data.gid(), &content));
    }
    tree
}

/// The root file system of an image.
pub(crate) fn of_image(rootfs: &[u8]) -> Tree {
    let nodes = image::erofs::read(rootfs).unwrap();
    let facts = |(path, node): (String, image::erofs::ReadNode<'_>)| {
        let mode = u32::from(node.mode);
        let content = if mode & KIND == DIRECTORY { Vec::new() } else { node.content().unwrap() };
        let line = line(&path, mode, node.uid, node.gid, &content);
        (path, line)
    };
    nodes.into_iter().map(facts).collect()
}

fn line(path: &str, mode: u32, uid: u32, gid: u32, content: &[u8]) -> String {
    match mode & KIND {
        // The mode of a link says nothing.
        LINK => format!("link to {}", String::from_utf8_lossy(content)),
        DIRECTORY => format!("directory {:o} {uid}:{gid}", mode & 0o7777),
        kind => {
            let digest = Sha256Digest::of(&comparable(path, content));
            format!("{kind:o} {:o} {uid}:{gid} {}", mode & 0o7777, digest.short())
        }
    }
}

/// What of a file has to be the same.
fn comparable(path: &str, content: &[u8]) -> Vec<u8> {
    let lines = |change: &dyn Fn(&str) -> Option<String>| {
        let text = String::from_utf8_lossy(content);
        let mut lines: Vec<String> = text.lines().filter_map(change).collect();
        lines.sort();
        lines.join("\n").into_bytes()
    };
    match path {
        // pwconv keeps what systemd-sysusers wrote before it, so that the order depends on that of configuration; and the day
        // of the last change is that of the installation.
        "etc/shadow" => lines(&|line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            fields[2] = "";
            Some(fields.join(":"))
        }),
        "etc/gshadow" => lines(&|line| Some(line.to_owned())),
        // Ten lines of comment at the top are left out.
        "etc/ca-certificates.conf" => lines(&|line| (!line.starts_with('#')).then(|| line.to_owned())),
        // Its last words name the program that wrote it.
        "etc/ld.so.cache" => {
            let extension = u32::from_le_bytes(content[32..36].try_into().unwrap()) as usize;
            content[..extension + 20].to_vec()
        }
        _ => content.to_vec(),
    }
}
