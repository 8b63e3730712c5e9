//! Finding the kernel and the modules that the guest loads.
//!
//! The kernel packages are read apart from the root file system: only `vmlinuz` and the modules named by the recipe, with
//! what they depend on, go into the image. Debian has two layouts: one package with `/boot/vmlinuz-VERSION` (6.12), and
//! `/usr/lib/modules/VERSION/vmlinuz` with the modules and `modules.builtin` in packages of their own (since 6.19).

mod compiled;
mod error;
pub(crate) mod modinfo;
mod order;

use std::collections::{BTreeMap, BTreeSet};

pub use compiled::find_compiled;
pub use error::KernelError;
pub use order::{DeviceModule, Plan, Wanted};

use spec::Sha256Digest;

use crate::content::Content;
use crate::deb::{EntryKind, Package};
use modinfo::Modinfo;

/// A kernel with the modules an image needs.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The version, as the modules directory names it.
    pub version: String,
    /// The bzImage.
    pub vmlinuz: Content,
    /// Which modules are loaded, and in which order.
    pub plan: Plan,
    /// The modules of the initrd by name, decompressed.
    pub modules: BTreeMap<String, Vec<u8>>,
    /// The modules of the root file system by name, decompressed.
    pub root_modules: BTreeMap<String, RootModule>,
    /// What the packages say about all modules, by file name: `modules.builtin`, `modules.builtin.modinfo`, `modules.order`.
    pub descriptions: BTreeMap<String, Content>,
}

/// A module of the root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootModule {
    /// Where it belongs in a root file system: `usr/lib/modules/VERSION/.../NAME.ko`, relative to the root.
    pub path: String,
    /// The ELF file.
    pub elf: Vec<u8>,
}

/// The files in which a kernel's build says which modules there are; Debian's packages bring them.
const DESCRIPTIONS: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// A module file of the packages.
#[derive(Clone, Debug)]
struct ModuleFile {
    path: String,
    content: Content,
}

/// What the kernel packages hold.
struct Shelf {
    version: String,
    vmlinuz: Content,
    files: BTreeMap<String, ModuleFile>,
    builtin: BTreeSet<String>,
    descriptions: BTreeMap<String, Content>,
}

/// Finds the kernel in `packages` and puts together the modules of a recipe: those of the packages, and those that were `compiled`
/// apart, by file name.
pub fn find<'a>(
    packages: &[&Package],
    compiled: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    wanted: &Wanted<'_>,
) -> Result<Kernel, KernelError> {
    let mut shelf = shelf(packages)?;
    compiled.into_iter().try_for_each(|(name, elf)| shelf.add(name, elf))?;
    planned(shelf, wanted)
}

impl Shelf {
    /// Adds a module that a component compiled.
    fn add(&mut self, name: &str, elf: &[u8]) -> Result<(), KernelError> {
        // Where depmod looks first; nothing of a package may be there.
        let path = format!("usr/lib/modules/{}/updates/{name}", self.version);
        let name = module_name(name).unwrap_or_else(|| name.to_owned());
        let file = ModuleFile { path: path.clone(), content: Content::from(elf.to_vec()) };
        // What does not fit this kernel is refused although no recipe may want it loaded.
        file.read(&name, &self.version)?;
        match self.files.insert(name.clone(), file) {
            Some(first) => Err(KernelError::Twice { name, first: first.path, second: path }),
            None => Ok(()),
        }
    }
}

impl Kernel {
    /// The word of the command line by which a kernel with `CONFIG_MODULE_ADMISSION` takes these modules and no others: the SHA-256 of each
    /// file, in ascending order. `None` where there are none: it takes none then.
    pub fn modules_word(&self) -> Option<String> {
        let of_root = self.root_modules.values().map(|module| &module.elf);
        let digests: BTreeSet<Sha256Digest> =
            self.modules.values().chain(of_root).map(|elf| Sha256Digest::of(elf)).collect();
        let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
        (!digests.is_empty()).then(|| format!("bullion.modules={}", digests.join(",")))
    }
}

/// The kernel of a shelf with the modules of a recipe.
fn planned(shelf: Shelf, wanted: &Wanted<'_>) -> Result<Kernel, KernelError> {
    let mut loader = order::Loader::new(&shelf);
    let plan = loader.plan(wanted)?;
    let modules = loader.modules(plan.boot.iter().chain(plan.device.iter().flat_map(|device| &device.order)));
    let root_modules = loader.modules(plan.root.iter()).into_iter().map(|(name, elf)| {
        let path = shelf.files.get(&name).map(|file| uncompressed(&file.path).to_owned()).unwrap_or_default();
        (name, RootModule { path, elf })
    });
    let root_modules = root_modules.collect();
    drop(loader);
    let Shelf { version, vmlinuz, descriptions, .. } = shelf;
    Ok(Kernel { version, vmlinuz, plan, modules, root_modules, descriptions })
}

