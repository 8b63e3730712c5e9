//! The SNP launch digest, kept by the secure processor page by page (AMD 56860, "PAGE_INFO" and SNP_LAUNCH_UPDATE).
//!
//! Written from the specification alone and on purpose not shared with anything that predicts digests: it judges them.

use sha2::{Digest as _, Sha384};

/// The page types (AMD 56860, "Page Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageType(pub(crate) u8);

impl PageType {
    pub(crate) const NORMAL: Self = Self(1);
    pub(crate) const VMSA: Self = Self(2);
    pub(crate) const ZERO: Self = Self(3);
    pub(crate) const UNMEASURED: Self = Self(4);
    pub(crate) const SECRETS: Self = Self(5);
    pub(crate) const CPUID: Self = Self(6);

    /// Whether the content of such a page is part of the digest; address and type of every page are.
    pub(crate) fn measures_content(self) -> bool {
        self == Self::NORMAL || self == Self::VMSA
    }

    /// The name in the specification.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NORMAL => "normal",
            Self::VMSA => "vmsa",
            Self::ZERO => "zero",
            Self::UNMEASURED => "unmeasured",
            Self::SECRETS => "secrets",
            Self::CPUID => "cpuid",
            _ => "unknown",
        }
    }
}

/// A running digest.
#[derive(Clone, Debug)]
pub(crate) struct LaunchDigest([u8; 48]);

impl LaunchDigest {
    /// The digest of a guest that has just been created.
    pub(crate) fn new() -> Self {
        Self([0; 48])
    }

    /// Extends the digest by a page of 4 KiB. KVM leaves IMI_PAGE and the VMPL permissions zero.
    pub(crate) fn extend(&mut self, page_type: PageType, gpa: u64, content: &[u8]) {
        const PAGE_INFO_LENGTH: u16 = 0x70;
        let content_digest: [u8; 48] =
            if page_type.measures_content() { Sha384::digest(content).into() } else { [0; 48] };
        let mut hasher = Sha384::new();
        hasher.update(self.0);
        hasher.update(content_digest);
        hasher.update(PAGE_INFO_LENGTH.to_le_bytes());
        hasher.update([page_type.0, 0]);
        hasher.update([0; 4]);
        hasher.update(gpa.to_le_bytes());
        self.0 = hasher.finalize().into();
    }

    /// The value so far.
    pub(crate) fn value(&self) -> [u8; 48] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chain over a full firmware and a VMSA that others computed, to the digest that `sev-snp-measure` 0.0.13, the crate
    /// `sev` 8.0.0 and `igvmmeasure` agree on (EPYC-v4, one vCPU, no kernel, SEV_FEATURES 1).
    #[test]
    fn the_chain_of_a_whole_launch_is_what_other_tools_compute() {
        let Some(firmware) = crate::test_vectors::read("snp/launch-digest/debian_2026.08+ds-2_OVMF.amdsev.fd") else {
            return;
        };
        let Some(vmsa) = crate::test_vectors::read("snp/igvm/vmsa_bsp_qemu_epyc-v4_feat1.bin") else { return };
        let mut digest = LaunchDigest::new();
        let base = (1_u64 << 32) - firmware.len() as u64;
        for (page, gpa) in firmware.chunks(4096).zip((base..).step_by(4096)) {
            digest.extend(PageType::NORMAL, gpa, page);
        }
        let sections = [
            (0x80_0000, 9, PageType::ZERO),
            (0x80_a000, 3, PageType::ZERO),
            (0x80_d000, 1, PageType::SECRETS),
            (0x80_e000, 1, PageType::CPUID),
            (0x80_f000, 1, PageType::ZERO),
            (0x81_1000, 0x1f, PageType::ZERO),
            (0x81_0000, 1, PageType::ZERO),
        ];
        for (gpa, pages, page_type) in sections {
            (0..pages).for_each(|page| digest.extend(page_type, gpa + page * 4096, &[]));
        }
        digest.extend(PageType::VMSA, 0xffff_ffff_f000, &vmsa);
        assert_eq!(
            hex::encode(digest.value()),
            "d74bd3ea40b240c3228edc5177ce6193561ebff633dbd0be76d6c143b876d65102425c0e2e8a930857c48daa5eacda58"
        );
    }
}
