//! What is kept of each run of pages that QEMU submits: where, of which kind, and what was in it.

use std::fs::File;
use std::io::Write as _;

use serde::Serialize;
use sha2::{Digest as _, Sha384};

use crate::config::config;
use crate::guest_memory::{PAGE_BYTES, PAGE_SIZE};
use crate::refusal::Refusal;
use crate::report::{as_number, as_optional_hex};
use crate::user_memory;

/// One accepted run of pages.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PageRun {
    /// Guest-physical address of the first page.
    #[serde(serialize_with = "as_number")]
    pub(crate) gpa: u64,
    /// Length in bytes.
    pub(crate) len: u64,
    /// The kind, as the vendor names it.
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    /// Whether the content is part of the launch measurement; address and kind always are.
    pub(crate) measured: bool,
    /// SHA-384 of the content; none where the command takes no content.
    #[serde(serialize_with = "as_optional_hex")]
    pub(crate) sha384: Option<[u8; 48]>,
}

/// Reads `count` pages from `address`, gives each to `visit`, and returns the hash of them all. The content is also written
/// to the page directory, where one is configured.
pub(crate) fn read_run(
    address: u64,
    count: u64,
    file_name: &str,
    mut visit: impl FnMut(&[u8]) -> Result<(), Refusal>,
) -> Result<[u8; 48], Refusal> {
    let mut dump = open_dump(file_name)?;
    let mut hasher = Sha384::new();
    let mut page = [0_u8; PAGE_BYTES];
    for index in 0..count {
        user_memory::read_bytes(address.saturating_add(index * PAGE_SIZE), &mut page)?;
        visit(&page)?;
        hasher.update(page);
        if let Some(file) = &mut dump {
            file.write_all(&page).map_err(|error| no_dump(file_name, &error))?;
        }
    }
    Ok(hasher.finalize().into())
}

/// Keeps a page that no QEMU buffer holds, such as a VMSA.
pub(crate) fn keep_page(file_name: &str, content: &[u8]) -> Result<(), Refusal> {
    match open_dump(file_name)? {
        Some(mut file) => file.write_all(content).map_err(|error| no_dump(file_name, &error)),
        None => Ok(()),
    }
}

fn open_dump(file_name: &str) -> Result<Option<File>, Refusal> {
    let Some(directory) = &config().pages else { return Ok(None) };
    File::create(directory.join(file_name)).map(Some).map_err(|error| no_dump(file_name, &error))
}

fn no_dump(file_name: &str, error: &std::io::Error) -> Refusal {
    Refusal::new(nix::errno::Errno::EIO, format!("cannot keep the pages of {file_name}: {error}"))
}
