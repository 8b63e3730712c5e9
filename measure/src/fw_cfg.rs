//! What firmware reads from QEMU through fw_cfg and measures: ACPI and SMBIOS tables, and a few settings (edk2
//! `OvmfPkg/Library/AcpiPlatformLib/QemuFwCfgAcpi.c`, `OvmfPkg/Library/QemuFwCfgLib/QemuFwCfgCacheInit.c`).
//!
//! Who reads the files of a real QEMU is not decided here; [`FwCfg::NAMES`] says which ones count. A file that QEMU does not
//! offer is left out, which is not the same as an empty one.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::acpi::{AdmissionError, admission_digest};
use crate::digest::{Digest256, Digest384};
use crate::read::Reader;
use crate::tdx::platform::AcpiDigests;
use crate::uefi::load_option::PciSlot;

/// Content that cannot be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FwCfgError {
    /// A file that every QEMU offers was not given.
    #[error("fw_cfg has no {0}: it is needed to predict what firmware measures")]
    Missing(&'static str),
    /// The commands for placing the ACPI tables cannot be read.
    #[error("fw_cfg's etc/table-loader is damaged: it is not made of entries of 128 bytes with names of 56")]
    Loader,
    /// QEMU has firmware start something else than one virtio disk.
    #[error("QEMU's boot order (fw_cfg's bootorder) is \"{0}\": expected one virtio disk on the root bus")]
    BootOrder(String),
    /// The ACPI files are others than those that were seen: in which order they are measured is not known.
    #[error("fw_cfg's etc/table-loader loads {}: expected etc/acpi/rsdp, then etc/tpm/log if there is a TPM, then etc/acpi/tables", .0.join(", "))]
    Files(Vec<String>),
    /// Which tables come of them cannot be told.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
}

/// Files of fw_cfg by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FwCfg {
    files: BTreeMap<String, Vec<u8>>,
}

const LOADER: &str = "etc/table-loader";
const RSDP: &str = "etc/acpi/rsdp";
const TABLES: &str = "etc/acpi/tables";
const TPM_LOG: &str = "etc/tpm/log";
const BOOT_ORDER: &str = "bootorder";
const SMBIOS: &str = "etc/smbios/smbios-tables";

/// The settings in the order in which they are measured, with the only size that firmware takes them with; 0 is any.
const SETTINGS: [(&str, usize); 6] = [
    ("etc/extra-pci-roots", 8),
    (FwCfg::BOOT_MENU, 2),
    ("etc/boot-menu-wait", 2),
    ("etc/reserved-memory-end", 8),
    ("opt/ovmf/X-PciMmio64Mb", 0),
    (BOOT_ORDER, 0),
];

impl FwCfg {
    /// The one that is no file: the item with the selector [`FwCfg::BOOT_MENU_SELECTOR`], 2 bytes, which every QEMU has.
    pub const BOOT_MENU: &str = "BootMenu";
    /// FW_CFG_BOOT_MENU.
    pub const BOOT_MENU_SELECTOR: u16 = 0xe;
    /// Everything that counts, by name. All are files but [`FwCfg::BOOT_MENU`].
    pub const NAMES: [&str; 11] = [
        LOADER,
        RSDP,
        TABLES,
        TPM_LOG,
        SMBIOS,
        "etc/extra-pci-roots",
        Self::BOOT_MENU,
        "etc/boot-menu-wait",
        "etc/reserved-memory-end",
        "opt/ovmf/X-PciMmio64Mb",
        "bootorder",
    ];

    /// Adds a file as firmware would read it, padding included. Names that do not count are not kept.
    pub fn insert(&mut self, name: &str, content: Vec<u8>) {
        if Self::NAMES.contains(&name) {
            self.files.insert(name.to_string(), content);
        }
    }

    /// A file.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    fn need(&self, name: &'static str) -> Result<&[u8], FwCfgError> {
        self.get(name).ok_or(FwCfgError::Missing(name))
    }

    /// The place of the virtio disk that QEMU has firmware start; `None` where QEMU leaves the choice to firmware.
    pub fn boot_disk(&self) -> Result<Option<PciSlot>, FwCfgError> {
        let order = core::str::from_utf8(self.get(BOOT_ORDER).unwrap_or_default()).unwrap_or("?");
        match order.trim_end_matches('\0') {
            "" => Ok(None),
            order => open_firmware_disk(order).map(Some).ok_or_else(|| FwCfgError::BootOrder(order.to_string())),
        }
    }

    /// SMBIOS structures as QEMU makes them, without those that firmware adds.
    pub fn smbios_tables(&self) -> Result<&[u8], FwCfgError> {
        self.need(SMBIOS)
    }

    /// The ACPI files. Which there are, and in which order firmware reads them, is what `etc/table-loader` says; another order
    /// than the usual one is refused.
    pub fn acpi(&self) -> Result<AcpiDigests, FwCfgError> {
        let loader = self.need(LOADER)?;
        let files = loaded_files(loader).ok_or(FwCfgError::Loader)?;
        let tpm_log = match files.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [RSDP, TABLES] => None,
            [RSDP, TPM_LOG, TABLES] => Some(Digest384::of(self.need(TPM_LOG)?)),
            _ => return Err(FwCfgError::Files(files)),
        };
        let digests = AcpiDigests::of(loader, self.need(RSDP)?, self.need(TABLES)?);
        Ok(AcpiDigests { tpm_log, ..digests })
    }

    /// The digest of the ACPI tables that firmware makes of the ACPI files, as a kernel with admission computes it.
    pub fn admission(&self) -> Result<Digest256, FwCfgError> {
        Ok(admission_digest(self.need(LOADER)?, self.need(RSDP)?, self.need(TABLES)?)?)
    }

    /// The settings that TDX firmware measures when `Profile::measures_settings`: names and digests, in its order.
    pub fn settings(&self) -> Result<Vec<(&'static str, Digest384)>, FwCfgError> {
        self.need(Self::BOOT_MENU)?;
        let measured = |(name, size): (&'static str, usize)| {
            let content = self.get(name).filter(|content| !content.is_empty())?;
            (size == 0 || size == content.len()).then(|| (name, Digest384::of(content)))
        };
        Ok(SETTINGS.into_iter().filter_map(measured).collect())
    }
}

