//! Everything that is launched before the vCPUs, measured once: any number of vCPUs of any model goes on from there.

use alloc::vec::Vec;
use core::fmt;

use super::chain::{Chain, PageType};
use super::cpu::CpuSignature;
use super::hashes::{KernelHashes, TABLE_SIZE};
use super::profile::Profile;
use super::vmsa::{Role, Vmsa};
use crate::digest::Digest384;
use crate::firmware::{Firmware, HashTableArea, PAGE_BYTES, PAGE_SIZE, Page, SevLayout, SevSection, SevSectionType};

/// Why a launch digest cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// The firmware's size is not a whole number of pages.
    #[error("firmware has {0} bytes: SEV-SNP launches whole pages of 4096")]
    FirmwareSize(usize),
    /// There is nowhere to put the kernel hashes.
    #[error("firmware has no page for kernel hashes: it would boot any kernel, initrd and command line")]
    NoKernelHashesPage,
    /// The area for the kernel hashes is too small, or reaches beyond its page.
    #[error(
        "firmware's area for kernel hashes ({size:#x} bytes at {base:#x}) cannot hold the table of {TABLE_SIZE} bytes"
    )]
    HashTableArea {
        /// Its address.
        base: u32,
        /// Its size.
        size: u32,
    },
    /// More than one vCPU, and no place for the others to start.
    #[error("firmware has no SEV-ES reset block: only one vCPU can be launched, not {0}")]
    NoApResetVector(u32),
    /// A guest without vCPUs.
    #[error("a guest has at least one vCPU")]
    NoVcpus,
}

/// What a launched range of pages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepName {
    /// The firmware image.
    Firmware,
    /// A section of its SEV metadata.
    Section(SevSectionType),
    /// The first state of the vCPU of this index.
    Vcpu(u32),
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firmware => f.write_str("firmware"),
            Self::Section(section) => section.fmt(f),
            Self::Vcpu(index) => write!(f, "vCPU {index}"),
        }
    }
}

/// One launched range of pages, as QEMU's trace event `kvm_sev_snp_launch_update` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub name: StepName,
    /// The guest physical address of its first page.
    pub gpa: u64,
    /// Its size in bytes.
    pub size: u64,
    /// How it is launched.
    pub page_type: PageType,
    /// The launch digest after it.
    pub digest: Digest384,
}

/// What is measured of a vCPU apart from its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vcpu {
    /// The signature of its CPU model.
    pub signature: CpuSignature,
    /// SEV_FEATURES.
    pub sev_features: u64,
}

/// The launch digest after the pages of the firmware image: the expensive part, and the same for every shape.
pub fn firmware_digest(firmware: &Firmware<'_>) -> Result<Digest384, SeedError> {
    let bytes = firmware.bytes();
    if !(bytes.len() as u64).is_multiple_of(PAGE_SIZE) {
        return Err(SeedError::FirmwareSize(bytes.len()));
    }
    let mut chain = Chain::new();
    chain.extend_data(PageType::NORMAL, firmware.base_gpa(), bytes);
    Ok(chain.digest())
}

/// The first step of every launch: the pages of the firmware image.
pub fn firmware_step(firmware: &Firmware<'_>) -> Result<Step, SeedError> {
    Ok(Step {
        name: StepName::Firmware,
        gpa: firmware.base_gpa(),
        size: firmware.bytes().len() as u64,
        page_type: PageType::NORMAL,
        digest: firmware_digest(firmware)?,
    })
}

/// The launch digest before the first vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    chain: Chain,
    steps: Vec<Step>,
    ap_reset_eip: Option<u32>,
    profile: Profile,
}

impl Seed {
    /// Goes on from `firmware_digest` with the sections of the firmware. `kernel_hashes` is `None` for
    /// `kernel-hashes=off`: then the page for them is zeroed.
    pub fn new(
        firmware_digest: Digest384,
        layout: &SevLayout,
        kernel_hashes: Option<&KernelHashes>,
        profile: &Profile,
    ) -> Result<Self, SeedError> {
        let hash_page = kernel_hashes.map(|hashes| hash_page(hashes, layout)).transpose()?;
        let mut seed = Self {
            chain: Chain::resume(firmware_digest),
            steps: Vec::new(),
            ap_reset_eip: layout.ap_reset_eip,
            profile: *profile,
        };
        let is_late = |section: &&SevSection| profile.cpuid_last && section.section_type == SevSectionType::CPUID;
        let sections = layout.sections.iter();
        for section in sections.clone().filter(|s| !is_late(s)).chain(sections.filter(is_late)) {
            seed.add_section(section, hash_page.as_ref());
        }
        Ok(seed)
    }

