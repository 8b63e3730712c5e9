//! Accounts, directories and units that packages declare: whatever sysusers.d and tmpfiles.d say, what is written is a tree,
//! and files of accounts that can be read again; whatever profiles of PAM and lists of shells say; whatever units and presets say, links stay below `/etc/systemd`.
#![no_main]

use image::effects;
use image::tree::{Node, Tree};
use libfuzzer_sys::fuzz_target;

/// What pam-auth-update looks for in its templates.
const TEMPLATE: &str = "# here are the per-package modules (the \"Primary\" block)\n$x\n# here's the fallback if no module succeeds\n# and here are more per-package modules (the \"Additional\" block)\n$y\n# end of pam-auth-update config\n";

/// What is linked because of this unit and these presets.
fn units(unit: &str, presets: &str) {
    let mut tree = Tree::default();
    for (path, text) in [
        ("usr/lib/systemd/systemd", ""),
        ("usr/lib/systemd/system/a@b.service", unit),
        ("usr/lib/systemd/system/t@.service", unit),
        ("usr/lib/systemd/system-preset/a.preset", presets),
    ] {
        tree.insert(path, Node::file(text.as_bytes().to_vec(), 0o644, "fuzz"));
    }
    tree.finish().expect("a tree");
    let before = tree.clone();
    if effects::index(&mut tree, |path| path == "etc/ld.so.cache", None).is_ok() {
        for (path, _) in tree.iter().filter(|(path, _)| before.get(path).is_none()) {
            assert!(path.starts_with("etc/systemd/system/") && !path.split('/').any(|part| matches!(part, "" | "." | "..")));
        }
    }
}

fuzz_target!(|input: (&str, &str, &str, &str, &str, &str)| {
    let (passwd, group, sysusers, tmpfiles, unit, presets) = input;
    units(unit, presets);
    let mut tree = Tree::default();
    for (path, text) in [
        ("etc/passwd", passwd),
        ("etc/group", group),
        ("usr/lib/sysusers.d/a.conf", sysusers),
        ("usr/lib/tmpfiles.d/a.conf", tmpfiles),
        ("usr/share/pam-configs/a", presets),
        ("usr/share/pam-configs/b", unit),
        ("usr/share/debianutils/shells", presets),
        ("usr/share/debianutils/shells.d/a", unit),
    ] {
        tree.insert(path, Node::file(text.as_bytes().to_vec(), 0o644, "fuzz"));
    }
    for kind in ["auth", "account", "password", "session", "session-noninteractive"] {
        let template = Node::file(format!("{TEMPLATE}{tmpfiles}").into_bytes(), 0o644, "fuzz");
        tree.insert(&format!("usr/share/pam/common-{kind}"), template);
    }
    tree.finish().expect("a tree");
    if effects::apply(&mut tree, &[], &[]).is_ok() {
        tree.finish().expect("still a tree");
        let accounts = |tree: &Tree| ["etc/passwd", "etc/group"].map(|path| tree.file(path).map(<[u8]>::to_vec));
        let before = accounts(&tree);
        effects::apply(&mut tree, &[], &[]).expect("what was written can be read");
        assert_eq!(accounts(&tree), before);
    }
});
