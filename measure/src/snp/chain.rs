//! The chain of PAGE_INFO structures that is the launch digest (AMD 56860 rev. 1.57, SNP_LAUNCH_UPDATE, "PAGE_INFO").

use core::fmt;

use crate::digest::Digest384;
use crate::firmware::{PAGE_BYTES, PAGE_SIZE, Page};

/// PAGE_TYPE of SNP_LAUNCH_UPDATE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageType(pub u8);

impl PageType {
    /// A page whose content is measured.
    pub const NORMAL: Self = Self(1);
    /// The first state of a vCPU; its content is measured.
    pub const VMSA: Self = Self(2);
    /// A page of zeroes.
    pub const ZERO: Self = Self(3);
    /// A page whose content is not measured; its address and type are.
    pub const UNMEASURED: Self = Self(4);
    /// The secrets page, which the secure processor writes.
    pub const SECRETS: Self = Self(5);
    /// The CPUID page, which the secure processor checks.
    pub const CPUID: Self = Self(6);

    /// Whether the content of such a page is measured, not only its address and type.
    pub fn measures_content(self) -> bool {
        matches!(self, Self::NORMAL | Self::VMSA)
    }
}

impl fmt::Display for PageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::NORMAL => "NORMAL",
            Self::VMSA => "VMSA",
            Self::ZERO => "ZERO",
            Self::UNMEASURED => "UNMEASURED",
            Self::SECRETS => "SECRETS",
            Self::CPUID => "CPUID",
            Self(other) => return write!(f, "page type {other}"),
        })
    }
}

impl fmt::Debug for PageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A launch digest in the making. Copying it is how several continuations share one beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain(Digest384);

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Chain {
    /// The chain before the first page.
    pub const fn new() -> Self {
        Self(Digest384::ZERO)
    }

    /// A chain that goes on from a digest computed elsewhere.
    pub const fn resume(digest: Digest384) -> Self {
        Self(digest)
    }

    /// The launch digest so far.
    pub const fn digest(&self) -> Digest384 {
        self.0
    }

    /// Adds one 4 KiB page. `contents` is the SHA-384 of its content, or zero for types whose content is not measured.
    /// IMI_PAGE and the VMPL permissions are zero, as KVM launches every page.
    pub fn extend(&mut self, page_type: PageType, gpa: u64, contents: &Digest384) {
        const LENGTH: [u8; 2] = 0x70_u16.to_le_bytes();
        let [length_low, length_high] = LENGTH;
        let fixed = [length_low, length_high, page_type.0, 0, 0, 0, 0, 0];
        self.0 = Digest384::of_parts(&[&self.0.0, &contents.0, &fixed, &gpa.to_le_bytes()]);
    }

    /// Adds `data` page by page from `gpa` on. A last page that is not full is measured as if zeroes followed.
    pub fn extend_data(&mut self, page_type: PageType, gpa: u64, data: &[u8]) {
        let (pages, rest) = data.as_chunks::<PAGE_BYTES>();
        let mut next = gpa;
        // Firmware is mostly padding: four of five pages of OVMF are what the page before them is, and need no hash.
        let mut last: Option<(&Page, Digest384)> = None;
        for page in pages {
            let contents = match last {
                _ if !page_type.measures_content() => Digest384::ZERO,
                Some((known, digest)) if known == page => digest,
                _ => Digest384::of(page),
            };
            last = Some((page, contents));
            self.extend(page_type, next, &contents);
            next = next.wrapping_add(PAGE_SIZE);
        }
        if !rest.is_empty() {
            let mut page = [0; PAGE_BYTES];
            page.iter_mut().zip(rest).for_each(|(slot, byte)| *slot = *byte);
            self.extend_data(page_type, next, &page);
        }
    }

    /// Adds `size` bytes of pages whose content is not measured from `gpa` on.
    pub fn extend_empty(&mut self, page_type: PageType, gpa: u64, size: u64) {
        for page in 0..size.div_ceil(PAGE_SIZE) {
            self.extend(page_type, gpa.wrapping_add(page.wrapping_mul(PAGE_SIZE)), &Digest384::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;

    /// google/gce-tcb-verifier, sev/sev_test.go, TestUpdateData and TestZeroContentUpdateData.
    #[test]
    fn page_info_vectors_of_gce_tcb_verifier() {
        let mut data = vec![0; 3 * 4096];
        data[..16].copy_from_slice(&b"LGTM".repeat(4));
        data[3 * 4096 - 16..].copy_from_slice(&b"LGTM".repeat(4));
        let mut chain = Chain::new();
        chain.extend_data(PageType::NORMAL, 0, &data);
        assert_eq!(
            chain.digest().to_string(),
            "cba1cd767c33b30f96271837dbbae4081a945464a5af397b9b0336b5d8759ee88cc6b62c05d915c4424a9ac5747437d4"
        );
        let mut chain = Chain::new();
        chain.extend_empty(PageType::ZERO, 0x9000, 3 * 4096);
        assert_eq!(
            chain.digest().to_string(),
            "4bfe18477ba370a50329da74b9621e721c4f29663176e08fbcf088a17c1bc45f133898b86d5082acbe202a6e9419808a"
        );
    }
}
