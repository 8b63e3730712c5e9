//! tmpfiles.d(5): the directories, files and links under `/etc` and `/var` that `systemd-tmpfiles --create` would make at
//! boot. The root is read-only then, so the image brings them. What is made under `/run` and `/tmp` is left to the guest.

use std::collections::BTreeMap;

use super::accounts::Accounts;
use super::{EffectError, configuration, words};
use crate::tree::{Kind, Node, Tree, parent};

const EFFECT: &str = "the temporary-files effect";

/// A line that is understood.
struct Line {
    kind: char,
    /// With `+`: what is there is replaced.
    forced: bool,
    mode: Option<u16>,
    uid: u32,
    gid: u32,
    argument: Option<String>,
}

pub(super) fn apply(tree: &mut Tree) -> Result<(), EffectError> {
    let accounts = Accounts::of(tree)?;
    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    for (file, text) in configuration(tree, "tmpfiles.d", ".conf") {
        for text in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let refuse = |reason: String| EffectError { effect: "temporary-files", path: file.clone(), reason };
            let words = words(text).ok_or_else(|| refuse(format!("\"{text}\" has an open quote")))?;
            if let Some((path, line)) =
                line(&words, &accounts).map_err(|reason| refuse(format!("\"{text}\" {reason}")))?
            {
                // The first line for a path counts.
                lines.entry(path).or_insert(line);
            }
        }
    }
    // By path, so that a directory comes before what is in it.
    lines.into_iter().for_each(|(path, line)| create(tree, &path, &line));
    Ok(())
}

/// `None` for a line that makes nothing in the image: another place, only at boot, or only a rule for cleaning up.
/// PATH_MAX of Linux.
const MAX_PATH: usize = 4096;

fn line(words: &[String], accounts: &Accounts) -> Result<Option<(String, Line)>, String> {
    let word = |index: usize| words.get(index).map(String::as_str).filter(|word| *word != "-" && !word.is_empty());
    let (Some(kind), Some(path)) = (word(0), word(1)) else {
        return Err("has no path".to_owned());
    };
    let path = path.strip_prefix('/').ok_or("has no absolute path")?.trim_end_matches('/');
    let inside = ["etc/", "var/"].iter().any(|top| path.starts_with(top));
    let letter = kind.chars().next().unwrap_or_default();
    // A `%` stands for something that only the running system knows.
    // `!` is for boots, `^` takes a credential: neither is there when an image is made.
    if !inside || kind.contains(['!', '^']) || path.contains('%') || !"dDvqQefFL".contains(letter) {
        return Ok(None);
    }
    if let Some(unknown) = kind.chars().skip(1).find(|modifier| !"+-=$".contains(*modifier)) {
        return Err(format!("has the modifier \"{unknown}\", which is not known"));
    }
    if path.len() > MAX_PATH {
        return Err(format!("has a path of more than {MAX_PATH} bytes"));
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("has no clean path".to_owned());
    }
    let mode = word(2).map(|text| u16::from_str_radix(text.trim_start_matches([':', '~']), 8));
    let mode =
        mode.transpose().ok().filter(|mode| mode.is_none_or(|mode| mode <= 0o7777)).ok_or("has no octal mode")?;
    let number = |text: Option<&str>, known: &dyn Fn(&str) -> Option<u32>| match text
        .map(|text| text.trim_start_matches(':'))
    {
        None => Ok(0),
        Some(text) => text.parse().ok().or_else(|| known(text)).ok_or_else(|| format!("names the unknown \"{text}\"")),
    };
    let argument =
        words.get(6..).map(|words| words.join(" ")).filter(|argument| !argument.is_empty() && argument != "-");
    if argument.as_ref().is_some_and(|argument| argument.contains('%')) {
        return Ok(None);
    }
    let (uid, gid) = (number(word(3), &|name| accounts.uid(name))?, number(word(4), &|name| accounts.gid(name))?);
    Ok(Some((path.to_owned(), Line { kind: letter, forced: kind.contains('+'), mode, uid, gid, argument })))
}

