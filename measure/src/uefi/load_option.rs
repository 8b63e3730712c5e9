//! Boot entries that firmware makes by itself (UEFI 2.11, 3.1.3, EFI_LOAD_OPTION; edk2 `MdeModulePkg/Library/UefiBootManagerLib`):
//! of its own programs, and of the disks that it finds.

use alloc::vec::Vec;

use crate::guid::Guid;
use crate::tdx::profile::FirmwareApplication;

/// The name of the volume that OVMF's drivers are in.
const VOLUME: Guid = Guid::new(0x7cb8bdc9, 0xf8eb, 0x4f34, [0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1]);
/// What the boot manager puts behind entries that it may remove again (`mBmAutoCreateBootOptionGuid`).
const MADE_BY_FIRMWARE: Guid = Guid::new(0x8108ac4e, 0x9f11, 0x4d59, [0x85, 0x0e, 0xe2, 0x1a, 0x52, 0x2c, 0x59, 0xb2]);
const ACTIVE: u32 = 1;
const END_OF_PATH: [u8; 4] = [0x7f, 0xff, 4, 0];

/// The place of a function on the root bus, PCI segment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciSlot {
    /// The device, below 32.
    pub device: u8,
    /// The function, below 8.
    pub function: u8,
}

/// The value of `Boot####`: attributes, description, and the device path Fv(VOLUME)/FvFile(FILE).
pub fn firmware_application(application: &FirmwareApplication) -> Vec<u8> {
    /// Media device path nodes for a firmware volume and a file in it, 20 bytes each.
    const NODES: [[u8; 4]; 2] = [[4, 7, 20, 0], [4, 6, 20, 0]];
    const PATH_LENGTH: u16 = 44;
    let [volume, file] = NODES;
    let path = [&volume[..], &VOLUME.0, &file, &application.file.0, &END_OF_PATH].concat();
    option(application.attributes, PATH_LENGTH, application.description, &path)
}

/// The value of `Boot####` for a virtio disk: PciRoot(0x0)/Pci(DEVICE,FUNCTION). Firmware does not ask such a disk what it is called.
pub fn virtio_disk(slot: PciSlot) -> Vec<u8> {
    /// An ACPI device path node for PNP0A03, number 0; the start of a hardware device path node for a PCI function.
    const ROOT: [u8; 12] = [2, 1, 12, 0, 0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0];
    const PCI: [u8; 4] = [1, 1, 6, 0];
    const PATH_LENGTH: u16 = 22;
    let path = [&ROOT[..], &PCI, &[slot.function, slot.device], &END_OF_PATH].concat();
    let mut option = option(ACTIVE, PATH_LENGTH, "UEFI Misc Device", &path);
    option.extend(MADE_BY_FIRMWARE.0);
    option
}

fn option(attributes: u32, path_length: u16, description: &str, path: &[u8]) -> Vec<u8> {
    let mut option = Vec::new();
    option.extend(attributes.to_le_bytes());
    option.extend(path_length.to_le_bytes());
    option.extend(description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    option.extend(path);
    option
}
