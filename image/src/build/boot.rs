//! The kernel side of an image: `vmlinuz` and `initrd`.

use spec::manifest::{Artifact, artifact};
use spec::recipe::ImageRecipe;
use spec::recipe::kernel_output::is_module;
use store::Store;

use super::output::Output;
use super::{BuildError, BuildRequest, first_error, initrd_cache};
use crate::content::Content;
use crate::deb::Package;
use crate::initrd;
use crate::kernel::{self, Kernel, Wanted};
use crate::tree::initrd_files;

pub(super) struct Boot {
    pub(super) vmlinuz: Artifact,
    pub(super) initrd: Artifact,
    /// The same as bytes, for what is made of them.
    pub(super) kernel_bytes: Content,
    pub(super) initrd_bytes: Vec<u8>,
    pub(super) kernel_version: String,
    /// The word of the command line by which a compiled kernel admits its modules, where it has some.
    pub(super) modules_word: Option<String>,
}

/// The kernel that a component compiled, or that of these packages, with the modules that the recipe asks for.
pub(super) fn kernel(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    packages: Vec<Package>,
) -> Result<Kernel, BuildError> {
    let wanted = Wanted { boot: &image.boot_modules, device: &image.device_modules, root: &image.root_modules };
    if let Some(compiled) = &request.kernel {
        return Ok(kernel::find_compiled(compiled.outputs, &wanted)?);
    }
    let parts = request.parts.iter().filter(|part| image.module_components.contains(&part.recipe));
    let files = parts.flat_map(|part| &part.files).filter(|(name, _)| is_module(name));
    let compiled = files.map(|(name, elf)| (name.as_str(), elf.bytes()));
    Ok(kernel::find(&packages.iter().collect::<Vec<_>>(), compiled, &wanted)?)
}

pub(super) fn make(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    kernel: &Kernel,
    store: &Store,
    output: &Output,
) -> Result<Boot, BuildError> {
    let files = initrd_files(&image.initrd_files, request.recipe_dir)?;
    let (vmlinuz, initrd) = rayon::join(
        || output.write(artifact::KERNEL, kernel.vmlinuz.bytes()),
        || {
            let path = output.path(artifact::INITRD);
            let archive =
                initrd::archive(request.guest.bytes, kernel, &files).map_err(BuildError::io("writing", &path))?;
            let compressed = initrd_cache::compress(&archive, store).map_err(BuildError::io("writing", &path))?;
            Ok((output.write(artifact::INITRD, &compressed)?, compressed))
        },
    );
    let (vmlinuz, (initrd, initrd_bytes)) = first_error(vmlinuz, initrd)?;
    Ok(Boot {
        vmlinuz,
        initrd,
        kernel_bytes: kernel.vmlinuz.clone(),
        initrd_bytes,
        kernel_version: kernel.version.clone(),
        modules_word: request.kernel.and_then(|_| kernel.modules_word()),
    })
}
