//! What was learned about this host's KVM by running a guest under it, remembered until the host boots again.
//!
//! Some hosts have a `/dev/kvm` that creates VMs and then cannot run an ordinary kernel in them. Nothing tells but a
//! trial of seconds, so its result is kept, per boot of the host, kernel of the host and kernel of the guest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use spec::Sha256Digest;

use crate::host::HostFacts;
use crate::state::write_atomically;

/// Whether KVM runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The guest became ready under KVM.
    Runs,
    /// QEMU stopped the guest with the run state `internal-error`.
    Stops,
}

/// Verdicts in a cache directory.
#[derive(Clone, Debug)]
pub struct Verdicts {
    directory: PathBuf,
}

impl Verdicts {
    /// The verdicts in the directory `verdicts` of `cache`.
    pub fn open(cache: &Path) -> Self {
        Self { directory: cache.join("verdicts") }
    }

    /// What is known about running `guest_kernel` on this host. A file that cannot be read is as good as none.
    pub fn find(&self, facts: &HostFacts, guest_kernel: &Sha256Digest) -> Option<Verdict> {
        let bytes = fs::read(self.path(facts, guest_kernel)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Remembers a verdict. Verdicts of earlier boots are removed: they can never be asked for again.
    pub fn remember(&self, facts: &HostFacts, guest_kernel: &Sha256Digest, verdict: Verdict) -> io::Result<()> {
        if self.find(facts, guest_kernel) == Some(verdict) {
            return Ok(());
        }
        fs::create_dir_all(&self.directory)?;
        let path = self.path(facts, guest_kernel);
        for entry in fs::read_dir(&self.directory)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("kvm-") && !name.starts_with(&format!("kvm-{}-", facts.boot_id)) {
                let _ = fs::remove_file(entry.path());
            }
        }
        write_atomically(&path, &serde_json::to_vec(&verdict)?)
    }

    fn path(&self, facts: &HostFacts, guest_kernel: &Sha256Digest) -> PathBuf {
        let host = Sha256Digest::of(facts.kernel_release.as_bytes()).short();
        self.directory.join(format!("kvm-{}-{host}-{}.json", facts.boot_id, guest_kernel.short()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::KvmAccess;

    #[test]
    fn a_verdict_holds_for_one_boot_and_one_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let verdicts = Verdicts::open(directory.path());
        let facts = |boot: &str| HostFacts {
            kvm: KvmAccess::Usable { vm_types: 1 },
            c_bit_position: 0,
            physical_address_bits: 48,
            kernel_release: "6.18".to_owned(),
            boot_id: boot.to_owned(),
            ..HostFacts::default()
        };
        let kernel = Sha256Digest::of(b"kernel");
        assert_eq!(verdicts.find(&facts("a"), &kernel), None);
        verdicts.remember(&facts("a"), &kernel, Verdict::Stops).unwrap();
        assert_eq!(verdicts.find(&facts("a"), &kernel), Some(Verdict::Stops));
        assert_eq!(verdicts.find(&facts("b"), &kernel), None);
        assert_eq!(verdicts.find(&facts("a"), &Sha256Digest::of(b"other")), None);
        verdicts.remember(&facts("b"), &kernel, Verdict::Runs).unwrap();
        assert_eq!(verdicts.find(&facts("b"), &kernel), Some(Verdict::Runs));
        assert_eq!(verdicts.find(&facts("a"), &kernel), None, "another boot's verdict is gone");
        fs::write(verdicts.path(&facts("b"), &kernel), b"{").unwrap();
        assert_eq!(verdicts.find(&facts("b"), &kernel), None, "a damaged verdict is none");
    }
}
