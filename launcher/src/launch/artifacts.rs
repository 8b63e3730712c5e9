//! The files of an image: open from the start, and held against its manifest before the guest may run.
//!
//! QEMU reads the very descriptors that are hashed here, so that it can be started first, and make its machine meanwhile: no other
//! step of a launch takes as long.

use store::{Image, OpenArtifacts, VerifyError, open_unverified, verify_open};

use super::LaunchError;

/// An image's files.
#[derive(Debug)]
pub(super) struct Artifacts {
    pub(super) open: OpenArtifacts,
    accepted: bool,
}

impl Artifacts {
    /// Opens the files; `dangerously_skip` accepts them as they are.
    pub(super) fn open(image: &Image, dangerously_skip: bool) -> Result<Self, VerifyError> {
        let open = open_unverified(&image.directory, &image.manifest)?;
        Ok(Self { open, accepted: dangerously_skip })
    }

    /// Returns when every file is what the manifest says. What was accepted before is not looked at again.
    pub(super) fn verify(&mut self, image: &Image) -> Result<(), VerifyError> {
        if !self.accepted {
            verify_open(&self.open, &image.directory, &image.manifest)?;
            self.accepted = true;
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
