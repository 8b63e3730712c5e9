//! The files of an image: open from the start, and held against its manifest before the guest may run.
//!
//! QEMU reads the very descriptors that are hashed here. What it takes apart itself, and reads before its guest runs, is compared before it
//! is started; disks, which only the guest reads, while it makes its machine: no other step of a launch takes as long.

use spec::manifest::artifact;
use store::{Image, OpenArtifacts, VerifyError, open_unverified, verify_open};

use super::LaunchError;

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
}

fn is_disk(name: &str) -> bool {
    [artifact::ROOTFS, artifact::DISK].contains(&name)
}

impl Artifacts {
    /// Opens the files; `dangerously_skip` accepts them as they are.
    pub(super) fn open(image: &Image, dangerously_skip: bool) -> Result<Self, VerifyError> {
        let open = open_unverified(&image.directory, &image.manifest)?;
        Ok(Self { open, accepted: if dangerously_skip { Accepted::All } else { Accepted::None } })
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
