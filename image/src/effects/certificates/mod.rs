//! `/etc/ssl/certs`: what `update-ca-certificates` makes when every certificate is trusted, as it is after an installation
//! without questions: one file with all of them, a link to each, and links named after the hash of each subject, by which
//! OpenSSL finds one certificate without reading all.

mod subject_hash;

use std::collections::{BTreeMap, BTreeSet};

use super::{add_directory, add_file, add_link};
use crate::tree::{Kind, Tree, name};

const SOURCES: [&str; 2] = ["usr/share/ca-certificates", "usr/local/share/ca-certificates"];
const DIRECTORY: &str = "etc/ssl/certs";
const EFFECT: &str = "the certificates effect";

pub(super) fn apply(tree: &mut Tree) {
    let mut bundle = Vec::new();
    let mut configuration = String::new();
    // By link name: where it leads, and the certificate.
    let mut links: BTreeMap<String, (String, Vec<u8>)> = BTreeMap::new();
    for source in SOURCES {
        for (path, node) in tree.below(source) {
            let Kind::File { content, .. } = &node.kind else {
                continue;
            };
            let (Some(stem), Some(inside)) = (name(path).strip_suffix(".crt"), path.get(source.len() + 1..)) else {
                continue;
            };
            bundle.extend_from_slice(content.bytes());
            if !bundle.ends_with(b"\n") {
                bundle.push(b'\n');
            }
            if source == SOURCES[0] {
                configuration += &format!("{inside}\n");
            }
            let link = stem.replace([' ', ','], "_").replace(['(', ')'], "=") + ".pem";
            links.insert(link, (format!("/{path}"), content.bytes().to_vec()));
        }
    }
    if bundle.is_empty() {
        return;
    }
    add_directory(tree, "usr/local/share/ca-certificates", 0o755, EFFECT);
    add_file(tree, "etc/ca-certificates.conf", 0o644, configuration.into_bytes(), EFFECT);
    add_file(tree, &format!("{DIRECTORY}/ca-certificates.crt"), 0o644, bundle, EFFECT);
    let mut used: BTreeMap<String, u32> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (link, (target, pem)) in &links {
        add_link(tree, &format!("{DIRECTORY}/{link}"), target, EFFECT);
        // What is no certificate has no hash, and one that is there twice is found once, as with `openssl rehash`.
        let Some(der) = subject_hash::certificate_of_pem(pem).filter(|der| seen.insert(der.clone())) else {
            continue;
        };
        if let Some(hash) = subject_hash::of(&der) {
            let number = used.entry(hash.clone()).or_default();
            add_link(tree, &format!("{DIRECTORY}/{hash}.{number}"), link, EFFECT);
            *number += 1;
        }
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
            [("mozilla/b (1).crt", "B"), ("mozilla/a.crt", "A\n"), ("mozilla/c.txt", "C"), ("a.crt", "0")]
        {
            let path = format!("{}/{path}", SOURCES[0]);
            tree.insert(&path, Node::file(content.as_bytes().to_vec(), 0o644, "ca-certificates"));
        }
        apply(&mut tree);
        assert_eq!(tree.file("etc/ssl/certs/ca-certificates.crt"), Some(b"0\nA\nB\n".as_slice()));
        let link = Kind::Symlink("/usr/share/ca-certificates/mozilla/b (1).crt".to_owned());
        assert_eq!(tree.get("etc/ssl/certs/b_=1=.pem").unwrap().kind, link);
        let listed = b"a.crt\nmozilla/a.crt\nmozilla/b (1).crt\n";
        assert_eq!(tree.file("etc/ca-certificates.conf"), Some(listed.as_slice()));
    }

    #[test]
    fn without_certificates_there_is_no_bundle() {
        let mut tree = Tree::default();
        apply(&mut tree);
        assert_eq!(tree.len(), 1);
    }
}
