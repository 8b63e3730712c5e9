//! The data archive: a tar file whose entries become `Entry` values that share the decoded bytes.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use tar::EntryType;

use super::error::DebError;
use super::path::{clean, clean_target};
use super::{Entry, EntryKind, pax};
use crate::content::Content;
use crate::tree::Xattrs;

/// More entries than any package has.
const MAX_ENTRIES: usize = 1 << 20;

pub(super) fn read(data: Vec<u8>) -> Result<Vec<Entry>, DebError> {
    let data = Arc::new(data);
    let mut entries: Vec<Entry> = Vec::new();
    // Paths seen so far; whether each is a regular file.
    let mut seen: BTreeMap<String, bool> = BTreeMap::new();
    let mut records = None;
    let mut archive = tar::Archive::new(data.as_slice());
    for entry in archive.entries().map_err(DebError::Tar)? {
        let mut entry = entry.map_err(DebError::Tar)?;
        let has_records = entry.pax_extensions().map_err(DebError::Tar)?.is_some();
        let xattrs = if has_records { xattrs(&data, &entry, &mut records)? } else { Xattrs::new() };
        let entry = Entry { xattrs, ..entry_of(&data, &entry, &seen)? };
        let is_file = matches!(entry.kind, EntryKind::File(_));
        if seen.insert(entry.path.clone(), is_file).is_some() {
            return Err(DebError::entry(entry.path.as_bytes(), "comes twice"));
        }
        if entries.len() == MAX_ENTRIES {
            return Err(DebError::entry(entry.path.as_bytes(), "is one too many"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry_of<R: Read>(
    data: &Arc<Vec<u8>>,
    entry: &tar::Entry<'_, R>,
    seen: &BTreeMap<String, bool>,
) -> Result<Entry, DebError> {
    let raw = entry.path_bytes();
    let path = clean(&raw)?;
    let refuse = |reason: &str| DebError::entry(&raw, reason);
    let header = entry.header();
    let kind = match header.entry_type() {
        EntryType::Directory => EntryKind::Directory,
        EntryType::Regular | EntryType::Continuous => {
            EntryKind::File(content(data, entry).ok_or_else(|| refuse("is larger than the archive"))?)
        }
        EntryType::Symlink => {
            let target = link_target(entry).ok_or_else(|| refuse("is a link without a target in UTF-8"))?;
            clean_target(&path, &target).ok_or_else(|| refuse("is a link that leads outside the tree"))?;
            EntryKind::Symlink(target)
        }
        EntryType::Link => {
            let target = clean(&entry.link_name_bytes().unwrap_or_default())?;
            if seen.get(&target) != Some(&true) {
                return Err(refuse("is a hard link to something that is not an earlier regular file"));
            }
            EntryKind::HardLink(target)
        }
        EntryType::Char | EntryType::Block => return Err(refuse("is a device node")),
        EntryType::Fifo => return Err(refuse("is a FIFO")),
        other => return Err(refuse(&format!("has the unknown type {:?}", char::from(other.as_byte())))),
    };
    if path.is_empty() && kind != EntryKind::Directory {
        return Err(refuse("stands for the root directory and is none"));
    }
    if !matches!(kind, EntryKind::File(_)) && entry.size() != 0 {
        return Err(refuse("has content and is no file"));
    }
    let number = |value: std::io::Result<u64>, what: &str| {
        value.ok().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| refuse(&format!("has no usable {what}")))
    };
    let mode = header.mode().ok().and_then(|mode| u16::try_from(mode & 0o7777).ok());
    Ok(Entry {
        mode: mode.ok_or_else(|| refuse("has no usable mode"))?,
        uid: number(header.uid(), "owner")?,
        gid: number(header.gid(), "group")?,
        xattrs: Xattrs::new(),
        path,
        kind,
    })
}

/// The extended attributes of an entry that has pax records; where all records are is looked up for the first one.
fn xattrs<R: Read>(
    data: &[u8],
    entry: &tar::Entry<'_, R>,
    records: &mut Option<pax::Records>,
) -> Result<Xattrs, DebError> {
    let known = match records {
        Some(known) => known,
        None => records.insert(pax::find(data)?),
    };
    let of_entry = known.get(&entry.raw_header_position()).and_then(|range| data.get(range.clone()));
    let path = entry.path_bytes();
    pax::xattrs(
        &path,
        of_entry.ok_or_else(|| DebError::entry(&path, "has pax records that are found in one of two ways"))?,
    )
}

/// The entry's bytes inside the decoded archive; `None` where they are not all there.
fn content<R: Read>(data: &Arc<Vec<u8>>, entry: &tar::Entry<'_, R>) -> Option<Content> {
    let start = usize::try_from(entry.raw_file_position()).ok()?;
    let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
    Content::slice(data, start..end)
}

fn link_target<R: Read>(entry: &tar::Entry<'_, R>) -> Option<String> {
    String::from_utf8(entry.link_name_bytes()?.into_owned()).ok()
}
