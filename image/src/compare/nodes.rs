//! The files inside an artifact as facts that can be compared and shown.

use std::collections::BTreeMap;

use spec::Sha256Digest;
use spec::digest::encode_hex;

use super::{cpio, deb, erofs};
use crate::tree::Xattrs;

/// An initrd unpacks to at most this much.
const MAX_INITRD: u64 = 1 << 30;

/// An attribute of at most this many bytes is shown whole, as capabilities are.
const MAX_SHOWN: usize = 64;

/// What is compared of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    device: String,
    xattrs: String,
    size: usize,
    sha256: Sha256Digest,
    time: u32,
}

impl Facts {
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let fact = |name: &str, a: String, b: String| (a != b).then(|| format!("{name} {a} and {b}"));
        let pairs = [
            fact("mode", format!("{:o}", self.mode), format!("{:o}", other.mode)),
            fact("owner", self.uid.to_string(), other.uid.to_string()),
            fact("group", self.gid.to_string(), other.gid.to_string()),
            fact("links", self.links.to_string(), other.links.to_string()),
            fact("device", self.device.clone(), other.device.clone()),
            fact("extended attributes", self.xattrs.clone(), other.xattrs.clone()),
            fact("time", self.time.to_string(), other.time.to_string()),
            fact("size", self.size.to_string(), other.size.to_string()),
        ];
        let content = (self.sha256 != other.sha256)
            .then(|| format!("content {} and {}", self.sha256.short(), other.sha256.short()));
        pairs.into_iter().flatten().chain(content).collect()
    }
}

/// The files of an EROFS image; `None` where it cannot be read.
pub(super) fn of_rootfs(image: &[u8]) -> Option<BTreeMap<String, Facts>> {
    let nodes = erofs::read(image).ok()?;
    let facts = |node: erofs::ReadNode<'_>| {
        // A directory's content says where its entries are, which is no property of theirs.
        let is_directory = u32::from(node.mode) & 0o170_000 == 0o040_000;
        let content = if is_directory { Vec::new() } else { node.content().ok()? };
        Some(Facts {
            mode: node.mode.into(),
            uid: node.uid,
            gid: node.gid,
            links: node.links,
            device: node.device.to_string(),
            xattrs: named(&node.xattrs().ok()?),
            size: content.len(),
            sha256: Sha256Digest::of(&content),
            time: 0,
        })
    };
    nodes.into_iter().map(|(path, node)| Some((path, facts(node)?))).collect()
}

fn named(xattrs: &Xattrs) -> String {
    // A file can have many names, and an attribute many bytes.
    let shown = |value: &[u8]| match value.len() {
        0..=MAX_SHOWN => format!("0x{}", encode_hex(value)),
        _ => format!("sha256:{}", Sha256Digest::of(value)),
    };
    let pairs: Vec<String> = xattrs.iter().map(|(name, value)| format!("{name}={}", shown(value))).collect();
    if pairs.is_empty() { "none".to_owned() } else { pairs.join(" ") }
}

/// The paths in an initrd as `diff` reads it; `None` where it cannot be read.
pub fn initrd_paths(initrd: &[u8]) -> Option<Vec<String>> {
    Some(of_initrd(initrd)?.into_keys().collect())
}

/// The files of a compressed cpio archive; `None` where it cannot be read.
pub(super) fn of_initrd(initrd: &[u8]) -> Option<BTreeMap<String, Facts>> {
    let archive = deb::decode_zstd(initrd, MAX_INITRD).ok()??;
    let entries = cpio::read(&archive).ok()?;
    let facts = |entry: cpio::ReadEntry<'_>| {
        let facts = Facts {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            links: entry.links,
            device: format!("{}:{}", entry.device.0, entry.device.1),
            xattrs: named(&Xattrs::new()),
            size: entry.content.len(),
            sha256: Sha256Digest::of(entry.content),
            time: entry.time,
        };
        (entry.path.to_owned(), facts)
    };
    Some(entries.into_iter().map(facts).collect())
}
