//! `/etc/ssl/certs/ca-certificates.crt`: what `update-ca-certificates` concatenates when every certificate is trusted, as
//! it is after an installation without questions. Sorted by the bytes of the path, whatever the locale.

use super::add_file;
use crate::tree::{Kind, Tree};

const SOURCES: &str = "usr/share/ca-certificates";

pub(super) fn apply(tree: &mut Tree) {
    let mut bundle = Vec::new();
    for (path, node) in tree.below(SOURCES) {
        let Kind::File { content, .. } = &node.kind else {
            continue;
        };
        if !path.ends_with(".crt") {
            continue;
        }
        bundle.extend_from_slice(content.bytes());
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    if !bundle.is_empty() {
        add_file(tree, "etc/ssl/certs/ca-certificates.crt", 0o644, bundle, "the certificates effect");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn certificates_are_concatenated_in_order_with_a_newline_between() {
        let mut tree = Tree::default();
        for (path, content) in
            [("mozilla/b.crt", "B"), ("mozilla/a.crt", "A\n"), ("mozilla/c.txt", "C"), ("a.crt", "0")]
        {
            tree.insert(
                &format!("{SOURCES}/{path}"),
                Node::file(content.as_bytes().to_vec(), 0o644, "ca-certificates"),
            );
        }
        apply(&mut tree);
        assert_eq!(tree.file("etc/ssl/certs/ca-certificates.crt"), Some(b"0\nA\nB\n".as_slice()));
    }

    #[test]
    fn without_certificates_there_is_no_bundle() {
        let mut tree = Tree::default();
        apply(&mut tree);
        assert_eq!(tree.len(), 1);
    }
}
