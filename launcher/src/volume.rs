//! The files and block devices behind a guest's volumes: opened once, locked, looked at, and given to QEMU as descriptors.
//!
//! What is on an archive is the guest's to check. What is on a scratch volume is about to be lost, so a disk that says it
//! belongs to something else is refused unless the description says otherwise. The lock is the kernel's and lasts as long as
//! this process or QEMU has the descriptor: one disk is never written by two guests.

pub(crate) mod label;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl};
use spec::vm::Vm;
use spec::volume::Purpose;
use spec::{Diagnostic, Outcome};

/// A volume as QEMU gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The serial number by which the guest finds it.
    pub serial: String,
    /// The file or block device.
    pub path: PathBuf,
    /// Whether the guest cannot write to it.
    pub read_only: bool,
    /// Whether it is a block device: everything below `/dev` has to be one, and nothing else may.
    pub block_device: bool,
    /// Whether what a scratch volume's disk holds may be lost whatever it is.
    pub overwrite: bool,
}

/// A volume that is not used.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// It cannot be opened.
    #[error("cannot open {path}, the volume \"{name}\"")]
    Open {
        /// The volume.
        name: String,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is of another kind.
    #[error("{path}, the volume \"{name}\", is not a {expected}")]
    Kind {
        /// The volume.
        name: String,
        /// The path.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// Somebody uses it.
    #[error(
        "{path}, the volume \"{name}\", is in use: it is mounted, a part of another device, or another guest has it"
    )]
    InUse {
        /// The volume.
        name: String,
        /// The path.
        path: PathBuf,
    },
    /// It belongs to something else.
    #[error("{path}, the volume \"{name}\", holds {label}: scratch would destroy it")]
    Labelled {
        /// The volume.
        name: String,
        /// The path.
        path: PathBuf,
        /// What it holds.
        label: &'static str,
    },
}

impl Diagnostic for VolumeError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Open { .. } | Self::InUse { .. } => Outcome::HostCannot,
            Self::Kind { .. } => Outcome::Usage,
            Self::Labelled { .. } => Outcome::Refused,
        }
    }
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "a scratch volume's file is made with: truncate --size 8G FILE"
            }
            Self::Labelled { .. } => "if it may be lost, say dangerously_overwrite = true in its [[host.volume]]",
            Self::Kind { .. } => "block devices are named below /dev/disk/by-id or /dev/mapper, files elsewhere",
            Self::Open { .. } | Self::InUse { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// The volumes of a VM that are on virtio disks, in the order of their slots. Those on drives that are passed whole are among its PCI
/// functions.
pub fn volumes(vm: &Vm) -> Vec<Volume> {
    let host = |name: &str| vm.host.volumes.iter().find(|volume| volume.name == name);
    let volumes = vm.guest.volumes.iter().filter_map(|guest| Some((guest, host(&guest.name)?)));
    volumes
        .map(|(guest, host)| Volume {
            name: guest.name.clone(),
            serial: guest.serial(),
            path: PathBuf::from(&host.path),
            read_only: guest.purpose == Purpose::Archive,
            block_device: Path::new(&host.path).starts_with("/dev"),
            overwrite: host.dangerously_overwrite,
        })
        .collect()
}

/// Opens a volume and locks it: for this guest alone where it is written to, for readers where it is not. A duplicate that
/// outlives what is returned, as QEMU's would where this process is killed, keeps the lock.
pub(crate) fn open(volume: &Volume) -> Result<Flock<File>, VolumeError> {
    let Volume { name, path, .. } = volume;
    let in_use = || VolumeError::InUse { name: name.clone(), path: path.clone() };
    let failed = |source| VolumeError::Open { name: name.clone(), path: path.clone(), source };
    // O_EXCL without O_CREAT: the kernel refuses a block device that is mounted or a part of another (open(2)).
    let exclusive = if volume.block_device && !volume.read_only { OFlag::O_EXCL } else { OFlag::empty() };
    let file = OpenOptions::new()
        .read(true)
        .write(!volume.read_only)
        .custom_flags((OFlag::O_NONBLOCK | exclusive).bits())
        .open(path)
        .map_err(|error| if error.raw_os_error() == Some(Errno::EBUSY as i32) { in_use() } else { failed(error) })?;
    let kind = file.metadata().map_err(failed)?.file_type();
    let expected = if volume.block_device { "block device" } else { "regular file" };
    if !(if volume.block_device { kind.is_block_device() } else { kind.is_file() }) {
        return Err(VolumeError::Kind { name: name.clone(), path: path.clone(), expected });
    }
    let how = if volume.read_only { FlockArg::LockSharedNonblock } else { FlockArg::LockExclusiveNonblock };
    let file = match Flock::lock(file, how) {
        Ok(file) => file,
        Err((_, Errno::EWOULDBLOCK)) => return Err(in_use()),
        Err((_, error)) => return Err(failed(error.into())),
    };
    let at_stake = !volume.read_only && !volume.overwrite;
    if let Some(label) = if at_stake { label::find(&file).map_err(failed)? } else { None } {
        return Err(VolumeError::Labelled { name: name.clone(), path: path.clone(), label });
    }
    if volume.block_device {
        read_past_the_page_cache(&file).map_err(failed)?;
    }
    Ok(file)
}

/// Sets `O_DIRECT`: QEMU takes a descriptor for `cache.direct=on` only where it has that flag already.
fn read_past_the_page_cache(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_DIRECT))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(path: &Path, read_only: bool) -> Volume {
        Volume {
            name: "tmp".to_owned(),
            serial: "vol-tmp".to_owned(),
            path: path.to_owned(),
            read_only,
            block_device: path.starts_with("/dev"),
            overwrite: false,
        }
    }

    #[test]
    fn a_volume_that_is_written_to_has_one_user() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tmp.img");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let first = open(&volume(&path, false)).unwrap();
        assert!(matches!(open(&volume(&path, false)), Err(VolumeError::InUse { .. })));
        assert!(matches!(open(&volume(&path, true)), Err(VolumeError::InUse { .. })));
        drop(first);
        let readers = [open(&volume(&path, true)).unwrap(), open(&volume(&path, true)).unwrap()];
        assert!(matches!(open(&volume(&path, false)), Err(VolumeError::InUse { .. })));
        drop(readers);
        open(&volume(&path, false)).unwrap();
    }

    #[test]
    fn scratch_does_not_go_over_what_somebody_may_miss() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tmp.img");
        let mut disk = vec![0; 1 << 20];
        disk[1080..1082].copy_from_slice(&[0x53, 0xef]);
        std::fs::write(&path, &disk).unwrap();
        let error = open(&volume(&path, false)).unwrap_err();
        assert!(error.to_string().contains("an ext2, ext3 or ext4 file system"), "{error}");
        assert_eq!(error.outcome(), Outcome::Refused);
        open(&volume(&path, true)).unwrap();
        open(&Volume { overwrite: true, ..volume(&path, false) }).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), disk, "opening writes nothing");
    }

    #[test]
    fn files_and_devices_are_not_taken_for_each_other() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            open(&volume(directory.path(), true)),
            Err(VolumeError::Kind { expected: "regular file", .. })
        ));
        assert!(matches!(
            open(&volume(Path::new("/dev/null"), true)),
            Err(VolumeError::Kind { expected: "block device", .. })
        ));
        let missing = open(&volume(&directory.path().join("none"), false)).unwrap_err();
        assert!(missing.hint().unwrap().contains("truncate"));
    }
}
