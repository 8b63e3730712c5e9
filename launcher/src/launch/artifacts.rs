//! The files of an image: open from the start, and held against its manifest before the guest may run.
//!
//! QEMU reads the very descriptors that are hashed here. What it takes apart itself is compared before it may make its machine, which is when it
//! reads it; disks, which only the guest reads, while it does: no other step of a launch takes as long.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use spec::manifest::artifact;
use store::{Image, OpenArtifacts, VerifyError, open_unverified, verify_open};

use super::LaunchError;
use crate::sealed_memory::sealed_memory;

/// An image's files.
#[derive(Debug)]
pub(super) struct Artifacts {
    pub(super) open: OpenArtifacts,
    accepted: Accepted,
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
    /// Opens the files; `dangerously_skip` accepts them as they are.
    pub(super) fn open(image: &Image, dangerously_skip: bool) -> Result<Self, VerifyError> {
        let open = open_unverified(&image.directory, &image.manifest)?;
        Ok(Self { open, accepted: if dangerously_skip { Accepted::Unseen } else { Accepted::None } })
    }

    /// Makes a file one that QEMU can open anew, perhaps as another user. One that only its owner can read is from now on a copy in memory, and
    /// looked at again: what is hashed is what QEMU reads.
    pub(super) fn share(&mut self, name: &str, image: &Image) -> io::Result<()> {
        let missing = || io::Error::other(format!("the image has no artifact \"{name}\""));
        let file = self.open.get_mut(name).ok_or_else(missing)?;
        let expected = image.manifest.artifacts.get(name).ok_or_else(missing)?.size;
        let found = file.metadata()?;
        let is_unseen = self.accepted == Accepted::Unseen;
        // One of another size is refused as it is.
        if found.mode() & 0o004 == 0 && (found.len() == expected || is_unseen) {
            let mut bytes = vec![0; usize::try_from(found.len()).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, 0)?;
            *file = File::from(sealed_memory(&bytes)?);
            self.accepted = if is_unseen { Accepted::Unseen } else { Accepted::None };
        }
        Ok(())
    }

    /// Returns when every file that QEMU reads by itself is what the manifest says.
    pub(super) fn verify_what_qemu_reads(&mut self, image: &Image) -> Result<(), VerifyError> {
        if self.accepted == Accepted::None {
            verify_open(&self.open, &image.directory, &image.manifest, |name| !is_disk(name), false)?;
            self.accepted = Accepted::ReadByQemu;
        }
        Ok(())
    }

    /// Returns when every file is what the manifest says. What was accepted before is not looked at again.
    pub(super) fn verify(&mut self, image: &Image) -> Result<(), VerifyError> {
        if self.accepted < Accepted::All {
            let beside = self.accepted == Accepted::ReadByQemu;
            verify_open(&self.open, &image.directory, &image.manifest, |name| !beside || is_disk(name), beside)?;
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
