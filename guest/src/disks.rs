//! Finds the virtio disks by the serial number the host gave them. A serial number is a name, not a proof: what is on the
//! disk is checked by whoever reads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a disk may take to appear after its driver was loaded.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long to sleep between two looks. The driver usually has the disk before the first.
pub(crate) const INTERVAL: Duration = Duration::from_millis(2);

/// A block device: a disk or a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Its kernel name, such as `vda`.
    pub(crate) name: String,
    /// Its size in bytes.
    pub(crate) bytes: u64,
}

impl Disk {
    /// Its node in devtmpfs.
    pub(crate) fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// A disk that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiskError {
    /// Nothing with that serial number appeared.
    #[error("no virtio disk with the serial number \"{serial}\" after {seconds} s; found {}", list(.found))]
    Missing {
        /// The serial number.
        serial: String,
        /// How long the guest waited.
        seconds: u64,
        /// The serial numbers that are there.
        found: Vec<String>,
    },
    /// More than one has that serial number.
    #[error("the disks {} all have the serial number \"{serial}\"", .disks.join(", "))]
    Ambiguous {
        /// The serial number.
        serial: String,
        /// The disks.
        disks: Vec<String>,
    },
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "no virtio disk".to_owned() } else { found.join(", ") }
}

/// The disk with `serial`, or `None`.
pub(crate) fn find(serial: &str) -> Result<Option<Disk>, DiskError> {
    find_in(Path::new("/sys/block"), serial)
}

/// The disk with `serial`, waiting for it to appear.
pub(crate) fn wait_for(serial: &str) -> Result<Disk, DiskError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(disk) = find(serial)? {
            return Ok(disk);
        }
        if Instant::now() >= deadline {
            let found = virtio_disks(Path::new("/sys/block")).into_iter().map(|(_, serial)| serial).collect();
            return Err(DiskError::Missing { serial: serial.to_owned(), seconds: PATIENCE.as_secs(), found });
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The kernel names of the virtio disks with other serial numbers than these, or with none.
pub(crate) fn others(serials: &[String]) -> Vec<String> {
    others_in(Path::new("/sys/block"), serials)
}

fn others_in(sys_block: &Path, serials: &[String]) -> Vec<String> {
    let other = |(name, serial): (String, String)| (!serials.contains(&serial)).then_some(name);
    let mut names: Vec<String> = virtio_disks(sys_block).into_iter().filter_map(other).collect();
    names.sort();
    names
}

/// Whether the block device `name` is the virtio disk `disk` or a partition of it: `vda1` is one of `vda`, `vdaa` is not.
pub(crate) fn is_or_is_part_of(name: &str, disk: &str) -> bool {
    name.strip_prefix(disk).is_some_and(|rest| rest.bytes().all(|c| c.is_ascii_digit()))
}

fn find_in(sys_block: &Path, serial: &str) -> Result<Option<Disk>, DiskError> {
    let mut named: Vec<String> =
        virtio_disks(sys_block).into_iter().filter(|(_, found)| found == serial).map(|(name, _)| name).collect();
    named.sort();
    match named.as_slice() {
        [] => Ok(None),
        // A disk whose size cannot be read is still being set up.
        [name] => Ok(size(sys_block, name).map(|bytes| Disk { name: name.clone(), bytes })),
        _ => Err(DiskError::Ambiguous { serial: serial.to_owned(), disks: named }),
    }
}

/// Kernel name and serial number of every virtio disk.
fn virtio_disks(sys_block: &Path) -> Vec<(String, String)> {
    fs::read_dir(sys_block)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok().filter(|name| name.starts_with("vd"))?;
            // A disk that does not tell it is one without: it is not left out of those that nobody declared.
            let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            Some((name, serial.trim_end_matches('\n').to_owned()))
        })
        .collect()
}

/// The size in bytes of the block device `name` below `sys_block`. sysfs counts in sectors of 512 bytes, whatever the disk's own
/// block size.
pub(crate) fn size(sys_block: &Path, name: &str) -> Option<u64> {
    fs::read_to_string(sys_block.join(name).join("size")).ok()?.trim_end().parse::<u64>().ok()?.checked_mul(512)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sys_block(disks: &[(&str, &str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, serial, size) in disks {
            let disk = directory.path().join(name);
            fs::create_dir(&disk).unwrap();
            fs::write(disk.join("serial"), serial).unwrap();
            fs::write(disk.join("size"), size).unwrap();
        }
        directory
    }

    #[test]
    fn a_disk_is_found_by_its_serial_number() {
        let sys =
            sys_block(&[("vda", "other", "8\n"), ("vdb", "bullion-root\n", "16\n"), ("sda", "bullion-root", "9\n")]);
        let disk = find_in(sys.path(), "bullion-root").unwrap().unwrap();
        assert_eq!(disk, Disk { name: "vdb".to_owned(), bytes: 8192 });
        assert_eq!(disk.node(), Path::new("/dev/vdb"));
        assert_eq!(find_in(sys.path(), "bullion"), Ok(None));
        assert_eq!(find_in(&sys.path().join("absent"), "bullion-root"), Ok(None));
    }

    #[test]
    fn disks_of_other_names_are_found() {
        let sys = sys_block(&[("vda", "a", "8\n"), ("vdc", "", "8\n"), ("vdb", "b\n", "8\n"), ("sda", "c", "9\n")]);
        assert_eq!(others_in(sys.path(), &["a".to_owned()]), ["vdb", "vdc"]);
        assert_eq!(others_in(sys.path(), &["a".to_owned(), "b".to_owned(), String::new()]), [""; 0]);
    }

    #[test]
    fn a_partition_is_of_the_disk_whose_whole_name_it_begins_with() {
        assert!(is_or_is_part_of("vda", "vda") && is_or_is_part_of("vda12", "vda"));
        assert!(
            !is_or_is_part_of("vdaa1", "vda") && !is_or_is_part_of("vdb", "vda") && !is_or_is_part_of("vda", "vda1")
        );
    }

    #[test]
    fn two_disks_with_one_serial_number_are_refused() {
        let sys = sys_block(&[("vdb", "twin", "8\n"), ("vda", "twin", "8\n")]);
        let error = find_in(sys.path(), "twin").unwrap_err();
        assert_eq!(error.to_string(), "the disks vda, vdb all have the serial number \"twin\"");
    }

    #[test]
    fn a_size_that_cannot_be_read_is_no_disk_yet() {
        for size in ["", "x\n", "36028797018963968\n"] {
            let sys = sys_block(&[("vda", "a", size)]);
            assert_eq!(find_in(sys.path(), "a"), Ok(None), "{size}");
        }
    }
}
