//! The indexes of kernel modules against depmod's, over every module of the kernel that the container image has.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use e2e::{judge, run};
use image::deb::{self, EntryKind, Package};
use image::kernel::{self, Wanted};
use image::tree::{Kind, Tree};
use spec::lock::{Lock, Use};

/// The kernel's packages, from the cache by the lock of the container recipe.
fn kernel_packages() -> Option<Vec<Package>> {
    let Some(recipe) = std::env::var_os("BULLION_TEST_CONTAINER").map(PathBuf::from) else {
        e2e::skipped("BULLION_TEST_CONTAINER is not set");
        return None;
    };
    let path = recipe.with_extension("lock");
    let lock = Lock::parse(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap()).unwrap();
    let store = store::Store::open(&store::Store::default_dir().unwrap()).unwrap();
    let read = |package: &spec::lock::Package| deb::read(&store.read(&package.sha256, package.size).unwrap()).unwrap();
    Some(lock.package.iter().filter(|package| package.uses.contains(&Use::Kernel)).map(read).collect())
}

/// Regular files and directories of a tree, as files.
fn write(tree: &Tree, root: &Path) {
    for (path, node) in tree.iter() {
        match &node.kind {
            Kind::Directory => std::fs::create_dir_all(root.join(path)).unwrap(),
            Kind::File { content, .. } => std::fs::write(root.join(path), content.bytes()).unwrap(),
            _ => {}
        }
    }
}

fn indexes(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = e2e::names(directory).into_iter().filter(|name| name.starts_with("modules."));
    names.map(|name| (name.clone(), std::fs::read(directory.join(name)).unwrap())).collect()
}

#[test]
fn depmod_writes_the_same_indexes_of_a_whole_kernel() {
    let Some(packages) = kernel_packages() else { return };
    let Some(mut depmod) = judge("depmod") else { return };
    let files = packages.iter().flat_map(|package| &package.entries);
    let files = files.filter(|entry| matches!(entry.kind, EntryKind::File(_)) && entry.path.contains(".ko"));
    let names: Vec<String> =
        files.map(|entry| entry.path.rsplit('/').next().unwrap().split('.').next().unwrap().to_owned()).collect();
    assert!(names.len() > 300, "{}", names.len());
    let wanted = Wanted { root: &names, ..Wanted::default() };
    let kernel = kernel::find(&packages.iter().collect::<Vec<_>>(), [], &wanted).unwrap();
    let mut tree = Tree::default();
    image::root_modules::add(&mut tree, &kernel);
    tree.finish().unwrap();

    let directory = tempfile::tempdir().unwrap();
    let (theirs, ours) = (directory.path().join("theirs"), directory.path().join("ours"));
    write(&tree, &theirs);
    std::os::unix::fs::symlink("usr/lib", theirs.join("lib")).unwrap();
    run(depmod.arg("-b").arg(&theirs).arg(&kernel.version)).expect(0, &[]);
    image::effects::index(&mut tree, |_| false, None).unwrap();
    write(&tree, &ours);
    let at = |root: &Path| root.join("usr/lib/modules").join(&kernel.version);
    let (theirs, ours) = (indexes(&at(&theirs)), indexes(&at(&ours)));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, bytes) in &theirs {
        assert!(!bytes.is_empty(), "{name} is empty");
        assert!(ours[name] == *bytes, "{name} is not depmod's");
    }
    for (name, least) in [("modules.dep", 300), ("modules.alias", 1000), ("modules.symbols", 1000)] {
        assert!(theirs[name].split(|byte| *byte == b'\n').count() > least, "{name}");
    }
}
