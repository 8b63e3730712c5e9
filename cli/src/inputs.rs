//! Reading the files that verbs share: recipes with what they extend, locks, VM descriptions, image directories.

use std::path::{Path, PathBuf};

use spec::lock::Lock;
use spec::recipe::{MAX_CHAIN, Recipe, RecipeFile, flatten};
use spec::vm::Vm;
use spec::{Outcome, SyntaxError};
use store::Store;

use crate::args::Arguments;
use crate::failure::Failure;

/// The recipe and lock of the QEMU tree that this version of Bullion was tested with.
const VMM_RECIPE: (&str, &str) = ("image-recipes/vmm.toml", include_str!("../../image-recipes/vmm.toml"));
const VMM_LOCK: (&str, &str) = ("image-recipes/vmm.lock", include_str!("../../image-recipes/vmm.lock"));
/// The firmware images whose behaviour is known.
const PINS: (&str, &str) = ("firmware/pins.toml", include_str!("../../firmware/pins.toml"));

/// A recipe and the directory its relative paths start from.
pub(crate) struct LoadedRecipe {
    /// The flattened recipe.
    pub(crate) recipe: Recipe,
    /// Where the recipe file is.
    pub(crate) directory: PathBuf,
}

/// A lock and the text it was read from.
pub(crate) struct LoadedLock {
    /// The lock.
    pub(crate) lock: Lock,
    /// The text, whose digest goes into the manifest.
    pub(crate) text: String,
}

/// Reads a regular file of at most `max_bytes`, which is as large as `what` gets. A pipe, a device or a file that grows is
/// refused, never waited for.
pub(crate) fn read_file(path: &Path, max_bytes: u64, what: &str) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let unreadable = |error: std::io::Error| Failure::file("reading", path, &error);
    let file = store::open_regular(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len().min(max_bytes);
    // All of it at once: a buffer that grows is copied again and again.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max_bytes {
        let message = format!("{} is not a file of at most {max_bytes} bytes, as {what} is", path.display());
        return Err(Failure::new(Outcome::Usage, message));
    }
    Ok(bytes)
}

/// Reads a text file.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::file("reading", path, &error))
}

/// Reads a recipe and all it extends.
pub(crate) fn recipe(path: &Path) -> Result<LoadedRecipe, Failure> {
    let mut chain = Vec::new();
    let mut next = Some(path.to_path_buf());
    while let Some(path) = next.take() {
        let name = path.display().to_string();
        if chain.len() >= MAX_CHAIN {
            return Err(SyntaxError::whole(&name, format!("more than {MAX_CHAIN} recipes extend each other")).into());
        }
        let text = read_text(&path)
            .map_err(|failure| failure.with_hint("name a recipe, such as image-recipes/minimal.toml"))?;
        let file = RecipeFile::parse(&name, &text)?;
        next = file.extends.as_ref().map(|base| path.parent().unwrap_or(Path::new("")).join(base));
        chain.push((name, text, file));
    }
    let directory = path.parent().unwrap_or(Path::new("")).to_path_buf();
    Ok(LoadedRecipe { recipe: flatten(&chain)?, directory })
}

/// Where the lock of a recipe is kept.
pub(crate) fn lock_path(recipe: &Path) -> PathBuf {
    recipe.with_extension("lock")
}

/// Reads a lock and checks that it was made for `recipe`.
pub(crate) fn lock(path: &Path, recipe_path: &Path, recipe: &Recipe) -> Result<LoadedLock, Failure> {
    let relock = || format!("run: bullion lock {}", recipe_path.display());
    if !path.exists() {
        return Err(Failure::new(
            Outcome::Usage,
            format!("{} is not locked: there is no {}", recipe_path.display(), path.display()),
        )
        .with_hint(relock()));
    }
    let text = read_text(path)?;
    let lock = Lock::parse(&path.display().to_string(), &text).map_err(|error| {
        Failure::from(error).with_hint(format!("run: bullion lock {} --update", recipe_path.display()))
    })?;
    if lock.recipe_sha256 != recipe.lock_digest() {
        let message = format!("{} was made for another state of {}", path.display(), recipe_path.display());
        return Err(Failure::new(Outcome::InputMismatch, message).with_hint(relock()));
    }
    Ok(LoadedLock { lock, text })
}

/// The pinned QEMU tree.
pub(crate) fn pinned_vmm() -> Result<(Recipe, LoadedLock), Failure> {
    let file = RecipeFile::parse(VMM_RECIPE.0, VMM_RECIPE.1)?;
    let recipe = flatten(&[(VMM_RECIPE.0.to_owned(), VMM_RECIPE.1.to_owned(), file)])?;
    let lock = Lock::parse(VMM_LOCK.0, VMM_LOCK.1)?;
    if lock.recipe_sha256 != recipe.lock_digest() {
        return Err(Failure::new(Outcome::Internal, "the built-in QEMU lock was made for another state of its recipe"));
    }
    Ok((recipe, LoadedLock { lock, text: VMM_LOCK.1.to_owned() }))
}

/// SHA-256 of the lock of the pinned QEMU tree.
pub(crate) fn pinned_vmm_lock_sha256() -> spec::Sha256Digest {
    spec::Sha256Digest::of(VMM_LOCK.1.as_bytes())
}

/// The pinned firmware images.
pub(crate) fn pins() -> Result<spec::pins::Pins, Failure> {
    Ok(spec::pins::Pins::parse(PINS.0, PINS.1)?)
}

/// Reads a VM description; relative paths of the image and of volumes start from the description's directory.
pub(crate) fn vm(path: &Path) -> Result<(Vm, PathBuf), Failure> {
    let text = read_text(path).map_err(|failure| {
        failure.with_hint(
            "name a VM description, such as examples/minimal.vm.toml, or an image directory where one will do",
        )
    })?;
    let name = path.display().to_string();
    let mut vm = Vm::parse(&name, &text).map_err(|error| match RecipeFile::parse(&name, &text) {
        Ok(_) => Failure::from(error)
            .with_hint("this is a recipe: build it, then name the VM description that uses the image"),
        Err(_) => Failure::from(error),
    })?;
    let beside = path.parent().unwrap_or(Path::new(""));
    for volume in &mut vm.host.volumes {
        // What is not UTF-8 cannot stand in a plan; the text comes from a TOML file, and the directory is then kept as it is.
        if let Some(joined) = beside.join(&volume.path).to_str() {
            volume.path = joined.to_owned();
        }
    }
    let image = beside.join(&vm.image);
    // As a path people recognise, without "..", where the directory is there.
    let image = image.canonicalize().unwrap_or(image);
    Ok((vm, image))
}

/// How many threads or jobs work: what was asked for, else one for each processor.
pub(crate) fn jobs(asked: Option<u16>) -> usize {
    asked.map_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get), usize::from)
}

/// Opens the cache.
pub(crate) fn open_store(arguments: &Arguments) -> Result<Store, Failure> {
    let directory = arguments.cache_dir.clone().or_else(Store::default_dir).ok_or_else(|| {
        Failure::new(
            Outcome::HostCannot,
            "there is no cache directory: neither BULLION_CACHE, XDG_CACHE_HOME nor HOME is set",
        )
        .with_hint("name one with --cache-dir DIR")
    })?;
    Ok(Store::open(&directory)?)
}
