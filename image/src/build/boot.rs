//! The kernel side of an image: `vmlinuz` and `initrd`.

use spec::lock::Use;
use spec::manifest::{Artifact, artifact};
use spec::recipe::ImageRecipe;
use store::Store;

use super::output::Output;
use super::{BuildError, BuildRequest, initrd_cache, inputs};
use crate::initrd;
use crate::kernel::{self, Kernel, Wanted};

pub(super) struct Boot {
    pub(super) vmlinuz: Artifact,
    pub(super) initrd: Artifact,
    pub(super) kernel_version: String,
}

/// The kernel, and the modules that the recipe asks for.
pub(super) fn kernel(request: &BuildRequest<'_>, image: &ImageRecipe, store: &Store) -> Result<Kernel, BuildError> {
    let packages = inputs::all(request.lock, Use::Kernel, store)?;
    let wanted = Wanted { boot: &image.boot_modules, device: &image.device_modules, root: &image.root_modules };
    Ok(kernel::find(&packages.iter().collect::<Vec<_>>(), &wanted)?)
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
            output.write(artifact::INITRD, &compressed)
        },
    );
    Ok(Boot { vmlinuz: vmlinuz?, initrd: initrd?, kernel_version: kernel.version.clone() })
}
