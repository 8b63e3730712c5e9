//! `/etc/ld.so.cache`: what `ldconfig` writes (glibc 2.41, elf/ldconfig.c), from the libraries of the tree.
//!
//! Only where libc-bin is in the tree, as on a real system; without it the loader finds Debian's libraries in its default
//! directories. Not done: libraries for other machines than x86-64.

mod format;
mod soname;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Kind, Node, Tree};

const EFFECT: &str = "the loader-cache effect";
/// What ldconfig of Debian searches after what its configuration names.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"];
pub(super) const PATH: &str = "etc/ld.so.cache";
const CONFIGURATION: &str = "etc/ld.so.conf";

/// A library as the cache lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Library {
    soname: String,
    path: String,
    /// The directory of `glibc-hwcaps` that it is in: for processors that can do more.
    hwcaps: Option<String>,
}

/// A directory of libraries.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Directory {
    /// As the configuration has it.
    written: String,
    /// Where it really is.
    real: String,
    hwcaps: Option<String>,
}

pub(super) fn apply(tree: &mut Tree) {
    if tree.get("usr/sbin/ldconfig").is_none() {
        return;
    }
    let mut libraries = Vec::new();
    let mut links = Vec::new();
    let directories = directories(tree);
    let hwcaps: Vec<String> = directories.iter().filter_map(|directory| directory.hwcaps.clone()).collect();
    for Directory { written, real: directory, hwcaps } in directories {
        for (soname, file) in libraries_in(tree, &directory) {
            // Below glibc-hwcaps no links are made, and the file's own name is listed.
            let listed = if hwcaps.is_some() { &file } else { &soname };
            let path = format!("{written}/{listed}");
            if hwcaps.is_none() && tree.get(&format!("{directory}/{soname}")).is_none() {
                links.push((format!("{directory}/{soname}"), file));
            }
            libraries.push(Library { path, soname, hwcaps: hwcaps.clone() });
        }
    }
    for (path, target) in links {
        tree.insert(&path, Node::symlink(&target, EFFECT));
    }
    // Stable: of libraries with one name, those of glibc-hwcaps come first, by its names, then the one of the earlier directory.
    libraries.sort_by(|a, b| {
        let plain = |library: &Library| library.hwcaps.is_none();
        let by_name = compare(&b.soname, &a.soname);
        by_name.then_with(|| plain(a).cmp(&plain(b))).then_with(|| a.hwcaps.cmp(&b.hwcaps))
    });
    super::add_file(tree, PATH, 0o644, format::cache(&libraries, &hwcaps), EFFECT);
}

/// The directories, each once, each behind those that its `glibc-hwcaps` has.
fn directories(tree: &Tree) -> Vec<Directory> {
    let mut written = Vec::new();
    configured(tree, CONFIGURATION, &mut written, &mut BTreeSet::new());
    written.extend(SYSTEM_DIRECTORIES.map(str::to_owned));
    let mut found: Vec<Directory> = Vec::new();
    for directory in written {
        let Some((real, node)) = tree.follow(directory.trim_start_matches('/')) else {
            continue;
        };
        if !node.is_directory() || found.iter().any(|known| known.real == real) {
            continue;
        }
        let above = format!("{real}/glibc-hwcaps");
        for (name, _) in tree.children(&above).filter(|(_, node)| node.is_directory()) {
            let (written, real) = (format!("{directory}/glibc-hwcaps/{name}"), format!("{above}/{name}"));
            found.push(Directory { written, real, hwcaps: Some(name.to_owned()) });
        }
        found.push(Directory { written: directory, real, hwcaps: None });
    }
    found
}

/// Reads `ld.so.conf`, and each file that is included once: one directory a line, `include` with a pattern of files, `#` starts a comment (ldconfig(8)).
fn configured(tree: &Tree, path: &str, directories: &mut Vec<String>, read: &mut BTreeSet<String>) {
    let Some((real, Node { kind: Kind::File { content, .. }, .. })) = tree.follow(path) else {
        return;
    };
    if !read.insert(real) {
        return;
    }
    let text = String::from_utf8_lossy(content.bytes()).into_owned();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        match line.strip_prefix("include").filter(|rest| rest.starts_with(char::is_whitespace)) {
            Some(patterns) => {
                for pattern in patterns.split_whitespace() {
                    for file in matching(tree, pattern) {
                        configured(tree, &file, directories, read);
                    }
                }
            }
            None if line.starts_with('/') => directories.push(line.trim_end_matches('/').to_owned()),
            _ => {}
        }
    }
}

