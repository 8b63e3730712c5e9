//! The root file system side of an image: packages merged, effects applied, EROFS and dm-verity written.

use std::io::{BufWriter, Write as _};

use spec::lock::Use;
use spec::manifest::{Artifact, Verity, artifact};
use spec::recipe::ImageRecipe;
use store::Store;

use super::output::Output;
use super::{BuildError, BuildRequest, inputs};
use crate::content::Content;
use crate::deb::Package;
use crate::kernel::Kernel;
use crate::tree::{Glob, Kind, Tree};
use crate::{effects, erofs, root_modules, verity};

/// The package whose directories win: it owns the layout of a Debian system.
pub(crate) const FIRST: &str = "base-files";

pub(super) struct Root {
    pub(super) artifact: Artifact,
    pub(super) verity: Verity,
    /// The content of `os-release`, where there is one.
    pub(super) os_release: Option<Content>,
}

/// The packages of the root file system, in the order in which they are merged.
pub(super) fn packages(request: &BuildRequest<'_>, store: &Store) -> Result<Vec<Package>, BuildError> {
    let mut packages = inputs::all(request.lock, Use::Tree, store)?;
    packages.sort_by_key(|package| package.name != FIRST);
    Ok(packages)
}

pub(super) fn make(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    packages: &[Package],
    kernel: &Kernel,
    output: &Output,
) -> Result<Root, BuildError> {
    let tree = tree(request, image, packages, kernel)?;
    let os_release = os_release(&tree);
    let uuid = uuid(&image.uuid)?;
    let salt = image.salt_bytes();
    let plan = erofs::Image::plan(&tree, uuid)?;
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
    Ok(Root { artifact: file.finish()?, verity, os_release })
}

/// os-release(5): `/etc/os-release` is a link to the file of the vendor's tree.
fn os_release(tree: &Tree) -> Option<Content> {
    match &tree.get("usr/lib/os-release")?.kind {
        Kind::File { content, .. } => Some(content.clone()),
        _ => None,
    }
}

/// The merged tree: packages and kernel modules, then effects, then what the recipe leaves out, then what it adds.
fn tree(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    packages: &[Package],
    kernel: &Kernel,
) -> Result<Tree, BuildError> {
    let globs = image.drop.iter().map(|pattern| Glob::parse(pattern)).collect::<Result<Vec<_>, _>>()?;
    let mut tree = Tree::default();
    for package in packages {
        tree.merge(package, |_, content| content.clone())?;
    }
    root_modules::add(&mut tree, kernel);
    effects::apply(&mut tree);
    tree.remove_matching(&globs);
    tree.overlay(image, request.recipe_dir)?;
    tree.finish()?;
    Ok(tree)
}

fn uuid(text: &str) -> Result<[u8; 16], BuildError> {
    let bytes = spec::digest::decode_hex(&text.replace('-', ""));
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| BuildError::Uuid(text.to_owned()))
}
