//! Unified kernel images: kernel, initrd and command line as sections of one PE file around systemd's EFI stub.
//!
//! The file is, to the byte, the one that `ukify build` of systemd 257 makes of the same inputs: the same sections in the
//! same order (UAPI Unified Kernel Image, and `make_uki` in systemd's `src/ukify/ukify.py`), the same headers, the same merged
//! SBAT. It is not signed; its Authenticode digest is `measure::authenticode`'s business.

mod pe;
mod sbat;

use pe::{Kind, Pe};

/// What a unified kernel image is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The EFI stub, such as systemd's `linuxx64.efi.stub`: 64-bit PE, unsigned.
    pub stub: &'a [u8],
    /// `os-release` of the root file system; without it there is no `.osrel`.
    pub os_release: Option<&'a [u8]>,
    /// The kernel command line, without a trailing newline.
    pub command_line: &'a str,
    /// The kernel's version, as `uname -r` says it.
    pub kernel_version: &'a str,
    /// The kernel: a bzImage with an EFI stub of its own, which makes it a PE file.
    pub kernel: &'a [u8],
    /// The initial RAM disk.
    pub initrd: &'a [u8],
}

/// Parts that cannot be a unified kernel image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    /// The stub is not one that sections can be added to.
    #[error("the EFI stub cannot be used: {0}")]
    Stub(&'static str),
    /// The kernel cannot be started by firmware.
    #[error("the kernel cannot be started by an EFI stub: {0}")]
    Kernel(&'static str),
    /// The stub's headers have no room for another section.
    #[error("the headers of the EFI stub have no room for the section {0}")]
    NoRoom(&'static str),
    /// The merged SBAT does not fit into the stub's section.
    #[error("the merged .sbat has {found} bytes, the EFI stub has room for {room}")]
    Sbat {
        /// The merged section's size.
        found: usize,
        /// The room.
        room: usize,
    },
    /// The sections do not fit below 4 GiB, where PE can address them.
    #[error("the unified kernel image would be larger than 4 GiB")]
    TooLarge,
}

impl spec::Diagnostic for UkiError {
    fn outcome(&self) -> spec::Outcome {
        spec::Outcome::Usage
    }

    fn hint(&self) -> Option<String> {
        matches!(self, Self::Stub(_) | Self::NoRoom(_))
            .then(|| "name another stub in the recipe's [uki], such as systemd's linuxx64.efi.stub".to_owned())
    }
}

/// Makes the unified kernel image of `parts`.
pub fn build(parts: &Parts<'_>) -> Result<Vec<u8>, UkiError> {
    let kernel = Pe::parse(parts.kernel).map_err(UkiError::Kernel)?;
    let sbat = sbat::merge([parts.stub, parts.kernel]);
    let mut uki = pe::Writer::new(parts.stub)?;
    let command_line = parts.command_line.as_bytes();
    let sections = [
        (".osrel", parts.os_release.unwrap_or_default(), Kind::Data),
        (".cmdline", command_line, Kind::Data),
        (".uname", parts.kernel_version.as_bytes(), Kind::Data),
        // Old kernels are entered inside the image, where they must be executable.
        (".linux", parts.kernel, Kind::Code),
        (".initrd", parts.initrd, Kind::Data),
    ];
    uki.reserve(sections.iter().map(|(_, content, _)| content.len()).sum());
    for (name, content, kind) in sections.into_iter().filter(|(_, content, _)| !content.is_empty()) {
        uki.add(name, content, kind)?;
    }
    uki.replace_or_add(sbat::SECTION, sbat.as_bytes())?;
    if !kernel.is_nx_compatible() {
        uki.clear_nx_compatible();
    }
    uki.finish()
}