/// The files that an `include` pattern names, sorted as glob(3) does in the C locale.
fn matching(tree: &Tree, pattern: &str) -> Vec<String> {
    let absolute = if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/{pattern}") };
    let Ok(glob) = crate::tree::Glob::parse(&absolute) else {
        return Vec::new();
    };
    tree.iter().map(|(path, _)| path).filter(|path| glob.matches(path)).map(str::to_owned).collect()
}

/// The libraries of one directory by soname, with the file name that stands for each (search_dir in ldconfig.c).
fn libraries_in(tree: &Tree, directory: &str) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for (name, node) in tree.children(directory) {
        if !is_library_name(name) {
            continue;
        }
        let Some((_, Node { kind: Kind::File { content, .. }, .. })) = tree.follow(&format!("{directory}/{name}"))
        else {
            continue;
        };
        let Some(soname) = soname::of(content.bytes()) else {
            continue;
        };
        let soname = soname.unwrap_or_else(|| name.to_owned());
        // A link for the linker (`libx.so`) is listed by its own name, any other by the soname of what it leads to.
        let is_link = matches!(node.kind, Kind::Symlink(_))
            && (name == soname || (name.ends_with(".so") && soname.starts_with(name)));
        let listed = if is_link { name.to_owned() } else { soname };
        match found.get_mut(&listed) {
            Some((known, known_is_link)) => {
                let newer = *known_is_link == is_link && compare(known, name) == Ordering::Less;
                if (!is_link && *known_is_link) || newer {
                    (*known, *known_is_link) = (name.to_owned(), is_link);
                }
            }
            None => drop(found.insert(listed, (name.to_owned(), is_link))),
        }
    }
    found.into_iter().map(|(soname, (name, _))| (soname, name)).collect()
}

/// `lib*.so*` and `ld-*.so*`, without gdb's scripts (`_dl_is_dso` and skip_dso_based_on_name).
fn is_library_name(name: &str) -> bool {
    (name.starts_with("lib") || name.starts_with("ld-")) && name.contains(".so") && !name.ends_with("-gdb.py")
}

/// The order of names in the cache (`_dl_cache_libcmp`): digits count as numbers and come after everything else.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.split_first(), b.split_first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some((first, _)), second) if first.is_ascii_digit() => {
                if !second.is_some_and(|(second, _)| second.is_ascii_digit()) {
                    return Ordering::Greater;
                }
                let (one, two) = (number(&mut a), number(&mut b));
                if one != two {
                    return one.cmp(&two);
                }
            }
            (Some(_), None) => return Ordering::Greater,
            (Some((first, rest)), Some((second, other))) => {
                if second.is_ascii_digit() {
                    return Ordering::Less;
                }
                if first != second {
                    // Both are `char`, which is signed on x86-64.
                    return first.cast_signed().cmp(&second.cast_signed());
                }
                (a, b) = (rest, other);
            }
        }
    }
}

fn number(text: &mut &[u8]) -> u64 {
    let mut value = 0u64;
    while let Some((digit, rest)) = text.split_first().filter(|(digit, _)| digit.is_ascii_digit()) {
        value = value.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
        *text = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_number() {
        for (less, more) in
            [("liba.so.9", "liba.so.10"), ("libab", "liba1"), ("liba", "libab"), ("liba.so", "liba.so.1")]
        {
            assert_eq!(compare(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(compare(more, less), Ordering::Greater, "{less} {more}");
        }
        assert_eq!(compare("liba.so.1", "liba.so.1"), Ordering::Equal);
    }

    #[test]
    fn without_ldconfig_there_is_no_cache() {
        let mut tree = Tree::default();
        apply(&mut tree);
        assert_eq!(tree.len(), 1);
    }
}
