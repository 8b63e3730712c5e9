//! An answer: the fw_cfg files that count, as QEMU gave them or as somebody captured them. What follows from them is decided
//! in `measure::fw_cfg`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use measure::fw_cfg::FwCfg;

use super::error::ImportError;
use super::placement::ConfigWrite;

/// The files without which firmware measures nothing, and the sizes that QEMU pads them to.
pub(super) const ACPI: [(&str, usize); 3] =
    [("etc/table-loader", 4096), ("etc/acpi/rsdp", 4), ("etc/acpi/tables", 4096)];

/// No file that counts is larger. The tables have 128 KiB, more with very many devices.
pub(super) const MAX_BYTES: u64 = 2 << 20;

/// What firmware is told about a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The version of the QEMU that told it; `None` where it was captured elsewhere.
    pub qemu_version: Option<[u64; 3]>,
    /// The files, padding included.
    pub fw_cfg: FwCfg,
    /// Where firmware had placed the PCI devices by then; empty where that was not captured.
    pub placement: Vec<ConfigWrite>,
}

impl Answer {
    /// The captured files in `directory`, each at its name or at `NAME/raw`, as Linux shows them in
    /// `/sys/firmware/qemu_fw_cfg/by_name`. The item `BootMenu` has no name there; a file of that name is taken for it.
    pub fn import(directory: &Path) -> Result<Self, ImportError> {
        let mut fw_cfg = FwCfg::default();
        for name in FwCfg::NAMES {
            let unit = ACPI.iter().find(|(acpi, _)| *acpi == name).map(|(_, unit)| *unit);
            match (read(directory, name), unit) {
                (Ok((path, bytes)), Some(unit)) if bytes.is_empty() || bytes.len() % unit != 0 => {
                    return Err(ImportError::Cut { path, size: bytes.len(), unit });
                }
                (Ok((_, bytes)), _) => fw_cfg.insert(name, bytes),
                (Err(ImportError::Unreadable { source, .. }), None) if source.kind() == io::ErrorKind::NotFound => {}
                (Err(error), _) => return Err(error),
            }
        }
        Ok(Self { qemu_version: None, fw_cfg, placement: Vec::new() })
    }
}

fn read(directory: &Path, name: &str) -> Result<(PathBuf, Vec<u8>), ImportError> {
    let path = directory.join(name);
    let path = if path.is_dir() { path.join("raw") } else { path };
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(ImportError::Unreadable { path, source }),
        Ok(_) if bytes.len() as u64 > MAX_BYTES => Err(ImportError::TooLarge { path, limit: MAX_BYTES }),
        Ok(_) => Ok((path, bytes)),
    }
}
