//! Following symbolic links inside a tree, as the kernel would with the tree as its root.

use super::{Kind, Node, Tree};

/// The most links that are followed for one path, as in Linux (path_resolution(7)).
const MAX_LINKS: usize = 40;

impl<C> Tree<C> {
    /// The path, without links, of what `path` leads to; `None` where that is not there, or the links never end.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut done = String::new();
        let mut ahead: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut links = 0;
        while let Some(part) = ahead.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done = super::parent(&done).unwrap_or_default().to_owned();
                    continue;
                }
                _ => {}
            }
            let next = if done.is_empty() { part } else { format!("{done}/{part}") };
            match &self.get(&next)?.kind {
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        done.clear();
                    }
                    ahead.extend(target.split('/').rev().map(str::to_owned));
                }
                _ => done = next,
            }
        }
        Some(done)
    }

    /// What `path` leads to, with its own path.
    pub fn follow(&self, path: &str) -> Option<(String, &Node<C>)> {
        let path = self.resolve(path)?;
        let node = self.get(&path)?;
        Some((path, node))
    }

    /// The names directly in the directory `path`, with what they are, sorted by bytes.
    pub fn children<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a Node<C>)> {
        let skip = path.len() + 1;
        self.below(path).filter_map(move |(child, node)| {
            let name = child.get(skip..)?;
            (!name.contains('/')).then_some((name, node))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_inside_the_tree_only() {
        let mut tree: Tree = Tree::default();
        for directory in ["usr", "usr/lib", "etc"] {
            tree.insert(directory, Node::directory(0o755, "t"));
        }
        tree.insert("usr/lib/a", Node::file(b"a".to_vec(), 0o644, "t"));
        tree.insert("lib", Node::symlink("usr/lib", "t"));
        tree.insert("etc/up", Node::symlink("../../../lib/./a", "t"));
        tree.insert("etc/abs", Node::symlink("/lib/a", "t"));
        tree.insert("etc/loop", Node::symlink("loop", "t"));
        for path in ["lib/a", "etc/up", "etc/abs", "usr/../lib/a"] {
            assert_eq!(tree.resolve(path).as_deref(), Some("usr/lib/a"), "{path}");
        }
        assert_eq!(tree.resolve("etc/loop"), None);
        assert_eq!(tree.resolve("lib/b"), None);
        assert_eq!(tree.children("usr").map(|(name, _)| name).collect::<Vec<_>>(), ["lib"]);
    }
}
