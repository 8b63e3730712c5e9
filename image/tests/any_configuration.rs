//! Effects on configuration that nobody wrote. sysusers.d and tmpfiles.d come from packages: whatever they say, what is
//! written is a tree, and files of accounts that can be read again. Of scripts nothing is made up.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use image::effects;
use image::scripts::rest;
use image::tree::{Node, Tree};
use proptest::prelude::*;

fn tree(sysusers: &str, tmpfiles: &str) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in [
        ("etc/passwd", "root:*:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:*:0:\n"),
        ("usr/lib/sysusers.d/a.conf", sysusers),
        ("usr/lib/tmpfiles.d/a.conf", tmpfiles),
    ] {
        tree.insert(path, Node::file(text.as_bytes().to_vec(), 0o644, "test"));
    }
    tree.finish().unwrap();
    tree
}

/// The lines of a file of accounts, each with so many fields, and no name twice.
fn lines(tree: &Tree, path: &str, fields: usize) -> Vec<String> {
    let text = String::from_utf8(tree.file(path).unwrap().to_vec()).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut names: Vec<&str> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    for line in &lines {
        assert_eq!(line.split(':').count(), fields, "{line:?}");
    }
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{lines:?}");
    lines
}

/// A line of words that mean something, in places where they may not.
fn line(first: &'static str, second: &'static str) -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("-".to_owned()),
        "[0-9]{1,10}",
        "[0-9]{1,4}:[a-c]",
        "[a-c]{1,2}",
        "\"[ -~]{0,8}\"",
        "'[a-c:\r\u{85}]{0,4}'",
        "[ -~]{0,6}",
    ];
    (first, second, prop::collection::vec(word, 0..6))
        .prop_map(|(first, second, words)| format!("{first} {second} {}", words.join(" ")))
}

fn text(line: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop_oneof![prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n")), "\\PC{0,80}"]
}

fn sysusers() -> impl Strategy<Value = String> {
    text(line("[ugmr]!?", "[a-c]{1,2}|root|-"))
}

fn tmpfiles() -> impl Strategy<Value = String> {
    text(line("[dDvqQefFLrx][+!=-]?", "/(etc|var|run|usr)(/[a-c.%]{1,3}){0,3}/?"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_a_tree_and_can_be_read_again(sysusers in sysusers(), tmpfiles in tmpfiles()) {
        let mut tree = tree(&sysusers, &tmpfiles);
        if effects::apply(&mut tree, &[], &[]).is_ok() {
            tree.finish().unwrap();
            // The same file may be a line of tmpfiles.d, which the account effect was before.
            let before = (lines(&tree, "etc/passwd", 7), lines(&tree, "etc/group", 4));
            effects::apply(&mut tree, &[], &[]).unwrap();
            prop_assert_eq!((lines(&tree, "etc/passwd", 7), lines(&tree, "etc/group", 4)), before);
        }
    }

    #[test]
    fn nothing_of_a_script_is_made_up(
        name in prop_oneof![Just("postinst"), Just("preinst"), Just("triggers"), Just("config")],
        lines in prop::collection::vec(prop_oneof![
            "(# Automatically added by |# End automatically added section)?(dh_installdeb|dh_[a-z]{1,6})?",
            "(if|fi|esac|case|set -e|exit 0|#)? ?[ -~]{0,20}\\\\?",
            "update-alternatives --install /[a-z]{1,3} [a-z]{1,3} /[a-z]{1,3} [0-9]{1,2} ?[|&;\\\\]?",
            "(activate|interest)(-noawait)? [a-z]{1,9}",
        ], 0..8),
    ) {
        let text = lines.join("\n");
        let (left, _) = rest(name, &text);
        // A shell joins such lines; a list of triggers has none.
        let joined = if name == "triggers" { text.clone() } else { text.replace("\\\n", " ") };
        let mut words = joined.split_whitespace();
        for word in left.split_whitespace() {
            prop_assert!(words.any(|other| other == word), "{:?} of {:?} in {:?}", word, left, text);
        }
    }
}
