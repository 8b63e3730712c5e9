//! Answers in the cache: one file each, among the findings about this host that `bullion cache prune` knows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use measure::fw_cfg::FwCfg;
use serde::{Deserialize, Serialize};
use spec::Sha256Digest;

use super::fw_cfg::{Answer, MAX_BYTES};
use super::placement::ConfigWrite;
use crate::state::write_atomically;

/// A new number whenever what is asked for changes.
const SCHEMA: u32 = 2;

/// Where an answer is kept.
pub(super) struct Place(PathBuf);

#[derive(Serialize, Deserialize)]
struct Kept {
    schema: u32,
    qemu_version: Option<[u64; 3]>,
    files: BTreeMap<String, KeptFile>,
    placement: Vec<ConfigWrite>,
}

/// A file without the zeroes it ends in, which are most of it.
#[derive(Serialize, Deserialize)]
struct KeptFile {
    size: usize,
    hex: String,
}

impl Place {
    /// Of a machine that was asked about in this manner; empty for the usual one.
    pub(super) fn of(
        cache: &Path,
        qemu: &Sha256Digest,
        firmware: &Sha256Digest,
        arguments: &[String],
        manner: &str,
    ) -> Self {
        let key = Sha256Digest::of(format!("{SCHEMA} {qemu} {firmware} {arguments:?}{manner}").as_bytes());
        Self(cache.join("verdicts").join(format!("fw-cfg-{key}.json")))
    }

    /// A file that cannot be read is as good as none.
    pub(super) fn read(&self) -> Option<Answer> {
        let kept: Kept = serde_json::from_slice(&fs::read(&self.0).ok()?).ok()?;
        if kept.schema != SCHEMA {
            return None;
        }
        let mut fw_cfg = FwCfg::default();
        for (name, file) in kept.files {
            let mut bytes = hex::decode(&file.hex).ok()?;
            if bytes.len() > file.size || file.size as u64 > MAX_BYTES {
                return None;
            }
            bytes.resize(file.size, 0);
            fw_cfg.insert(&name, bytes);
        }
        Some(Answer { qemu_version: kept.qemu_version, fw_cfg, placement: kept.placement })
    }

    /// A cache that cannot be written costs time, nothing else.
    pub(super) fn write(&self, found: &Answer) {
        let file = |bytes: &[u8]| {
            let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            KeptFile { size: bytes.len(), hex: hex::encode(bytes.get(..length).unwrap_or_default()) }
        };
        let files = FwCfg::NAMES.iter().filter_map(|name| Some(((*name).to_owned(), file(found.fw_cfg.get(name)?))));
        let placement = found.placement.clone();
        let kept = Kept { schema: SCHEMA, qemu_version: found.qemu_version, files: files.collect(), placement };
        let _ = serde_json::to_vec(&kept).map_err(io::Error::other).and_then(|bytes| {
            self.0.parent().map_or(Ok(()), fs::create_dir_all)?;
            write_atomically(&self.0, &bytes)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_as_it_was() {
        let cache = tempfile::tempdir().unwrap();
        let place = |arguments: &[String]| {
            Place::of(cache.path(), &Sha256Digest([1; 32]), &Sha256Digest([2; 32]), arguments, "")
        };
        let mut fw_cfg = FwCfg::default();
        fw_cfg.insert("etc/acpi/tables", [b"DSDT".as_slice(), &[0; 100]].concat());
        fw_cfg.insert("bootorder", Vec::new());
        let placement = vec![ConfigWrite { function: 0xf8, register: 0x40, value: 0x601 }];
        let answer = Answer { qemu_version: Some([11, 1, 3]), fw_cfg, placement };
        let (one, other) = (place(&["-smp".to_owned(), "1".to_owned()]), place(&["-smp 1".to_owned()]));
        assert_eq!(one.read(), None);
        one.write(&answer);
        assert_eq!(one.read(), Some(answer));
        assert_eq!(other.read(), None, "another machine");
        fs::write(&one.0, "{").unwrap();
        assert_eq!(one.read(), None, "a damaged file is asked for again");
    }
}
