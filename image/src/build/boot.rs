//! The kernel side of an image: `vmlinuz` and `initrd`.

use spec::lock::Use;
use spec::manifest::{Artifact, artifact};
use spec::recipe::ImageRecipe;
use store::Store;

use super::output::Output;
use super::{BuildError, BuildRequest, first_error, initrd_cache, inputs};
use crate::content::Content;
use crate::initrd;
use crate::kernel::{self, Kernel, Wanted};
use crate::sbom::Facts;

pub(super) struct Boot {
    pub(super) vmlinuz: Artifact,
    pub(super) initrd: Artifact,
    /// The same as bytes, for what is made of them.
    pub(super) kernel_bytes: Content,
    pub(super) initrd_bytes: Vec<u8>,
    pub(super) kernel_version: String,
}

/// The kernel with the modules that the recipe asks for, and what is to be said of its packages.
pub(super) fn kernel(
    request: &BuildRequest<'_>,
    image: &ImageRecipe,
    store: &Store,
) -> Result<(Kernel, Vec<Facts>), BuildError> {
    let packages = inputs::all(request.lock, Use::Kernel, store)?;
    let wanted = Wanted { boot: &image.boot_modules, device: &image.device_modules, root: &image.root_modules };
    let kernel = kernel::find(&packages.iter().collect::<Vec<_>>(), &wanted)?;
    Ok((kernel, packages.iter().map(Facts::of).collect()))
}

pub(super) fn make(
    request: &BuildRequest<'_>,
    kernel: &Kernel,
    store: &Store,
    output: &Output,
) -> Result<Boot, BuildError> {
    let (vmlinuz, initrd) = rayon::join(
        || output.write(artifact::KERNEL, kernel.vmlinuz.bytes()),
        || {
            let path = output.path(artifact::INITRD);
            let archive = initrd::archive(request.guest.bytes, kernel).map_err(BuildError::io("writing", &path))?;
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
    })
}
