//! `build`: locked inputs, a recipe and a guest binary become an image directory.
//!
//! This file says what is made and in which order; the kernel side and the root file system side run at the same time.
//! The result waits in a staging directory until the caller has added the reference values and commits it.

mod boot;
mod documents;
mod driver;
mod error;
mod guest_binary;
mod hardened;
mod initrd_cache;
mod inputs;
mod output;
mod parts;
mod repacked;
mod root;
mod staging;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use measure::uefi::VariableStore;
use spec::Sha256Digest;
use spec::component::Component;
use spec::lock::{Lock, Package, Standing, Use};
use spec::manifest::{self, Artifact, Class, GuestBinary, Manifest, RELEASE_WORD, ReferenceValues, artifact};
use spec::recipe::{Derivation, DiskRecipe, FirmwareSource, GUEST_OUTPUT, ImageRecipe, Kind, Recipe, UkiRecipe};
use store::Store;

use crate::content::Content;
use crate::disk::{Disk, Parts};
use crate::sbom::Facts;
use crate::scripts;
use crate::uki;

pub use driver::DriverError;
pub use error::BuildError;
pub use hardened::CompiledKernel;
pub(crate) use inputs::read as read_locked;
pub(crate) use output::Output;
pub use parts::CompiledPart;
pub(crate) use root::FIRST as FIRST_PACKAGE;
pub(crate) use staging::Staging;

/// The name of the copy of the lock in an image directory.
pub const LOCK_FILE: &str = "recipe.lock";

/// The longest kernel command line: COMMAND_LINE_SIZE of arch/x86/include/asm/setup.h, less the ending zero.
pub const MAX_COMMAND_LINE: usize = 2047;

/// What is built.
#[derive(Clone, Copy, Debug)]
pub struct BuildRequest<'a> {
    /// The flattened recipe, of kind `image`.
    pub recipe: &'a Recipe,
    /// The directory of the recipe file, for `source` files.
    pub recipe_dir: &'a Path,
    /// The lock.
    pub lock: &'a Lock,
    /// The lock as it was read.
    pub lock_text: &'a str,
    /// The guest binary.
    pub guest: Guest<'a>,
    /// The kernel that the recipe's component compiled; `None` for that of the locked package.
    pub kernel: Option<CompiledKernel<'a>>,
    /// What components made of the image beside guest and kernel: modules of the locked package's kernel, files of the root file system.
    pub parts: &'a [CompiledPart],
    /// The image directory to make. Its parent directory is made too where it is not there.
    pub output: &'a Path,
    /// How many threads work.
    pub jobs: usize,
    /// Whether an image directory that is there already is replaced.
    pub replace: bool,
    /// Whether packages are taken as earlier builds kept them in the cache, and kept for later ones. What the cache says of
    /// them is believed then: not for images of class release.
    pub believe_cache: bool,
}

/// The guest binary: given by the caller, who knows where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// A static ELF program for x86-64 of at most 6 000 000 bytes, the first process of the guest.
    pub bytes: &'a [u8],
    /// The component that made it; `None` for one that was compiled on this machine, which nothing locks.
    pub component: Option<&'a Component>,
}

/// A finished image that has no name yet. Dropped before `commit`, it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    /// The manifest, without reference values. What the caller changes here is what `commit` writes.
    pub manifest: Manifest,
    /// Why the image is not of class release; empty for one that is.
    pub open_origins: Vec<String>,
    staging: Staging,
}

/// Why an image cannot be of class release, as far as its lock tells: what of it has no locked origin that somebody stands for.
/// `guest` is the standing of the lock of the component that made the guest binary, `None` where none did; `kernel` that of the
/// kernel's, where a component made it, and `parts` those of other components, with what the recipe calls them. A build also looks into the
/// packages, for scripts that the lock does not have.
pub fn open_origins<'a>(
    lock: &Lock,
    guest: Option<Standing>,
    kernel: Option<Standing>,
    parts: impl Iterator<Item = (&'a str, Standing)>,
) -> Vec<String> {
    let mut open = Vec::new();
    match guest {
        None => open.push("the guest binary has no locked origin".to_owned()),
        Some(Standing::Unpublished) => open.push("the guest's lock is unpublished".to_owned()),
        Some(Standing::Published) => {}
    }
    if kernel == Some(Standing::Unpublished) {
        open.push("the kernel's lock is unpublished".to_owned());
    }
    let unpublished = parts.filter(|(_, standing)| *standing == Standing::Unpublished);
    open.extend(unpublished.map(|(path, _)| format!("the lock of {path} is unpublished")));
    if lock.standing == Standing::Unpublished {
        open.push("the image's lock is unpublished".to_owned());
    }
    open.extend(scripts::unanswered(lock).into_iter().map(|script| format!("nobody has answered the {script}")));
    open
}

