//! The two formats spoken through qtest: fw_cfg's directory and DMA descriptor (QEMU `docs/specs/fw_cfg.rst`), and the lines
//! in which QEMU traces what firmware selects.

use std::collections::BTreeMap;

use super::error::OracleError;
use super::fw_cfg::MAX_BYTES;

/// FW_CFG_FILE_DIR.
pub(super) const DIRECTORY: u16 = 0x19;
/// One entry of the directory: size, key and two reserved bytes, big-endian, and a name of 56 bytes.
pub(super) const ENTRY_BYTES: u32 = 64;

/// A file's key and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: u16,
    pub(super) size: u32,
}

/// The directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directory(BTreeMap<String, Entry>);

impl Directory {
    /// Reads the entries that follow the number of entries.
    pub(super) fn parse(entries: &[u8]) -> Self {
        let entry = |bytes: &[u8]| {
            let (size, rest) = bytes.split_first_chunk::<4>()?;
            let (key, rest) = rest.split_first_chunk::<2>()?;
            let name = rest.get(2..)?.split(|byte| *byte == 0).next()?;
            let entry = Entry { key: u16::from_be_bytes(*key), size: u32::from_be_bytes(*size) };
            Some((String::from_utf8_lossy(name).into_owned(), entry))
        };
        Self(entries.chunks_exact(ENTRY_BYTES as usize).filter_map(entry).collect())
    }

    /// The file, unless it is larger than any that is asked for.
    pub(super) fn find(&self, name: &str) -> Option<Entry> {
        self.0.get(name).copied().filter(|entry| u64::from(entry.size) <= MAX_BYTES)
    }

    /// The key of a file that must be there.
    pub(super) fn key(&self, name: &'static str) -> Result<u16, OracleError> {
        self.find(name).map(|entry| entry.key).ok_or(OracleError::NoFile(name))
    }
}

/// Where descriptor and data are put in guest memory: the guest stands still, and never goes on afterwards.
pub(super) const DESCRIPTOR: u64 = 16 << 20;
/// The data follows.
pub(super) const DATA: u64 = DESCRIPTOR + 16;

/// The bytes of FWCfgDmaAccess that select `key` and read `size` bytes to `DATA`.
pub(super) fn dma_read(key: u16, size: u32) -> Vec<u8> {
    const READ_SELECTED: u32 = 1 << 1 | 1 << 3;
    let control = u32::from(key) << 16 | READ_SELECTED;
    [&control.to_be_bytes()[..], &size.to_be_bytes(), &DATA.to_be_bytes()].concat()
}

/// The key in a line of the trace event `fw_cfg_select`.
pub(super) fn selected(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("fw_cfg_select ")?;
    let (_, rest) = rest.split_once(" key 0x")?;
    u16::from_str_radix(rest.split(' ').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_of_the_trace() {
        let line = "fw_cfg_select 0x555595171490 key 0x0019 'file_dir', ret: 1";
        assert_eq!(selected(line), Some(0x19));
        assert_eq!(selected(&format!("4711@1732562187.5:{line}")), Some(0x19), "with time stamps");
        assert_eq!(selected("qemu: fw_cfg_select key 0x0019"), None);
    }

    /// The example of QEMU `docs/specs/fw_cfg.rst`: big-endian, select and read.
    #[test]
    fn a_descriptor() {
        assert_eq!(hex::encode(dma_read(0x2d, 0x1000)), "002d000a00001000".to_owned() + "0000000001000010");
    }

    proptest! {
        #[test]
        fn any_directory(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Directory::parse(&bytes);
        }

        #[test]
        fn any_line(line in ".{0,200}") {
            let _ = selected(&line);
        }
    }
}
