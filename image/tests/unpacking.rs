//! Trees of tools on disk.

mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use image::{UnpackError, UnpackedTree, open_tree, unpack_tree};
use spec::lock::Use;
use spec::{Diagnostic as _, Outcome};
use support::{Deb, World};
use tar::EntryType;

const RECIPE: &str = r#"
schema = 1
name = "tools"
kind = "tree"
[suites.test]
[packages]
add = ["libc", "tool"]
[programs]
tool = "/usr/bin/tool"
"#;

fn world() -> World {
    let libc = Deb::new("libc")
        .directory("./usr/")
        .directory("./usr/lib64/")
        .entry("./usr/lib64/ld.so", EntryType::Regular, 0o755, None, b"loader")
        .link("./usr/lib64/ld-alias.so", "/usr/lib64/ld.so");
    let tool = Deb::new("tool")
        .entry("./usr/bin/tool", EntryType::Regular, 0o4775, None, b"program")
        .hard_link("./usr/bin/alias", "./usr/bin/tool")
        .file("./lib64/old", "old")
        .file("./usr/share/doc/tool/copyright", "free")
        .file("./usr/lib64/ld.so.conf", "");
    World::new(RECIPE, &[("libc", &[Use::Tree], libc.build()), ("tool", &[Use::Tree], tool.build_as(".zst"))])
}

fn unpack(world: &World) -> Result<UnpackedTree, UnpackError> {
    unpack_tree(&world.recipe, &world.lock, &world.lock_sha256(), &world.store, 2)
}

#[test]
fn a_tree_has_its_files_links_and_modes() {
    let world = world();
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let tree = unpack(&world);
    nix::sys::stat::umask(umask);
    let tree = tree.unwrap();
    assert_eq!(std::fs::read(tree.root().join("lib64/ld-alias.so")).unwrap(), b"loader");
    assert_eq!(std::fs::read_link(tree.root().join("lib64")).unwrap(), Path::new("usr/lib64"));
    assert_eq!(std::fs::read(tree.path("/usr/lib64/old")).unwrap(), b"old");
    let program = tree.path("/usr/bin/tool").metadata().unwrap();
    assert_eq!(program.permissions().mode() & 0o7777, 0o755, "no set-uid, no write for the group");
    assert_eq!(program.ino(), tree.path("/usr/bin/alias").metadata().unwrap().ino());
    assert_eq!(tree.root().metadata().unwrap().permissions().mode() & 0o777, 0o755);
    tree.verify_full().unwrap();
}

#[test]
fn a_tree_is_unpacked_once() {
    let world = world();
    let first = unpack(&world).unwrap().path("/usr/bin/tool").metadata().unwrap().ino();
    assert_eq!(unpack(&world).unwrap().path("/usr/bin/tool").metadata().unwrap().ino(), first);
    assert!(open_tree(&world.lock_sha256(), &world.store).unwrap().is_some());
}

#[test]
fn every_damage_is_found_with_the_file_and_a_remedy() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        // Either name of the file may be named.
        ("usr/bin/", |root| std::fs::write(root.join("usr/bin/tool"), "PROGRAM").unwrap()),
        ("usr/bin/", |root| std::fs::write(root.join("usr/bin/tool"), "longer program").unwrap()),
        ("usr/lib64", |root| std::fs::write(root.join("usr/lib64/added.so"), "").unwrap()),
        ("usr/lib64", |root| std::fs::remove_file(root.join("usr/lib64/ld.so")).unwrap()),
        ("usr/lib64/old", |root| {
            std::fs::set_permissions(root.join("usr/lib64/old"), std::fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("lib64", |root| {
            std::fs::remove_file(root.join("lib64")).unwrap();
            std::os::unix::fs::symlink("/lib64", root.join("lib64")).unwrap();
        }),
    ];
    for (file, damage) in damages {
        let world = world();
        let tree = unpack(&world).unwrap();
        damage(&tree.root());
        if file == "lib64" {
            restore_time(&tree.root());
        }
        let error = tree.verify_quick().unwrap_err();
        assert!(error.to_string().contains(file), "{error}");
        assert_eq!(error.outcome(), Outcome::InputMismatch);
        assert!(error.hint().unwrap().contains("cache prune"));
        assert!(matches!(unpack(&world), Err(UnpackError::Damaged { .. })), "it is checked when it is used again");
    }
}

fn restore_time(path: &Path) {
    std::fs::File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

#[test]
fn a_full_check_finds_what_hides_behind_the_right_time() {
    let world = world();
    let tree = unpack(&world).unwrap();
    let program = tree.path("/usr/bin/tool");
    std::fs::write(&program, "PROGRAM").unwrap();
    restore_time(&program);
    tree.verify_quick().unwrap();
    assert!(tree.verify_full().unwrap_err().to_string().contains("SHA-256"));

    std::fs::write(&program, "program").unwrap();
    restore_time(&program);
    tree.verify_full().unwrap();
    // What no program reads is looked at by a full check alone.
    let copyright = tree.path("/usr/share/doc/tool/copyright");
    std::fs::write(&copyright, "unfree").unwrap();
    tree.verify_quick().unwrap();
    assert!(tree.verify_full().unwrap_err().to_string().contains("copyright"));
    std::fs::write(&copyright, "free").unwrap();
    restore_time(&copyright);
    tree.verify_full().unwrap();
    std::fs::write(tree.path("/usr/bin/more"), "").unwrap();
    restore_time(&tree.path("/usr/bin"));
    assert!(tree.verify_full().unwrap_err().to_string().contains("added"));
}

#[test]
fn a_damaged_index_is_damage() {
    let world = world();
    let tree = unpack(&world).unwrap();
    let index = tree.root().parent().unwrap().join("index");
    for text in ["", "bullion tree index 1\nd ../..\n"] {
        std::fs::write(&index, text).unwrap();
        assert!(matches!(unpack(&world), Err(UnpackError::Damaged { .. })));
    }
}

#[test]
fn what_goes_wrong_leaves_no_tree() {
    let clash = |content: &str, name: &str| Deb::new(name).file("./etc/x", content).build();
    let world = World::new(
        &RECIPE.replace("libc", "one"),
        &[("one", &[Use::Tree], clash("1", "one")), ("tool", &[Use::Tree], clash("2", "tool"))],
    );
    let error = unpack(&world).unwrap_err();
    assert!(matches!(error, UnpackError::Merge(_)), "{error}");
    let through = Deb::new("tool").file("./etc/x/y", "1").build();
    let world = World::new(
        &RECIPE.replace("libc", "one"),
        &[("one", &[Use::Tree], Deb::new("one").link("./etc/x", "/tmp").build()), ("tool", &[Use::Tree], through)],
    );
    assert!(matches!(unpack(&world).unwrap_err(), UnpackError::Merge(_)));
    assert_eq!(std::fs::read_dir(world.store.root().join("trees")).unwrap().count(), 0);
}

#[test]
fn an_image_recipe_is_refused() {
    let world = support::image_world();
    assert!(matches!(unpack(&world), Err(UnpackError::NotATree { .. })));
}