    fn add_section(&mut self, section: &SevSection, hash_page: Option<&Page>) {
        let (gpa, size) = (u64::from(section.gpa), u64::from(section.size));
        if size == 0 {
            return;
        }
        let page_type = match (section.section_type, hash_page) {
            (SevSectionType::SNP_SEC_MEM, _) => self.profile.sec_mem,
            (SevSectionType::SNP_SECRETS, _) => PageType::SECRETS,
            (SevSectionType::CPUID, _) => PageType::CPUID,
            (SevSectionType::KERNEL_HASHES, Some(page)) => {
                // Pages of the section after the first are zero, and measured by content like the first.
                self.chain.extend_data(PageType::NORMAL, gpa, page);
                for next in 1..size.div_ceil(PAGE_SIZE) {
                    let gpa = gpa.saturating_add(next.saturating_mul(PAGE_SIZE));
                    self.chain.extend_data(PageType::NORMAL, gpa, &[0; PAGE_BYTES]);
                }
                PageType::NORMAL
            }
            _ => PageType::ZERO,
        };
        if page_type != PageType::NORMAL {
            self.chain.extend_empty(page_type, gpa, size);
        }
        let name = StepName::Section(section.section_type);
        self.steps.push(Step { name, gpa, size, page_type, digest: self.chain.digest() });
    }

    /// The launch digest before the first vCPU.
    pub fn digest_before_vcpus(&self) -> Digest384 {
        self.chain.digest()
    }

    /// The launch digest of a guest with `vcpus` vCPUs of one kind.
    pub fn digest(&self, vcpu: &Vcpu, vcpus: u32) -> Result<Digest384, SeedError> {
        let before = usize::try_from(vcpus).ok().and_then(|vcpus| vcpus.checked_sub(1)).ok_or(SeedError::NoVcpus)?;
        self.digests(vcpu).nth(before).ok_or(SeedError::NoApResetVector(vcpus))
    }

    /// The launch digests of guests with 1, 2, 3, ... vCPUs of one kind, each at the cost of one hash. Ends after the first
    /// where the firmware cannot start more.
    pub fn digests(&self, vcpu: &Vcpu) -> Digests {
        let contents = |role| {
            let vmsa =
                Vmsa { role, signature: vcpu.signature, sev_features: vcpu.sev_features, profile: &self.profile };
            Digest384::of(&vmsa.page())
        };
        Digests {
            chain: self.chain,
            next: Some(contents(Role::Bsp)),
            ap: self.ap_reset_eip.map(|eip| contents(Role::Ap { eip })),
            gpa: self.profile.vmsa_gpa,
        }
    }

    /// Every launched range with the digest after it: the sections, then `vcpus` vCPUs. The firmware comes before them;
    /// its digest is what the seed was made from.
    pub fn steps(&self, vcpu: &Vcpu, vcpus: u32) -> Result<Vec<Step>, SeedError> {
        self.digest(vcpu, vcpus)?;
        let vmsas = (0..vcpus).zip(self.digests(vcpu)).map(|(index, digest)| Step {
            name: StepName::Vcpu(index),
            gpa: self.profile.vmsa_gpa,
            size: PAGE_SIZE,
            page_type: PageType::VMSA,
            digest,
        });
        Ok(self.steps.iter().copied().chain(vmsas).collect())
    }
}

/// See [`Seed::digests`].
#[derive(Clone, Debug)]
pub struct Digests {
    chain: Chain,
    next: Option<Digest384>,
    ap: Option<Digest384>,
    gpa: u64,
}

impl Iterator for Digests {
    type Item = Digest384;

    fn next(&mut self) -> Option<Digest384> {
        let contents = self.next?;
        self.chain.extend(PageType::VMSA, self.gpa, &contents);
        self.next = self.ap;
        Some(self.chain.digest())
    }
}

/// The first page of the KERNEL_HASHES section: the table at the offset that the firmware names.
fn hash_page(hashes: &KernelHashes, layout: &SevLayout) -> Result<Page, SeedError> {
    let area = layout.hash_table.filter(|_| layout.has_kernel_hashes_page()).ok_or(SeedError::NoKernelHashesPage)?;
    let HashTableArea { base, size } = area;
    let offset = usize::try_from(u64::from(base) & PAGE_SIZE.wrapping_sub(1)).unwrap_or(usize::MAX);
    let fits = usize::try_from(size).is_ok_and(|size| size >= TABLE_SIZE);
    hashes.page(offset).filter(|_| fits).ok_or(SeedError::HashTableArea { base, size })
}
