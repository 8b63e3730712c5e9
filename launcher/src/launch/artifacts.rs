//! The files of an image: open from the start, and held against its manifest before the guest may run. Firmware for another TEE is not in use,
//! and not looked at.
//!
//! QEMU reads the very descriptors that are hashed here. What it takes apart itself is compared before it may make its machine, which is when it
//! reads it; disks, which only the guest reads, while it does: no other step of a launch takes as long.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use spec::manifest::artifact;
use spec::vm::Vm;
use store::{Image, OpenArtifacts, VerifyError, open_unverified, verify_open};

use super::LaunchError;
use crate::firmware::artifact_name;
use crate::plan::boot;
use crate::sealed_memory::sealed_copy;

/// The most that copies of one image's files take of the host's memory, in bytes. An image says itself how large it is: without a limit, a file
/// that has almost nothing on the disk could take all.
pub(super) const MAX_COPIED_BYTES: u64 = 4 << 30;

/// An image's files.
#[derive(Debug)]
pub(super) struct Artifacts {
    pub(super) open: OpenArtifacts,
    accepted: Accepted,
    /// The firmware that starts the guest, where it is the image's.
    firmware: Option<&'static str>,
    /// What copies take, in bytes.
    copied: u64,
}

/// Which files are what the manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Accepted {
    None,
    /// All but disks.
    ReadByQemu,
    All,
    /// Nobody looks at them.
    Unseen,
}

fn is_disk(name: &str) -> bool {
    [artifact::ROOTFS, artifact::DISK].contains(&name)
}

impl Artifacts {
    /// Opens the files of which `vm` is made; `dangerously_skip` accepts them as they are.
    pub(super) fn open(image: &Image, vm: &Vm, dangerously_skip: bool) -> Result<Self, VerifyError> {
        let open = open_unverified(&image.directory, &image.manifest)?;
        let accepted = if dangerously_skip { Accepted::Unseen } else { Accepted::None };
        Ok(Self { open, accepted, firmware: artifact_name(vm.tee, boot(vm)), copied: 0 })
    }

    /// Compares those that are used and `wanted` with the manifest.
    pub(super) fn compare(
        &self,
        image: &Image,
        wanted: impl Fn(&str) -> bool,
        beside: bool,
    ) -> Result<(), VerifyError> {
        let is_used = |name: &str| {
            ![artifact::FIRMWARE_SNP, artifact::FIRMWARE_TDX].contains(&name) || self.firmware == Some(name)
        };
        verify_open(&self.open, &image.directory, &image.manifest, |name| is_used(name) && wanted(name), beside)
    }

    /// Makes a file one that QEMU can open anew, perhaps as another user. One that only its owner can read is from now on a copy in memory, and
    /// looked at again: what is hashed is what QEMU reads.
    pub(super) fn share(&mut self, name: &str, image: &Image) -> Result<(), LaunchError> {
        let failed = LaunchError::system("copy what of the image only its owner can read");
        let missing = || failed(io::Error::other(format!("the image has no artifact \"{name}\"")));
        let file = self.open.get_mut(name).ok_or_else(missing)?;
        let expected = image.manifest.artifacts.get(name).ok_or_else(missing)?.size;
        let found = file.metadata().map_err(&failed)?;
        let is_unseen = self.accepted == Accepted::Unseen;
        // One of another size is refused as it is.
        if found.mode() & 0o004 == 0 && (found.len() == expected || is_unseen) {
            self.copied = with_another(self.copied, found.len(), &image.directory.join(name))?;
            *file = copy(file, found.len()).map_err(&failed)?;
            self.accepted = if is_unseen { Accepted::Unseen } else { Accepted::None };
        }
        Ok(())
    }

    /// Returns when every file that QEMU reads by itself is what the manifest says.
    pub(super) fn verify_what_qemu_reads(&mut self, image: &Image) -> Result<(), VerifyError> {
        if self.accepted == Accepted::None {
            self.compare(image, |name| !is_disk(name), false)?;
            self.accepted = Accepted::ReadByQemu;
        }
        Ok(())
    }

    /// Returns when every file in use is what the manifest says. What was accepted before is not looked at again.
    pub(super) fn verify(&mut self, image: &Image) -> Result<(), VerifyError> {
        if self.accepted < Accepted::All {
            let beside = self.accepted == Accepted::ReadByQemu;
            self.compare(image, |name| !beside || is_disk(name), beside)?;
            self.accepted = Accepted::All;
        }
        Ok(())
    }

    /// What became of the rest, unless a file is not what the manifest says: that is said before anything else.
    pub(super) fn said_first<T>(&mut self, image: &Image, rest: Result<T, LaunchError>) -> Result<T, LaunchError> {
        match rest {
            Err(LaunchError::Verify(_)) | Ok(_) => {}
            Err(_) => self.verify(image)?,
        }
        rest
    }
}

/// What all copies take with this one.
fn with_another(copied: u64, bytes: u64, path: &Path) -> Result<u64, LaunchError> {
    let all = copied.saturating_add(bytes);
    if all > MAX_COPIED_BYTES {
        return Err(LaunchError::TooLargeToCopy { path: path.to_owned(), bytes, copied });
    }
    Ok(all)
}

/// A copy in memory of the file's first bytes, which it has to have.
fn copy(mut file: &File, bytes: u64) -> io::Result<File> {
    file.rewind()?;
    let copy = File::from(sealed_copy(file.take(bytes))?);
    let found = copy.metadata()?.len();
    if found != bytes {
        return Err(io::Error::other(format!("it had {bytes} bytes and became shorter: {found} bytes")));
    }
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use spec::{Diagnostic as _, Outcome};

    use super::*;

    #[test]
    fn copies_in_memory_have_a_limit_that_is_told_of() {
        let path = Path::new("/image/rootfs");
        assert_eq!(with_another(0, MAX_COPIED_BYTES, path).unwrap(), MAX_COPIED_BYTES);
        assert_eq!(with_another(MAX_COPIED_BYTES - 1, 1, path).unwrap(), MAX_COPIED_BYTES);
        for (copied, bytes) in [(0, MAX_COPIED_BYTES + 1), (MAX_COPIED_BYTES, 1), (1, u64::MAX)] {
            let error = with_another(copied, bytes, path).unwrap_err();
            assert_eq!(error.outcome(), Outcome::HostCannot);
            let said = error.to_string();
            assert!(said.contains("/image/rootfs") && said.contains(&format!("{bytes} bytes")), "{said}");
            assert!(error.hint().unwrap().contains("chmod o+r /image/rootfs"));
        }
    }

    #[test]
    fn a_copy_begins_at_the_files_beginning_and_is_whole() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 70_000]).unwrap();
        let mut bytes = Vec::new();
        let mut copied = copy(&file, 70_000).unwrap();
        copied.rewind().unwrap();
        copied.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 70_000]);
        assert!(copied.write_all(b"x").is_err(), "a copy is sealed");
        assert!(copy(&file, 70_001).unwrap_err().to_string().contains("became shorter: 70000 bytes"));
    }
}
