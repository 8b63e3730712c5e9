//! The index of a tree: one line for each directory, file and link, sorted by path.
//!
//! `d PATH`, `f MODE SIZE SHA256 PATH`, `l TARGET<tab>PATH`; paths have no leading `/` and hold no control characters.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstatat};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use spec::Sha256Digest;

use super::UnpackError;

const HEADER: &str = "bullion tree index 1\n";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) path: String,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Directory,
    File { mode: u32, size: u64, sha256: Sha256Digest },
    Link { target: String },
}

/// What of a tree no program reads: more than a third of what there is to look at.
const FOR_PEOPLE: [&str; 3] = ["usr/share/doc/", "usr/share/lintian/", "usr/share/man/"];

impl Index {
    pub(super) fn to_text(&self) -> String {
        let mut text = HEADER.to_owned();
        for Item { path, what } in &self.items {
            text += &match what {
                What::Directory => format!("d {path}\n"),
                What::File { mode, size, sha256 } => format!("f {mode:o} {size} {sha256} {path}\n"),
                What::Link { target } => format!("l {target}\t{path}\n"),
            };
        }
        text
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let lines = text.strip_prefix(HEADER)?.strip_suffix('\n')?.split('\n');
        let items = lines.map(Item::parse).collect::<Option<Vec<_>>>()?;
        items.is_sorted_by(|a, b| a.path < b.path).then_some(Self { items })
    }

    /// Compares what programs read of the tree at `root` with the index; with `content` all of it, hashes files and looks for what does not
    /// belong.
    pub(super) fn verify(&self, root: &Path, content: bool) -> Result<(), UnpackError> {
        // From there the way to each file is short, which is half of what looking at it takes.
        let directory = File::open(root)
            .map_err(|error| UnpackError::Damaged { path: root.to_owned(), reason: error.to_string() })?;
        let check = |item: &Item| {
            let damaged = |reason| UnpackError::Damaged { path: root.join(&item.path), reason };
            item.check(&directory).map_err(damaged)?;
            if content { item.check_content(&root.join(&item.path)).map_err(damaged) } else { Ok(()) }
        };
        // One after the other is faster as long as nothing is hashed: a few thousand lstat calls take milliseconds.
        if content {
            self.items.par_iter().try_for_each(check)?;
            self.no_others(root)
        } else {
            let is_read = |item: &&Item| !FOR_PEOPLE.iter().any(|directory| item.path.starts_with(directory));
            self.items.iter().filter(is_read).try_for_each(check)
        }
    }

    /// Fails if a directory of the tree holds something that the index does not name.
    fn no_others(&self, root: &Path) -> Result<(), UnpackError> {
        let known: BTreeSet<&str> = self.items.iter().map(|item| item.path.as_str()).collect();
        for item in self.items.iter().filter(|item| item.what == What::Directory) {
            let directory = root.join(&item.path);
            for entry in fs::read_dir(&directory).map_err(UnpackError::io("reading", &directory))? {
                let path = entry.map_err(UnpackError::io("reading", &directory))?.path();
                let inside = path.strip_prefix(root).ok().and_then(Path::to_str);
                if !inside.is_some_and(|inside| known.contains(inside)) {
                    return Err(UnpackError::Damaged { path, reason: "it was added".to_owned() });
                }
            }
        }
        Ok(())
    }
}

impl Item {
    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        let (path, what) = match kind {
            "d" => (rest, What::Directory),
            "f" => {
                let mut parts = rest.splitn(4, ' ');
                let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
                let size = parts.next()?.parse().ok()?;
                let sha256 = parts.next()?.parse().ok()?;
                (parts.next()?, What::File { mode, size, sha256 })
            }
            "l" => {
                let (target, path) = rest.split_once('\t')?;
                (path, What::Link { target: target.to_owned() })
            }
            _ => return None,
        };
        let clean = path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        clean.then(|| Self { path: path.to_owned(), what })
    }

    /// What is different about it in the directory `root`, but for its content.
    fn check(&self, root: &File) -> Result<(), String> {
        let path = if self.path.is_empty() { "." } else { &self.path };
        let said = |error: Errno| io::Error::from(error).to_string();
        let found = fstatat(root, path, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(said)?;
        let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        let size = found.st_size.cast_unsigned();
        let permissions = found.st_mode & 0o7777;
        match &self.what {
            What::Directory if kind != SFlag::S_IFDIR => Err("it is not a directory".to_owned()),
            What::Directory => untouched(&found),
            What::Link { target } => match readlinkat(root, path) {
                Ok(link) if link.as_os_str() == target.as_str() => Ok(()),
                _ => Err(format!("it is not a link to {target}")),
            },
            What::File { .. } if kind != SFlag::S_IFREG => Err("it is not a file".to_owned()),
            What::File { size: expected, .. } if size != *expected => {
                Err(format!("it has {size} bytes, expected {expected}"))
            }
            What::File { mode, .. } if permissions != *mode => {
                Err(format!("it has mode {permissions:o}, expected {mode:o}"))
            }
            What::File { .. } => untouched(&found),
        }
    }

    /// What is different about the content of the file at `path`.
    fn check_content(&self, path: &Path) -> Result<(), String> {
        let What::File { sha256, .. } = &self.what else { return Ok(()) };
        let found = hash(path).map_err(|error| error.to_string())?;
        if found != *sha256 {
            return Err(format!("it has SHA-256 {found}, expected {sha256}"));
        }
        Ok(())
    }
}

/// Everything is unpacked with time 0.
fn untouched(found: &FileStat) -> Result<(), String> {
    if (found.st_mtime, found.st_mtime_nsec) != (0, 0) {
        return Err("it was modified".to_owned());
    }
    Ok(())
}

fn hash(path: &Path) -> io::Result<Sha256Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Sha256Digest(hasher.finalize().into())),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_index_is_read_back(paths in proptest::collection::btree_set("[a-z ]{1,6}(/[a-z \\.]{3,6}){0,2}", 1..20), kind in any::<u64>()) {
            let items = paths.into_iter().enumerate().map(|(number, path)| {
                let what = match (kind >> (2 * number)) & 3 {
                    0 => What::Directory,
                    1 => What::Link { target: "../a b".to_owned() },
                    _ => What::File { mode: 0o755, size: kind, sha256: Sha256Digest::of(path.as_bytes()) },
                };
                Item { path, what }
            }).collect();
            let index = Index { items };
            prop_assume!(index.items.iter().all(|item| !item.path.split('/').any(|part| part == "..")));
            prop_assert_eq!(Index::parse(&index.to_text()), Some(index));
        }

        #[test]
        fn foreign_text_never_panics(text in ".{0,300}") {
            let _ = Index::parse(&text);
            let _ = Index::parse(&format!("{HEADER}{text}\n"));
        }
    }

    #[test]
    fn a_path_that_leads_outside_is_refused() {
        assert!(Index::parse(&format!("{HEADER}d a\n")).is_some());
        for bad in ["d ../a", "d /a", "d a//b", "x a", "f 644 1 00 a"] {
            assert!(Index::parse(&format!("{HEADER}{bad}\n")).is_none(), "{bad}");
        }
    }
}