/// Builds an image. It appears under its name when the result is committed.
pub fn build(request: &BuildRequest<'_>, store: &Store) -> Result<Staged, BuildError> {
    let image = check(request)?;
    let staging = Staging::begin(request.output, request.replace)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(request.jobs.max(1))
        .build()
        .map_err(|error| BuildError::Threads(error.to_string()))?;
    let output = Output::new(staging.directory());
    let (boot, (root, firmware), mut facts, unrecorded) = pool.install(|| {
        let [of_kernel, packages] = match request.kernel {
            None => inputs::all(request, [Use::Kernel, Use::Tree], store)?,
            Some(_) => inputs::all(request, [Use::Tree], store).map(|[packages]| [Vec::new(), packages])?,
        };
        let facts: Vec<Facts> = of_kernel.iter().chain(&packages).map(Facts::of).collect();
        let kernel = boot::kernel(request, image, of_kernel)?;
        let packages = root::in_order(packages);
        let (boot, root) = rayon::join(
            || boot::make(request, image, &kernel, store, &output),
            || {
                let root = root::make(request, image, &packages, &kernel, store, &output)?;
                Ok((root, firmware(request, image, store, &output)?))
            },
        );
        let (boot, root) = first_error(boot, root)?;
        let unrecorded = scripts::unrecorded(request.lock, request.recipe, &packages);
        Ok::<_, BuildError>((boot, root, facts, unrecorded))
    })?;
    let standing = |component: &Component| component.standing;
    let kernel_component = request.kernel.map(|kernel| kernel.component);
    let parts = request.parts.iter().map(|part| (part.recipe.as_str(), part.component.standing));
    let (guest, kernel) = (request.guest.component.map(standing), kernel_component.map(standing));
    let mut open = open_origins(request.lock, guest, kernel, parts);
    open.extend(kernel_origins(request));
    open.extend(root.shell.as_ref().map(|shell| format!("it has a shell on its serial line: {shell}")));
    open.extend(unrecorded.into_iter().map(|script| format!("the lock has no answer to the {script}")));
    let class = if open.is_empty() { Class::Release } else { Class::Dev };
    let command_line = command_line(request, image, boot.modules_word.clone(), &root.verity, class)?;
    let mut artifacts = BTreeMap::from([
        (artifact::KERNEL.to_owned(), boot.vmlinuz.clone()),
        (artifact::INITRD.to_owned(), boot.initrd.clone()),
        (artifact::ROOTFS.to_owned(), root.artifact.clone()),
        (artifact::COMMAND_LINE.to_owned(), output.write(artifact::COMMAND_LINE, command_line.as_bytes())?),
    ]);
    for (name, file, of) in firmware {
        artifacts.insert(name, file);
        facts.push(of);
    }
    if let Some(recipe) = &image.uki {
        let (bytes, of) = uki(request, recipe, store, &boot, root.os_release.as_ref(), &command_line)?;
        facts.push(of);
        artifacts.insert(artifact::UKI.to_owned(), output.write(artifact::UKI, &bytes)?);
        if let Some(sizes) = &image.disk {
            artifacts.insert(artifact::DISK.to_owned(), disk(sizes, &bytes, &root, &output)?);
        }
    }
    let mut documents =
        BTreeMap::from([(LOCK_FILE.to_owned(), output.write(LOCK_FILE, request.lock_text.as_bytes())?)]);
    if let Some(kernel) = &request.kernel {
        documents.extend(hardened::documents(kernel, &output)?);
    }
    let mut manifest = Manifest {
        schema: 1,
        name: request.recipe.name.clone(),
        class,
        standing: request.lock.standing,
        format_epoch: crate::FORMAT_EPOCH,
        artifacts,
        documents,
        verity: root.verity,
        kernel_version: boot.kernel_version,
        command_line,
        recipe: request.recipe.clone(),
        lock_sha256: Sha256Digest::of(request.lock_text.as_bytes()),
        inputs: used(request),
        guest: GuestBinary {
            sha256: Sha256Digest::of(request.guest.bytes),
            size: request.guest.bytes.len() as u64,
            origin: request.guest.component.map_or("host", |_| manifest::GUEST_FROM_COMPONENT).to_owned(),
        },
        components: (request.guest.component.into_iter().chain(kernel_component))
            .chain(request.parts.iter().map(|part| &part.component))
            .cloned()
            .collect(),
        acpi: request.kernel.and_then(|kernel| kernel.acpi).cloned(),
        references: ReferenceValues::default(),
    };
    documents::add(&mut manifest, request.lock, facts, &output)?;
    Ok(Staged { manifest, open_origins: open, staging })
}