/// The files of QEMU_LOADER_ALLOCATE commands in their order (QEMU `hw/acpi/bios-linker-loader.c`).
fn loaded_files(loader: &[u8]) -> Option<Vec<String>> {
    const ALLOCATE: u32 = 1;
    let (entries, rest) = loader.as_chunks::<128>();
    let mut files = Vec::new();
    for entry in entries {
        let mut reader = Reader::new(entry);
        if reader.u32()? == ALLOCATE {
            let name = reader.array::<56>()?;
            let end = name.iter().position(|byte| *byte == 0)?;
            files.push(core::str::from_utf8(name.get(..end)?).ok()?.to_string());
        }
    }
    rest.is_empty().then_some(files)
}

/// The disk with this Open Firmware path, `/pci@i0cf8/scsi@DEVICE[,FUNCTION]/disk@0,0` in hex (QEMU `softmmu/qdev-fw.c`).
fn open_firmware_disk(path: &str) -> Option<PciSlot> {
    let place = path.strip_prefix("/pci@i0cf8/scsi@")?.strip_suffix("/disk@0,0")?;
    let (device, function) = place.split_once(',').unwrap_or((place, "0"));
    let number = |text, limit: u8| u8::from_str_radix(text, 16).ok().filter(|number| *number < limit);
    Some(PciSlot { device: number(device, 32)?, function: number(function, 8)? })
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn loader(files: &[&str]) -> Vec<u8> {
        let mut loader = vec![0; 4096];
        for (entry, name) in loader.chunks_mut(128).zip(files) {
            entry[0] = 1;
            entry[4..4 + name.len()].copy_from_slice(name.as_bytes());
        }
        loader
    }

    #[test]
    fn files_in_another_order_are_refused() {
        let mut fw_cfg = FwCfg::default();
        for name in FwCfg::NAMES {
            fw_cfg.insert(name, name.as_bytes().to_vec());
        }
        assert_eq!(fw_cfg.acpi(), Err(FwCfgError::Loader));
        fw_cfg.insert(LOADER, loader(&[RSDP, TABLES]));
        assert_eq!(fw_cfg.acpi().unwrap().tpm_log, None);
        fw_cfg.insert(LOADER, loader(&[RSDP, TPM_LOG, TABLES]));
        assert_eq!(fw_cfg.acpi().unwrap().tpm_log, Some(Digest384::of(TPM_LOG.as_bytes())));
        for files in [&[TABLES, RSDP][..], &[RSDP], &[], &[RSDP, TABLES, "etc/vmgenid_guid"]] {
            fw_cfg.insert(LOADER, loader(files));
            assert!(matches!(fw_cfg.acpi(), Err(FwCfgError::Files(_))), "{files:?}");
        }
    }

    #[test]
    fn settings_of_the_wrong_size_are_not_measured() {
        let mut fw_cfg = FwCfg::default();
        assert_eq!(fw_cfg.settings(), Err(FwCfgError::Missing("BootMenu")));
        fw_cfg.insert("bootorder", b"/rom@x\0".to_vec());
        fw_cfg.insert(FwCfg::BOOT_MENU, vec![0; 2]);
        fw_cfg.insert("etc/extra-pci-roots", vec![1; 4]);
        fw_cfg.insert("opt/ovmf/X-PciMmio64Mb", Vec::new());
        fw_cfg.insert("etc/e820", vec![0; 40]);
        let names: Vec<_> = fw_cfg.settings().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["BootMenu", "bootorder"]);
        assert_eq!(fw_cfg.get("etc/e820"), None);
    }
}

#[cfg(test)]
mod boot_order {
    use super::*;

    #[test]
    fn the_disk_that_qemu_has_firmware_start() {
        let of = |order: &[u8]| {
            let mut fw_cfg = FwCfg::default();
            fw_cfg.insert(BOOT_ORDER, order.to_vec());
            fw_cfg.boot_disk()
        };
        // As QEMU 11.1 writes it for `virtio-blk-pci,addr=0x12.1,bootindex=0`.
        assert_eq!(of(b"/pci@i0cf8/scsi@12,1/disk@0,0\0"), Ok(Some(PciSlot { device: 0x12, function: 1 })));
        assert_eq!(of(b"/pci@i0cf8/scsi@2/disk@0,0\0"), Ok(Some(PciSlot { device: 2, function: 0 })));
        assert_eq!((of(b""), FwCfg::default().boot_disk()), (Ok(None), Ok(None)));
        for other in [
            &b"/rom@genroms/linuxboot_dma.bin\0"[..],
            b"/pci@i0cf8/scsi@2/disk@0,0\n/pci@i0cf8/scsi@3/disk@0,0\0",
            b"/pci@i0cf8/scsi@20/disk@0,0\0",
            b"\xff",
        ] {
            assert!(of(other).is_err(), "{other:?}");
        }
    }
}
