//! NVIDIA's driver is one thing in three parts that come from different places: modules from a component, libraries and firmware from packages or
//! from a component.
//! They refuse each other where they are not of one version, on the server, before the first program has seen a GPU. So the builder does.

use std::collections::BTreeMap;

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

use crate::kernel::{Kernel, RootModule, modinfo};
use crate::tree::{Kind, Tree};

/// How the modules of the driver are called; `nvidia` itself comes first.
const MODULES: &str = "nvidia";
/// Libraries whose file name ends in the driver's version. Others that NVIDIA makes have versions of their own.
const LIBRARIES: [&str; 4] = ["libcuda.so.", "libnvidia-ml.so.", "libnvidia-cfg.so.", "libnvidia-ptxjitcompiler.so."];
/// The driver asks for `nvidia/VERSION/gsp_*.bin` (open-gpu-kernel-modules 550.163.01, `nv-firmware.h`).
const FIRMWARE: &str = "usr/lib/firmware/nvidia/";
/// Where such a file says its version, with a zero byte at the end; the driver refuses one that says another, or none (`kernel_gsp.c`).
const FIRMWARE_VERSION: &str = ".fwversion";

/// Parts of NVIDIA's driver that do not fit each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// A module without what all have.
    #[error("the module {name} of NVIDIA's driver does not say its version")]
    NoVersion {
        /// The module.
        name: String,
    },
    /// Firmware that the driver would refuse.
    #[error("/{path} ({origin}) says no version of NVIDIA's driver in a section {FIRMWARE_VERSION}")]
    NotFirmware {
        /// Its path.
        path: String,
        /// Who brings it.
        origin: String,
    },
    /// Two versions.
    #[error("NVIDIA's driver is of two versions: {first} is of {first_version}, {other} of {other_version}")]
    TwoVersions {
        /// One part.
        first: String,
        /// Its version.
        first_version: String,
        /// Another.
        other: String,
        /// Its version.
        other_version: String,
    },
    /// The modules drive nothing without it.
    #[error("NVIDIA's driver {version} has no firmware: there is nothing in /{FIRMWARE}{version}")]
    NoFirmware {
        /// The version of the modules.
        version: String,
    },
}

/// Refuses modules of the driver beside libraries or firmware of another version. An image without its modules is not looked at.
pub(super) fn check(kernel: &Kernel, tree: &Tree) -> Result<(), DriverError> {
    let Some((first, version)) = modules(&kernel.root_modules)? else { return Ok(()) };
    let mut has_firmware = false;
    for (path, node) in tree.iter() {
        let Kind::File { content, .. } = &node.kind else { continue };
        let name = path.rsplit('/').next().unwrap_or(path);
        let of_library =
            LIBRARIES.iter().find_map(|library| name.strip_prefix(library)).filter(|rest| is_version(rest));
        let of_firmware = path.strip_prefix(FIRMWARE).and_then(|rest| rest.split_once('/')).map(|(version, _)| version);
        let of_firmware = of_firmware.filter(|found| is_version(found));
        let by_place = of_library.or(of_firmware).map(str::to_owned);
        // The directory may be the recipe's word, and the file of another driver.
        let by_content =
            match of_firmware.filter(|_| name.starts_with("gsp_") && !name.starts_with("gsp_log_")) {
                Some(_) => Some(firmware_version(content.bytes()).ok_or_else(|| DriverError::NotFirmware {
                    path: path.to_owned(),
                    origin: node.origin.to_string(),
                })?),
                None => None,
            };
        has_firmware |= by_content.as_deref() == Some(version.as_str());
        if let Some(found) = by_place.into_iter().chain(by_content).find(|found| *found != version) {
            let other = format!("/{path} ({})", node.origin);
            return Err(DriverError::TwoVersions { first, first_version: version, other, other_version: found });
        }
    }
    if has_firmware { Ok(()) } else { Err(DriverError::NoFirmware { version }) }
}

/// The first of the driver's modules, and the version that all of them say.
fn modules(all: &BTreeMap<String, RootModule>) -> Result<Option<(String, String)>, DriverError> {
    let mut first: Option<(String, String)> = None;
    for (name, module) in all.iter().filter(|(name, _)| name.starts_with(MODULES)) {
        let no_version = || DriverError::NoVersion { name: name.clone() };
        let version = modinfo::read(&module.elf).ok().and_then(|info| info.version).ok_or_else(no_version)?;
        let other = format!("the module {name}");
        match first {
            Some((first, first_version)) if first_version != version => {
                return Err(DriverError::TwoVersions { first, first_version, other, other_version: version });
            }
            Some(_) => {}
            None => first = Some((other, version)),
        }
    }
    Ok(first)
}

/// The version that firmware says it is of.
fn firmware_version(elf: &[u8]) -> Option<String> {
    let file: ElfFile64<'_> = ElfFile64::parse(elf).ok()?;
    let section = file.section_by_name(FIRMWARE_VERSION)?.data().ok()?;
    let text = std::str::from_utf8(section.strip_suffix(b"\0")?).ok()?;
    is_version(text).then(|| text.to_owned())
}

/// `550.163.01`, and not the `1` of a library's interface.
fn is_version(text: &str) -> bool {
    text.contains('.') && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}
