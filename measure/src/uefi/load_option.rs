//! Boot entries that firmware makes for its own programs (UEFI 2.11, 3.1.3, EFI_LOAD_OPTION; edk2
//! `MdeModulePkg/Library/UefiBootManagerLib`).

use alloc::vec::Vec;

use crate::guid::Guid;
use crate::tdx::profile::FirmwareApplication;

/// The name of the volume that OVMF's drivers are in.
const VOLUME: Guid = Guid::new(0x7cb8bdc9, 0xf8eb, 0x4f34, [0xaa, 0xea, 0x3e, 0xe4, 0xaf, 0x65, 0x16, 0xa1]);

/// The value of `Boot####`: attributes, description, and the device path Fv(VOLUME)/FvFile(FILE).
pub fn firmware_application(application: &FirmwareApplication) -> Vec<u8> {
    /// Media device path nodes for a firmware volume and a file in it, 20 bytes each, and the end node.
    const NODES: [[u8; 4]; 3] = [[4, 7, 20, 0], [4, 6, 20, 0], [0x7f, 0xff, 4, 0]];
    const PATH_LENGTH: u16 = 44;
    let [volume, file, end] = NODES;
    let mut option = Vec::new();
    option.extend(application.attributes.to_le_bytes());
    option.extend(PATH_LENGTH.to_le_bytes());
    option.extend(application.description.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    option.extend([&volume[..], &VOLUME.0, &file, &application.file.0, &end].concat());
    option
}