impl Staged {
    /// The directory that the artifacts are in until `commit`.
    pub fn directory(&self) -> &Path {
        self.staging.directory()
    }

    /// Where the artifact called `name` is until `commit`.
    pub fn artifact_path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Writes the manifest and gives the image its name.
    pub fn commit(self) -> Result<Manifest, BuildError> {
        let bytes = self.manifest.to_bytes().map_err(BuildError::Manifest)?;
        // What readers refuse is not written.
        Manifest::parse(manifest::FILE_NAME, &bytes).map_err(BuildError::ManifestContent)?;
        Output::new(self.staging.directory()).write(manifest::FILE_NAME, &bytes)?;
        self.staging.commit()?;
        Ok(self.manifest)
    }
}

fn check<'a>(request: &BuildRequest<'a>) -> Result<&'a ImageRecipe, BuildError> {
    let recipe = request.recipe;
    let image = match (recipe.kind, &recipe.image) {
        (Kind::Image, Some(image)) => image,
        _ => return Err(BuildError::NotAnImage { recipe: recipe.name.clone(), kind: recipe.kind }),
    };
    let expected = recipe.lock_digest();
    if request.lock.recipe_sha256 != expected {
        let (recipe, found) = (recipe.name.clone(), request.lock.recipe_sha256);
        return Err(BuildError::OtherRecipe { recipe, expected, found });
    }
    guest_binary::check(request.guest.bytes)?;
    if let Some(component) = request.guest.component {
        let made = component.outputs.get(GUEST_OUTPUT).map(|output| output.sha256);
        let given = Sha256Digest::of(request.guest.bytes);
        if made != Some(given) {
            return Err(BuildError::OtherGuest { component: component.inputs.name.clone(), given });
        }
    }
    request.kernel.as_ref().map_or(Ok(()), hardened::check)?;
    Ok(image)
}

/// The locked packages that something of the image is made of: those of a kernel that it does not have are none.
fn used(request: &BuildRequest<'_>) -> Vec<Package> {
    let is_used = |package: &&Package| request.kernel.is_none() || package.uses != [Use::Kernel];
    request.lock.package.iter().filter(is_used).cloned().collect()
}

/// The error of the left side if there is one, so that the same faults give the same message.
fn first_error<A, B>(a: Result<A, BuildError>, b: Result<B, BuildError>) -> Result<(A, B), BuildError> {
    Ok((a?, b?))
}

/// What of the kernel keeps an image from being of class release.
fn kernel_origins(request: &BuildRequest<'_>) -> Option<String> {
    match request.kernel {
        None => Some("the kernel is the distribution's, and no component's".to_owned()),
        Some(kernel) => kernel.acpi.is_none().then(|| {
            "its kernel takes whatever ACPI tables the host makes: the recipe has no [[kernel.admit]]".to_owned()
        }),
    }
}

fn command_line(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    modules_word: Option<String>,
    verity: &manifest::Verity,
    class: Class,
) -> Result<String, BuildError> {
    let mut words = image.command_line.clone();
    words.extend(request.kernel.map(|kernel| kernel.admission()));
    words.extend(modules_word);
    words.push(format!("bullion.root={}", verity.root_hash));
    words.push(format!("bullion.salt={}", verity.salt));
    words.push(format!("bullion.blocks={}", verity.data_blocks));
    // A guest that does not find it is of class dev, and goes on writing on the host's console.
    if class == Class::Release {
        words.push(RELEASE_WORD.to_owned());
    }
    let line = words.join(" ");
    if line.len() > MAX_COMMAND_LINE {
        return Err(BuildError::CommandLine { length: line.len() });
    }
    Ok(line)
}

