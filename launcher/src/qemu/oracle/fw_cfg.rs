//! The fw_cfg files that firmware may measure, as QEMU gave them or as somebody captured them (QEMU documentation, "QEMU
//! Firmware Configuration (fw_cfg) Device").

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use measure::tdx::platform::AcpiDigests;

use super::error::{ImportError, OracleError};

/// The commands by which firmware places the tables.
const LOADER: &str = "etc/table-loader";
/// The root pointer.
const RSDP: &str = "etc/acpi/rsdp";
/// The tables.
const TABLES: &str = "etc/acpi/tables";
/// Every q35 machine has them.
pub(super) const ACPI: [&str; 3] = [LOADER, RSDP, TABLES];
/// What firmware may measure besides, where a machine has it: boot order and menu, places of 64-bit BARs, SMBIOS, the area
/// for a TPM's log.
pub(super) const OPTIONAL: [&str; 9] = [
    "bootorder",
    "etc/boot-menu-wait",
    "etc/extra-pci-roots",
    "etc/reserved-memory-end",
    "etc/smbios/smbios-anchor",
    "etc/smbios/smbios-tables",
    "etc/system-states",
    "etc/tpm/log",
    "opt/ovmf/X-PciMmio64Mb",
];

/// No file of these is larger. The tables have 128 KiB, more with very many devices.
pub(super) const MAX_BYTES: u64 = 2 << 20;

/// fw_cfg files by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfg {
    /// The version of the QEMU that gave them; `None` where they were captured elsewhere.
    pub qemu_version: Option<[u64; 3]>,
    /// The item FW_CFG_BOOT_MENU, which has a number and no name; `None` where they were captured elsewhere.
    pub boot_menu: Option<u16>,
    /// The files that firmware may measure, padding included.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl FwCfg {
    /// The digests of the ACPI files.
    pub fn acpi(&self) -> Result<AcpiDigests, OracleError> {
        let file = |name| self.files.get(name).ok_or(OracleError::NoFile(name));
        Ok(AcpiDigests::of(file(LOADER)?, file(RSDP)?, file(TABLES)?))
    }

    /// What of it firmware measures.
    pub fn measured(&self) -> measure::fw_cfg::FwCfg {
        let mut measured = measure::fw_cfg::FwCfg::default();
        for (name, content) in &self.files {
            measured.insert(name, content.clone());
        }
        if let Some(boot_menu) = self.boot_menu {
            measured.insert(measure::fw_cfg::FwCfg::BOOT_MENU, boot_menu.to_le_bytes().to_vec());
        }
        measured
    }

    /// The captured files in `directory`, each at its name or at `NAME/raw`, as Linux shows them in
    /// `/sys/firmware/qemu_fw_cfg/by_name`.
    pub fn import(directory: &Path) -> Result<Self, ImportError> {
        let mut files = BTreeMap::new();
        for name in ACPI {
            let (path, bytes) = read(directory, name)?;
            let unit = if name == RSDP { 4 } else { 4096 };
            if bytes.is_empty() || bytes.len() % unit != 0 {
                return Err(ImportError::Cut { path, size: bytes.len(), unit });
            }
            files.insert(name.to_owned(), bytes);
        }
        for name in OPTIONAL {
            match read(directory, name) {
                Ok((_, bytes)) => drop(files.insert(name.to_owned(), bytes)),
                Err(ImportError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { qemu_version: None, boot_menu: None, files })
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
