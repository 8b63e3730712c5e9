//! `/etc/shells`: what `update-shells` of debianutils 5.23 makes on a new system, of its own list and those in `shells.d`.

use super::add_file;
use crate::tree::{Kind, Tree, name, parent};

const EFFECT: &str = "the shells effect";
const TEMPLATE: &str = "usr/share/debianutils/shells";
const PACKAGES: &str = "usr/share/debianutils/shells.d";

pub(super) fn apply(tree: &mut Tree) {
    let Some(template) = tree.file(TEMPLATE).map(|text| String::from_utf8_lossy(text).into_owned()) else {
        return;
    };
    let shells = of_packages(tree, &template);
    let mut written: Vec<&str> = Vec::new();
    let mut text = String::new();
    for line in template.lines() {
        let shell = without_comment(line);
        if shell.is_empty() || !written.contains(&shell) {
            text += &format!("{line}\n");
            written.push(shell);
        }
    }
    text.extend(shells.iter().filter(|shell| !written.contains(&shell.as_str())).map(|shell| format!("{shell}\n")));
    let state: String = shells.iter().map(|shell| format!("{shell}\n")).collect();
    add_file(tree, "etc/shells", 0o644, text.into_bytes(), EFFECT);
    add_file(tree, "var/lib/shells.state", 0o644, state.into_bytes(), EFFECT);
}

/// The shells of the template and of packages in the order of their names, each also where its directory really is, each once.
fn of_packages(tree: &Tree, template: &str) -> Vec<String> {
    let mut texts = vec![template.to_owned()];
    for (_, node) in tree.children(PACKAGES) {
        if let Kind::File { content, .. } = &node.kind {
            texts.push(String::from_utf8_lossy(content.bytes()).into_owned());
        }
    }
    let mut shells: Vec<String> = Vec::new();
    let lines = texts.iter().flat_map(|text| text.lines()).map(without_comment).filter(|line| !line.is_empty());
    for shell in lines {
        let path = shell.trim_start_matches('/');
        let directory = parent(path).unwrap_or_default();
        // A directory that is not there has no other name.
        let real = tree.resolve(directory).unwrap_or_else(|| directory.to_owned());
        for shell in [shell.to_owned(), format!("/{real}/{}", name(path))] {
            if !shells.contains(&shell) {
                shells.push(shell);
            }
        }
    }
    shells
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn shells_of_packages_are_listed_under_both_names() {
        let mut tree = Tree::default();
        tree.insert("bin", Node::symlink("usr/bin", "t"));
        tree.insert("usr/bin", Node::directory(0o755, "t"));
        for (path, text) in [
            (TEMPLATE, "# /etc/shells: valid login shells\n/bin/sh\n/bin/sh\n"),
            ("usr/share/debianutils/shells.d/dash", "/bin/dash\n"),
            ("usr/share/debianutils/shells.d/bash", "/bin/bash#good\n/usr/bin/bash\n"),
        ] {
            tree.insert(path, Node::file(text.as_bytes().to_vec(), 0o644, "t"));
        }
        // `shells.d` is read through its directory.
        tree.insert("usr", Node::directory(0o755, "t"));
        apply(&mut tree);
        let text = String::from_utf8_lossy(tree.file("etc/shells").unwrap()).into_owned();
        assert_eq!(
            text,
            "# /etc/shells: valid login shells\n/bin/sh\n/usr/bin/sh\n/bin/bash\n/usr/bin/bash\n/bin/dash\n/usr/bin/dash\n"
        );
    }

    #[test]
    fn without_debianutils_there_is_no_list() {
        let mut tree = Tree::default();
        apply(&mut tree);
        assert!(tree.get("etc/shells").is_none());
    }
}