/// The unified kernel image: what the other artifacts of the kernel side are, around the stub that the recipe names.
fn uki(
    request: &BuildRequest<'_>,
    recipe: &UkiRecipe,
    store: &Store,
    boot: &boot::Boot,
    os_release: Option<&Content>,
    command_line: &str,
) -> Result<(Vec<u8>, Facts), BuildError> {
    let package = inputs::one(request, Use::Stub, &recipe.package.name, store)?;
    let parts = uki::Parts {
        stub: inputs::file(&package, &recipe.path)?.bytes(),
        os_release: os_release.map(Content::bytes),
        command_line,
        kernel_version: &boot.kernel_version,
        kernel: boot.kernel_bytes.bytes(),
        initrd: &boot.initrd_bytes,
    };
    Ok((uki::build(&parts)?, Facts::of(&package)))
}

/// The disk: the unified kernel image and the root file system as it was written.
fn disk(sizes: &DiskRecipe, uki: &[u8], root: &root::Root, output: &Output) -> Result<Artifact, BuildError> {
    let (source, path) = (output.path(artifact::ROOTFS), output.path(artifact::DISK));
    let rootfs = std::fs::File::open(&source).map_err(BuildError::io("reading", &source))?;
    let parts = Parts { uki, rootfs: &rootfs, rootfs_size: root.artifact.size, verity: &root.verity };
    let disk = Disk::plan(parts, sizes)?;
    let mut file = output.create(artifact::DISK)?;
    disk.write_to(&mut file).map_err(BuildError::io("writing", &path))?;
    file.finish()
}

/// Writes the firmware images; with what is to be said of their packages.
fn firmware(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    store: &Store,
    output: &Output,
) -> Result<Vec<(String, Artifact, Facts)>, BuildError> {
    let read = |name: &str| inputs::one(request, Use::Firmware, name, store);
    let images = derived_firmware(image, read)?.into_iter();
    images.map(|(name, bytes, facts)| Ok((name.to_owned(), output.write(name, &bytes)?, facts))).collect()
}

/// The firmware images of a recipe, by the names of their artifacts.
pub fn firmware_images(
    image: &ImageRecipe,
    lock: &Lock,
    store: &Store,
) -> Result<BTreeMap<&'static str, Vec<u8>>, BuildError> {
    let read = |name: &str| {
        let missing = || BuildError::NotLocked { package: name.to_owned(), purpose: "firmware" };
        inputs::read(lock.packages_for(Use::Firmware).find(|package| package.name == name).ok_or_else(missing)?, store)
    };
    Ok(derived_firmware(image, read)?.into_iter().map(|(name, bytes, _)| (name, bytes)).collect())
}

/// A firmware image: its artifact's name, its bytes, and what is to be said of its package.
type FirmwareImage = (&'static str, Vec<u8>, Facts);

/// Takes the firmware images out of their packages, and makes of them what the recipe says.
fn derived_firmware(
    image: &ImageRecipe,
    read: impl Fn(&str) -> Result<crate::deb::Package, BuildError>,
) -> Result<Vec<FirmwareImage>, BuildError> {
    let sources = [(artifact::FIRMWARE_SNP, &image.firmware.snp), (artifact::FIRMWARE_TDX, &image.firmware.tdx)];
    let wanted: Vec<_> = sources.into_iter().filter_map(|(name, source)| Some((name, source.as_ref()?))).collect();
    wanted
        .into_iter()
        .map(|(name, source)| {
            let package = read(&source.package.name)?;
            let content = inputs::file(&package, &source.path)?;
            let derived = source.derive.map(|how| derive(how, source, content.bytes())).transpose()?;
            Ok((name, derived.unwrap_or_else(|| content.bytes().to_vec()), Facts::of(&package)))
        })
        .collect()
}

fn derive(how: Derivation, from: &FirmwareSource, firmware: &[u8]) -> Result<Vec<u8>, BuildError> {
    let unusable = |source| BuildError::Derive { firmware: from.path.clone(), source };
    match how {
        Derivation::WithoutKeys => Ok(VariableStore::parse(firmware).map_err(unusable)?.without_keys()),
    }
}
