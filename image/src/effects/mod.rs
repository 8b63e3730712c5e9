//! What maintainer scripts would have done and a guest needs, as pure functions over the tree.
//!
//! No script runs. An effect looks only at the tree and at what the packages say about themselves, adds what is missing,
//! and leaves alone what a package brought. `apply` comes before the recipe's own changes to the tree, `index` after them:
//! it describes what is there. Which script is answered by which effect stands in `scripts`.

mod accounts;
mod alternatives;
mod base_files;
mod caches;
mod certificates;
mod loader_cache;
mod machine_id;
mod modes;
mod module_index;
mod mount_points;
mod package_status;
mod pam;
mod shells;
mod temporary_files;
mod units;

use std::collections::BTreeMap;

use spec::recipe::UserEntry;
use spec::{Diagnostic, Outcome};
use store::Store;

use crate::deb::Package;
use crate::tree::{Kind, Node, Tree};
pub(crate) use accounts::numbers;
pub use alternatives::Alternative;

/// The names under which effects answer scripts.
pub const NAMES: [&str; 14] = [
    "accounts",
    "alternatives",
    "base-files",
    "certificates",
    "loader-cache",
    "machine-id",
    "modes",
    "module-index",
    "mount-points",
    "package-status",
    "pam",
    "shells",
    "temporary-files",
    "units",
];

/// A configuration file that an effect cannot follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {effect} effect: {path}: {reason}")]
pub struct EffectError {
    /// The effect.
    pub effect: &'static str,
    /// The file, or the part of the recipe.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl Diagnostic for EffectError {
    fn outcome(&self) -> Outcome {
        Outcome::Usage
    }
    fn hint(&self) -> Option<String> {
        None
    }
}

/// Applies every effect that adds to the packages' files. `users` are the recipe's. The links of alternatives come later
/// (`link`), because what the recipe leaves out is no choice.
pub fn apply(tree: &mut Tree, packages: &[Package], users: &[UserEntry]) -> Result<(), EffectError> {
    accounts::apply(tree, users)?;
    base_files::apply(tree)?;
    modes::apply(tree)?;
    temporary_files::apply(tree)?;
    certificates::apply(tree);
    pam::apply(tree);
    shells::apply(tree);
    package_status::apply(tree, packages);
    machine_id::apply(tree);
    mount_points::apply(tree);
    caches::apply(tree);
    Ok(())
}

/// Adds the links of alternatives.
pub fn link(tree: &mut Tree, packages: &[Package]) {
    alternatives::apply(tree, packages);
}

/// Adds what describes the finished tree, except where the recipe has left that out. With a cache, indexes of the same kernel
/// modules are taken as an earlier build kept them there.
pub fn index(tree: &mut Tree, is_left_out: impl Fn(&str) -> bool, cache: Option<&Store>) -> Result<(), EffectError> {
    units::apply(tree, &is_left_out)?;
    if !is_left_out(loader_cache::PATH) {
        loader_cache::apply(tree);
    }
    module_index::apply(tree, is_left_out, cache)
}

/// Adds a file where there is nothing.
fn add_file(tree: &mut Tree, path: &str, mode: u16, content: Vec<u8>, effect: &str) {
    if tree.get(path).is_none() {
        tree.insert(path, Node::file(content, mode, effect));
    }
}

/// Adds a file, or gives the one that is there another content.
fn replace_file(tree: &mut Tree, path: &str, mode: u16, content: Vec<u8>, effect: &str) {
    tree.insert(path, Node::file(content, mode, effect));
}

/// Adds a directory of root where there is nothing.
fn add_directory(tree: &mut Tree, path: &str, mode: u16, effect: &str) {
    if tree.get(path).is_none() {
        tree.insert(path, Node::directory(mode, effect));
    }
}

/// Adds a link where there is nothing.
fn add_link(tree: &mut Tree, path: &str, target: &str, effect: &str) {
    if tree.get(path).is_none() {
        tree.insert(path, Node::symlink(target, effect));
    }
}

/// Gives what is at `path` to another user and group.
fn set_owner(tree: &mut Tree, path: &str, uid: u32, gid: u32) {
    if let Some(node) = tree.get(path).cloned() {
        tree.insert(path, Node { uid, gid, ..node });
    }
}

/// The files of a systemd configuration directory that have this ending, with their text, in the order in which they are read: by file
/// name, one in `/etc` instead of one of that name in `/usr/lib` (sysusers.d(5), "Configuration directories").
fn configuration(tree: &Tree, directory: &str, ending: &str) -> Vec<(String, String)> {
    let mut files = BTreeMap::new();
    for above in ["usr/lib", "usr/local/lib", "etc"] {
        let directory = format!("{above}/{directory}");
        for (name, node) in tree.children(&directory).filter(|(name, _)| name.ends_with(ending)) {
            let path = format!("{directory}/{name}");
            let text = match &node.kind {
                Kind::File { content, .. } => String::from_utf8_lossy(content.bytes()).into_owned(),
                // A link to /dev/null masks the file of that name.
                _ => String::new(),
            };
            files.insert(name.to_owned(), (format!("/{path}"), text));
        }
    }
    files.into_values().collect()
}

/// The words of a line, with quotes taken off; `None` where a quote is not closed.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_can_be_quoted() {
        assert_eq!(words("u a\t- \"A user\" ''").unwrap(), ["u", "a", "-", "A user", ""]);
        assert_eq!(words("a \"b"), None);
    }

    #[test]
    fn a_file_in_etc_stands_for_one_of_that_name_in_usr() {
        let mut tree = Tree::default();
        for (path, text) in
            [("usr/lib/x.d/b.conf", "B"), ("usr/lib/x.d/a.conf", "A"), ("etc/x.d/b.conf", "E"), ("etc/x.d/c", "")]
        {
            tree.insert(path, Node::file(text.as_bytes().to_vec(), 0o644, "t"));
        }
        let texts: Vec<String> = configuration(&tree, "x.d", ".conf").into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["A", "E"]);
    }
}