fn create(tree: &mut Tree, path: &str, line: &Line) {
    let Some(path) = real_place(tree, path) else {
        return;
    };
    let there = tree.get(&path).cloned();
    let owned = |node: Node| Node { uid: line.uid, gid: line.gid, ..node };
    let adjusted = |node: Node| owned(Node { mode: line.mode.unwrap_or(node.mode), ..node });
    let node = match (line.kind, there) {
        ('e', None) => None,
        ('d' | 'D' | 'v' | 'q' | 'Q', None) => Some(owned(Node::directory(line.mode.unwrap_or(0o755), EFFECT))),
        ('d' | 'D' | 'v' | 'q' | 'Q' | 'e', Some(node)) => node.is_directory().then(|| adjusted(node)),
        ('L', there) => {
            let target = line.argument.clone().unwrap_or_else(|| format!("/usr/share/factory/{path}"));
            let replaces = line.forced && there.as_ref().is_some_and(|node| !node.is_directory());
            (there.is_none() || replaces).then(|| Node::symlink(&target, EFFECT))
        }
        ('f' | 'F', Some(node)) if !line.forced && line.kind == 'f' => {
            matches!(node.kind, Kind::File { .. }).then(|| adjusted(node))
        }
        (_, there) => {
            let content = line.argument.clone().unwrap_or_default().into_bytes();
            let replaceable = there.is_none_or(|node| matches!(node.kind, Kind::File { .. }));
            replaceable.then(|| owned(Node::file(content, line.mode.unwrap_or(0o644), EFFECT)))
        }
    };
    if let Some(node) = node {
        tree.insert(&path, node);
    }
}

/// Where `path` is once links above it are followed, with the directories above it made; `None` outside `/etc` and
/// `/var` (`/var/run` leads to `/run`), and below what is no directory.
fn real_place(tree: &mut Tree, path: &str) -> Option<String> {
    let above = parent(path)?;
    let above = match tree.resolve(above) {
        Some(real) => real,
        None if tree.get(above).is_some() => return None,
        None => {
            let above = real_place(tree, above)?;
            if tree.get(&above).is_none() {
                tree.insert(&above, Node::directory(0o755, EFFECT));
            }
            above
        }
    };
    let inside = ["etc", "var"].iter().any(|top| above == *top || above.starts_with(&format!("{top}/")));
    (inside || above.is_empty()).then_some(())?;
    if above.is_empty() {
        return matches!(path, "etc" | "var").then(|| path.to_owned());
    }
    tree.get(&above).filter(|node| node.is_directory())?;
    Some(format!("{above}/{}", crate::tree::name(path)))
}

/// What `systemd-tmpfiles` makes of the same files is compared in `image/tests/effects.rs`.
#[cfg(test)]
mod tests {
    use super::*;

    fn made(lines: &str) -> Result<Tree, EffectError> {
        let mut tree = Tree::default();
        for (path, text) in [
            ("etc/passwd", "root:*:0:0::/:/x\na:*:7:7::/:/x\n"),
            ("etc/group", "root:*:0:\nb:*:8:\n"),
            ("usr/lib/tmpfiles.d/a.conf", lines),
        ] {
            tree.insert(path, Node::file(text.as_bytes().to_vec(), 0o644, "t"));
        }
        for directory in ["etc", "var", "run"] {
            tree.insert(directory, Node::directory(0o755, "t"));
        }
        tree.insert("var/run", Node::symlink("/run", "t"));
        apply(&mut tree)?;
        Ok(tree)
    }

    #[test]
    fn directories_files_and_links_are_made_with_mode_and_owner() {
        let tree =
            made("d /var/lib/x/y 0750 a b - -\nf /etc/f 0600 - - - some words\nL /etc/l - - - - ../usr/l\n").unwrap();
        let node = tree.get("var/lib/x/y").unwrap();
        assert_eq!((node.mode, node.uid, node.gid), (0o750, 7, 8));
        assert!(tree.get("var/lib/x").unwrap().is_directory());
        assert_eq!(tree.file("etc/f"), Some(b"some words".as_slice()));
        assert_eq!(tree.get("etc/l").unwrap().kind, Kind::Symlink("../usr/l".to_owned()));
    }

    #[test]
    fn what_belongs_to_a_running_system_is_left_to_it() {
        let tree = made("d /run/x\nd /var/run/y\nd! /var/z\nd /var/%b\nx /var/q\nr /etc/passwd\n").unwrap();
        assert!(!tree.iter().any(|(path, _)| path.ends_with(['x', 'y', 'z', 'q']) || path.contains('%')));
        assert!(tree.get("etc/passwd").is_some());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in ["d", "d relative", "d /var/../x", "d /var/x 9", "d /var/x - nobody-knows"] {
            assert!(made(bad).is_err(), "{bad}");
        }
    }
}
