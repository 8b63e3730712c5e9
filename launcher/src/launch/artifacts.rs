//! The files of an image, hashed beside everything else that comes before QEMU: no other step of a launch takes as long.

use std::thread::{self, JoinHandle};

use nix::sys::signal::SigSet;
use store::{Image, OpenArtifacts, VerifyError, open_unverified, verify};

/// An image whose files are being held against its manifest.
#[derive(Debug)]
pub struct Artifacts(JoinHandle<Result<OpenArtifacts, VerifyError>>);

impl Artifacts {
    /// Begins; `dangerously_skip` opens the files and looks at none.
    pub fn check(image: &Image, dangerously_skip: bool) -> Self {
        let Image { directory, manifest, .. } = image.clone();
        Self(thread::spawn(move || {
            // Signals are the supervisor's, which may come to block them only later.
            let _ = SigSet::all().thread_block();
            if dangerously_skip { open_unverified(&directory, &manifest) } else { verify(&directory, &manifest) }
        }))
    }

    /// The files, open, once all are checked.
    pub(super) fn wait(self) -> Result<OpenArtifacts, VerifyError> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
