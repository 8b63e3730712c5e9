//! Packages merged into one tree, and what a recipe changes in it.

mod support;

use image::deb;
use image::tree::{Glob, Kind, MergeError, Tree};
use support::Deb;
use tar::EntryType;

fn merge(debs: Vec<Deb>) -> Result<Tree, MergeError> {
    let mut tree = Tree::default();
    for package in debs {
        tree.merge(&deb::read(&package.build_as("")).unwrap(), |_, content| content.clone())?;
    }
    tree.finish()?;
    Ok(tree)
}

#[track_caller]
fn refused(debs: Vec<Deb>, words: &[&str]) {
    let error = merge(debs).unwrap_err().to_string();
    words.iter().for_each(|word| assert!(error.contains(word), "{error}"));
}

#[test]
fn two_packages_may_not_disagree_about_a_path() {
    let pair = |a: Deb, b: Deb| vec![a, b];
    let file = |name, content: &str| Deb::new(name).file("./etc/x", content);
    refused(pair(file("one", "1"), file("two", "2")), &["/etc/x", "different file", "one", "two"]);
    refused(pair(file("one", "1"), Deb::new("two").link("./etc/x", "y")), &["different kind", "one", "two"]);
    refused(pair(file("one", "1"), Deb::new("two").directory("./etc/x")), &["different kind"]);
    let links = pair(Deb::new("one").link("./a", "x"), Deb::new("two").link("./a", "y"));
    refused(links, &["different targets"]);
    let mode = Deb::new("two").entry("./etc/x", EntryType::Regular, 0o755, None, b"1");
    refused(pair(file("one", "1"), mode), &["different mode"]);
}

#[test]
fn two_packages_may_not_disagree_about_extended_attributes() {
    let with = |name: &str, value: &[u8]| Deb::new(name).xattr("user.a", value).file("./etc/x", "1");
    refused(vec![with("one", b"1"), with("two", b"2")], &["/etc/x", "extended attributes", "one", "two"]);
    let tree = merge(vec![with("one", b"1").hard_link("./etc/y", "./etc/x"), with("two", b"1")]).unwrap();
    assert_eq!(tree.get("etc/y").unwrap().xattrs, [("user.a".to_owned(), b"1".to_vec())].into());
}

#[test]
fn the_same_file_in_two_packages_is_fine() {
    let tree = merge(vec![Deb::new("one").file("./etc/x", "1"), Deb::new("two").file("./etc/x", "1")]).unwrap();
    assert_eq!(tree.file("etc/x"), Some(b"1".as_slice()));
    assert_eq!(&*tree.get("etc/x").unwrap().origin, "one");
}

#[test]
fn the_first_package_decides_about_a_directory() {
    let private = Deb::new("one").entry("./srv", EntryType::Directory, 0o700, None, b"");
    let tree = merge(vec![private, Deb::new("two").directory("./srv")]).unwrap();
    assert_eq!(tree.get("srv").unwrap().mode, 0o700);
}

#[test]
fn merged_usr_is_resolved_in_any_order() {
    let links = || Deb::new("base-files").directory("./usr/lib/").link("./lib", "usr/lib").link("./lib64", "usr/lib64");
    let old = || Deb::new("old").directory("./lib/").file("./lib/x", "1").hard_link("./lib/y", "./lib/x");
    let tree = merge(vec![links(), old()]).unwrap();
    let shape = |tree: &Tree| tree.iter().map(|(path, node)| (path.to_owned(), node.kind.clone())).collect::<Vec<_>>();
    assert_eq!(shape(&tree), shape(&merge(vec![old(), links()]).unwrap()));
    assert_eq!(tree.file("usr/lib/y"), Some(b"1".as_slice()));
    assert_eq!(tree.get("lib").unwrap().kind, Kind::Symlink("usr/lib".to_owned()));
}

#[test]
fn links_of_merged_usr_are_added_where_nobody_brings_them() {
    let tree = merge(vec![Deb::new("libc6").file("./usr/lib64/ld.so", "1")]).unwrap();
    assert_eq!(tree.get("lib64").unwrap().kind, Kind::Symlink("usr/lib64".to_owned()));
    assert!(tree.get("sbin").is_none());
    refused(vec![Deb::new("odd").link("./bin", "somewhere")], &["/bin", "odd", "usr/bin"]);
}

#[test]
fn a_path_through_a_link_or_a_file_is_refused() {
    let through = |first: Deb| vec![first, Deb::new("two").file("./a/b/c", "1")];
    refused(through(Deb::new("one").link("./a", "etc")), &["/a/b/c", "two", "one"]);
    refused(through(Deb::new("one").file("./a/b", "1")), &["/a/b/c", "two", "one"]);
}

#[test]
fn dropping_the_first_name_of_a_hard_link_keeps_the_others() {
    let mut tree = merge(vec![Deb::new("one").file("./a/x", "1").hard_link("./b", "./a/x")]).unwrap();
    tree.remove_matching(&[Glob::parse("/a/**").unwrap()]);
    assert_eq!(tree.file("b"), Some(b"1".as_slice()));
    assert!(tree.get("a").is_none());
}
