//! MRTD: one SHA-384 over what TDH.MEM.PAGE.ADD and TDH.MR.EXTEND append (Intel 348551, "TD Measurement"), finished by
//! TDH.MR.FINALIZE.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha384};

use crate::digest::Digest384;
use crate::firmware::{Firmware, FirmwareError, PAGE_BYTES, PAGE_SIZE, TdxSection, TdxSectionType};

/// How many bytes one TDH.MR.EXTEND measures.
pub const CHUNK_BYTES: usize = 256;

/// The order in which a VMM adds and extends the pages of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageOrder {
    /// Each page is added and then extended: KVM since Linux 6.16, QEMU since 10.1.
    SinglePass,
    /// All pages of a section are added, then all are extended: Canonical's and Intel's trees around QEMU 8.2.
    TwoPass,
}

/// An MRTD in the making.
#[derive(Clone, Debug, Default)]
pub struct Mrtd(Sha384);

impl Mrtd {
    /// The measurement before the first page.
    pub fn new() -> Self {
        Self::default()
    }

    /// TDH.MEM.PAGE.ADD of the page at `gpa`: its place is measured, not its content.
    pub fn page_add(&mut self, gpa: u64) {
        self.0.update(header(b"MEM.PAGE.ADD", gpa));
    }

    /// TDH.MR.EXTEND of the chunk at `gpa`.
    pub fn extend(&mut self, gpa: u64, chunk: &[u8; CHUNK_BYTES]) {
        self.0.update(header(b"MR.EXTEND", gpa));
        self.0.update(chunk);
    }

    /// TDH.MR.EXTEND of every chunk of the page at `gpa`.
    pub fn extend_page(&mut self, gpa: u64, page: &[u8; PAGE_BYTES]) {
        let (chunks, _) = page.as_chunks::<CHUNK_BYTES>();
        for (chunk, offset) in chunks.iter().zip((0_u64..).step_by(CHUNK_BYTES)) {
            self.extend(gpa.wrapping_add(offset), chunk);
        }
    }

    /// TDH.MR.FINALIZE.
    pub fn finish(self) -> Digest384 {
        Digest384(self.0.finalize().into())
    }

    fn section(&mut self, section: &TdxSection, image: &[u8], order: PageOrder) {
        let pages = section.mem_size.div_ceil(PAGE_SIZE);
        let gpas = (0..pages).map(|page| section.gpa.wrapping_add(page.wrapping_mul(PAGE_SIZE)));
        if !section.attributes.measures_content() {
            return gpas.for_each(|gpa| self.page_add(gpa));
        }
        // The layout was checked: the content fills the section.
        let (content, _) = section.content(image).as_chunks::<PAGE_BYTES>();
        match order {
            PageOrder::SinglePass => {
                for (gpa, page) in gpas.zip(content) {
                    self.page_add(gpa);
                    self.extend_page(gpa, page);
                }
            }
            PageOrder::TwoPass => {
                gpas.clone().for_each(|gpa| self.page_add(gpa));
                gpas.zip(content).for_each(|(gpa, page)| self.extend_page(gpa, page));
            }
        }
    }
}

/// The 128 bytes that name an operation and its address.
fn header(name: &[u8], gpa: u64) -> [u8; 128] {
    let mut header = [0; 128];
    let fields = name.iter().copied().chain(core::iter::repeat(0)).take(16).chain(gpa.to_le_bytes());
    header.iter_mut().zip(fields).for_each(|(slot, byte)| *slot = byte);
    header
}

/// One section of the firmware as it is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is for.
    pub section_type: TdxSectionType,
    /// The guest physical address of its first page.
    pub gpa: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Whether its content is measured, or only its place.
    pub content_measured: bool,
    /// What MRTD would be if nothing followed.
    pub digest: Digest384,
}

/// MRTD of a guest that starts from this firmware.
pub fn mrtd(firmware: &Firmware<'_>, order: PageOrder) -> Result<Digest384, FirmwareError> {
    let mut mrtd = Mrtd::new();
    for section in &firmware.tdx_layout()?.sections {
        mrtd.section(section, firmware.bytes(), order);
    }
    Ok(mrtd.finish())
}

/// Every section in the order in which it is added; the digest of the last is MRTD.
pub fn steps(firmware: &Firmware<'_>, order: PageOrder) -> Result<Vec<Step>, FirmwareError> {
    let mut mrtd = Mrtd::new();
    let mut step = |section: &TdxSection| {
        mrtd.section(section, firmware.bytes(), order);
        Step {
            section_type: section.section_type,
            gpa: section.gpa,
            size: section.mem_size,
            content_measured: section.attributes.measures_content(),
            digest: mrtd.clone().finish(),
        }
    };
    Ok(firmware.tdx_layout()?.sections.iter().map(&mut step).collect())
}
