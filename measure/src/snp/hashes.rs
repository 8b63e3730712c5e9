//! The hashes of kernel, initrd and command line, as QEMU writes them into guest memory with `kernel-hashes=on`
//! (QEMU `target/i386/sev.c`, `PaddedSevHashTable`; compared by edk2's `OvmfPkg/AmdSev/BlobVerifierLibSevHashes`).

use crate::digest::Digest256;
use crate::firmware::{PAGE_BYTES, Page};
use crate::guid::Guid;

const TABLE: Guid = Guid::new(0x9438d606, 0x4f22, 0x4cc9, [0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21]);
const COMMAND_LINE: Guid = Guid::new(0x97d02dd8, 0xbd20, 0x4c94, [0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a]);
const INITRD: Guid = Guid::new(0x44baf731, 0x3a2f, 0x4bd7, [0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d]);
const KERNEL: Guid = Guid::new(0x4de79437, 0xabd2, 0x427f, [0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b]);

/// The size of the table with its padding, and so of the area it needs.
pub const TABLE_SIZE: usize = 176;
/// Without the padding: the header and three entries.
const TABLE_LENGTH: u16 = 168;
/// GUID, u16 length, SHA-256.
const ENTRY_LENGTH: u16 = 50;

/// A command line that QEMU could not pass as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the command line has a NUL byte at offset {offset}: what follows would never reach the guest")]
pub struct CommandLineError {
    /// Where the NUL byte is.
    pub offset: usize,
}

/// What is booted, by hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHashes {
    /// SHA-256 of the kernel file, unmodified.
    pub kernel: Digest256,
    /// SHA-256 of the initrd file; of nothing where there is none.
    pub initrd: Digest256,
    /// SHA-256 of the command line and one NUL.
    pub command_line: Digest256,
}

impl KernelHashes {
    /// From the hashes of files that the caller has hashed, and the command line as it is given to QEMU: not trimmed.
    pub fn new(kernel: Digest256, initrd: Option<Digest256>, command_line: &[u8]) -> Result<Self, CommandLineError> {
        if let Some(offset) = command_line.iter().position(|byte| *byte == 0) {
            return Err(CommandLineError { offset });
        }
        Ok(Self {
            kernel,
            initrd: initrd.unwrap_or_else(|| Digest256::of(b"")),
            command_line: Digest256::of_parts(&[command_line, &[0]]),
        })
    }

    /// The table with its padding.
    pub fn table(&self) -> [u8; TABLE_SIZE] {
        let mut table = [0; TABLE_SIZE];
        let entry = ENTRY_LENGTH.to_le_bytes();
        let parts: [&[u8]; 11] = [
            &TABLE.0,
            &TABLE_LENGTH.to_le_bytes(),
            &COMMAND_LINE.0,
            &entry,
            &self.command_line.0,
            &INITRD.0,
            &entry,
            &self.initrd.0,
            &KERNEL.0,
            &entry,
            &self.kernel.0,
        ];
        table.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(slot, byte)| *slot = *byte);
        table
    }

    /// The page that holds the table at `offset` and is zero elsewhere; `None` where it does not fit.
    pub fn page(&self, offset: usize) -> Option<Page> {
        let mut page = [0; PAGE_BYTES];
        page.get_mut(offset..)?.get_mut(..TABLE_SIZE)?.copy_from_slice(&self.table());
        Some(page)
    }
}