/// A module's name as the kernel writes it: `-` and `_` are the same.
pub fn normalised(name: &str) -> String {
    name.replace('-', "_")
}

fn shelf(packages: &[&Package]) -> Result<Shelf, KernelError> {
    let (version, vmlinuz) = vmlinuz(packages)?;
    let directory = format!("usr/lib/modules/{version}/");
    let mut files = BTreeMap::new();
    let mut builtin = BTreeSet::new();
    let mut descriptions = BTreeMap::new();
    for (path, content) in packages.iter().flat_map(|package| regular_files(package)) {
        // Packages from before the merge of /usr have /lib/modules.
        let path = path.strip_prefix("usr/").map_or_else(|| format!("usr/{path}"), |_| path.to_owned());
        let Some(rest) = path.strip_prefix(&directory) else {
            continue;
        };
        if DESCRIPTIONS.contains(&rest) {
            if rest == "modules.builtin" {
                let text = String::from_utf8_lossy(content.bytes());
                builtin.extend(text.lines().filter_map(module_name));
            }
            descriptions.insert(rest.to_owned(), content.clone());
        } else if let Some(name) = module_name(rest) {
            let file = ModuleFile { path: path.clone(), content: content.clone() };
            if let Some(first) = files.insert(name.clone(), file) {
                return Err(KernelError::Twice { name, first: first.path, second: path });
            }
        }
    }
    Ok(Shelf { version, vmlinuz, files, builtin, descriptions })
}

/// The one kernel in `packages`, with its version.
fn vmlinuz(packages: &[&Package]) -> Result<(String, Content), KernelError> {
    let mut found: Vec<(String, Content)> = Vec::new();
    for (path, content) in packages.iter().flat_map(|package| regular_files(package)) {
        let version = path.strip_prefix("boot/vmlinuz-").or_else(|| {
            let path = path.strip_prefix("usr/").unwrap_or(path);
            path.strip_prefix("lib/modules/")?.strip_suffix("/vmlinuz")
        });
        if let Some(version) = version.filter(|version| !version.contains('/')) {
            found.push((version.to_owned(), content.clone()));
        }
    }
    let names = || packages.iter().map(|package| package.name.clone()).collect();
    match <[_; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(found) if found.is_empty() => Err(KernelError::NoKernel { packages: names() }),
        Err(found) => {
            Err(KernelError::SeveralKernels { versions: found.into_iter().map(|(version, _)| version).collect() })
        }
    }
}

fn regular_files(package: &Package) -> impl Iterator<Item = (&str, &Content)> {
    package.entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::File(content) => Some((entry.path.as_str(), content)),
        _ => None,
    })
}

/// `kernel/fs/erofs/erofs.ko.xz` to `erofs`.
pub(crate) fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|ending| file.strip_suffix(ending))?;
    Some(normalised(stem))
}

/// `kernel/fs/erofs/erofs.ko.xz` to `kernel/fs/erofs/erofs.ko`.
pub(crate) fn uncompressed(path: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|ending| path.strip_suffix(ending)).unwrap_or(path)
}

/// The ELF file of a module that is kept at `path`, whose ending says how it is compressed. The error is the reason.
pub(crate) fn decompressed(path: &str, packed: &[u8]) -> Result<Vec<u8>, String> {
    /// A module is at most this large; Debian's largest is below 10 MiB.
    const MAX_BYTES: u64 = 256 << 20;
    let decoded = match path.rsplit_once(".ko").map(|(_, ending)| ending) {
        Some(".xz") => crate::deb::decode_xz(packed, MAX_BYTES),
        Some(".zst") => crate::deb::decode_zstd(packed, MAX_BYTES),
        Some(".gz") => crate::deb::decode_gzip(packed, MAX_BYTES),
        _ => Ok(Some(packed.to_vec())),
    };
    decoded.map_err(|error| error.to_string())?.ok_or_else(|| format!("it unpacks to more than {MAX_BYTES} bytes"))
}

impl ModuleFile {
    /// The ELF file and what its `.modinfo` says, checked against the kernel.
    fn read(&self, name: &str, version: &str) -> Result<(Vec<u8>, Modinfo), KernelError> {
        let damaged = |reason: String| KernelError::Module { path: self.path.clone(), reason };
        let elf = decompressed(&self.path, self.content.bytes()).map_err(damaged)?;
        let info = modinfo::read(&elf).map_err(|reason| damaged(reason.to_owned()))?;
        if normalised(&info.name) != name {
            return Err(damaged(format!("it calls itself \"{}\"", info.name)));
        }
        // vermagic is the version, a space, and flags that are the same for all modules of one kernel.
        match info.vermagic.split(' ').next() {
            Some(found) if found == version => Ok((elf, info)),
            found => Err(KernelError::OtherKernel {
                path: self.path.clone(),
                expected: version.to_owned(),
                found: found.unwrap_or_default().to_owned(),
            }),
        }
    }
}
