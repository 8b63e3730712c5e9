//! The root file system side of an image: packages merged, effects applied, EROFS and dm-verity written.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write as _};

use spec::manifest::{Artifact, Verity, artifact};
use spec::recipe::ImageRecipe;
use store::Store;

use super::output::Output;
use super::{BuildError, BuildRequest, driver};
use crate::content::Content;
use crate::deb::Package;
use crate::kernel::Kernel;
use crate::tree::{Glob, GlobError, Kind, Tree, parent};
use crate::{effects, erofs, inspect, root_modules, verity};

/// The package whose directories win: it owns the layout of a Debian system.
pub(crate) const FIRST: &str = "base-files";

pub(super) struct Root {
    pub(super) artifact: Artifact,
    pub(super) verity: Verity,
    /// The content of `os-release`, where there is one.
    pub(super) os_release: Option<Content>,
    /// The shell that the guest will start on its serial line.
    pub(super) shell: Option<String>,
}

/// The packages of the root file system in the order in which they are merged.
pub(super) fn in_order(mut packages: Vec<Package>) -> Vec<Package> {
    packages.sort_by_key(|package| package.name != FIRST);
    packages
}

pub(super) fn make(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    packages: &[Package],
    kernel: &Kernel,
    store: &Store,
    output: &Output,
) -> Result<Root, BuildError> {
    let tree = tree(request, image, packages, kernel, store)?;
    driver::check(kernel, &tree)?;
    let os_release = os_release(&tree);
    // Whatever is at that path, and whoever put it there.
    let shell = tree.resolve(inspect::SHELL).map(|path| inspect::shell(tree.file(&path).unwrap_or_default()));
    let uuid = uuid(&image.uuid)?;
    let salt = image.salt_bytes();
    let plan = erofs::Image::plan(&tree, uuid, image.compression)?;
    let path = output.path(artifact::ROOTFS);
    let mut file = output.create(artifact::ROOTFS)?;
    let hashes = {
        let mut writer = BufWriter::with_capacity(1 << 20, &mut file);
        plan.write_to(&mut writer).and_then(|()| writer.flush()).map_err(BuildError::io("writing", &path))?;
        drop(writer);
        let hashes =
            verity::Tree::of_file(file.file(), plan.blocks(), &salt).map_err(BuildError::io("reading", &path))?;
        hashes.write_to(&mut file, &uuid).map_err(BuildError::io("writing", &path))?;
        hashes
    };
    let verity = Verity {
        algorithm: "sha256".to_owned(),
        block_size: 4096,
        data_blocks: hashes.data_blocks,
        hash_offset: hashes.data_blocks * verity::BLOCK as u64,
        salt: image.verity_salt.clone(),
        root_hash: hashes.root_hash,
    };
    Ok(Root { artifact: file.finish()?, verity, os_release, shell })
}

/// os-release(5): `/etc/os-release` is a link to the file of the vendor's tree.
fn os_release(tree: &Tree) -> Option<Content> {
    match &tree.get("usr/lib/os-release")?.kind {
        Kind::File { content, .. } => Some(content.clone()),
        _ => None,
    }
}

/// The merged tree: packages and kernel modules, then effects, then what the recipe leaves out, then what it adds, then
/// what describes it all.
fn tree(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    packages: &[Package],
    kernel: &Kernel,
    store: &Store,
) -> Result<Tree, BuildError> {
    let left_out = LeftOut::of(image)?;
    let mut tree = Tree::default();
    for package in packages {
        tree.merge(package, |_, content| content.clone())?;
    }
    root_modules::add(&mut tree, kernel);
    // Everything below asks what is there, through the links of a merged /usr too.
    tree.finish()?;
    effects::apply(&mut tree, packages, &image.users)?;
    left_out.remove_from(&mut tree);
    effects::link(&mut tree, packages);
    left_out.remove_from(&mut tree);
    tree.overlay(image, request.recipe_dir, |file| {
        let part = request.parts.iter().find(|part| part.recipe == file.recipe)?;
        part.files.get(&file.output).cloned()
    })?;
    let cache = request.believe_cache.then_some(store);
    effects::index(&mut tree, |path| left_out.names(path), cache)?;
    tree.finish()?;
    Ok(tree)
}

/// The patterns of `rootfs.drop` and `rootfs.keep`.
struct LeftOut {
    drop: Vec<Glob>,
    keep: Vec<Glob>,
}

impl LeftOut {
    fn of(image: &ImageRecipe) -> Result<Self, GlobError> {
        let parse = |patterns: &[String]| -> Result<Vec<Glob>, GlobError> {
            patterns.iter().map(|pattern| Glob::parse(pattern)).collect()
        };
        Ok(Self { drop: parse(&image.drop)?, keep: parse(&image.keep)? })
    }

    fn names(&self, path: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(path));
        any(&self.drop) && !any(&self.keep)
    }

    /// Leaves out what is named; the directories above something that stays stay too.
    fn remove_from(&self, tree: &mut Tree) {
        let kept = |path: &str| self.keep.iter().any(|glob| glob.matches(path));
        let mut above = BTreeSet::new();
        for (path, _) in tree.iter().filter(|(path, _)| kept(path)) {
            let mut path = path;
            while let Some(directory) = parent(path).filter(|directory| above.insert((*directory).to_owned())) {
                path = directory;
            }
        }
        tree.retain(|path| !self.names(path) || above.contains(path));
    }
}

fn uuid(text: &str) -> Result<[u8; 16], BuildError> {
    let bytes = spec::digest::decode_hex(&text.replace('-', ""));
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| BuildError::Uuid(text.to_owned()))
}
