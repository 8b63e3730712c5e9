//! SBAT (UEFI shim `SBAT.md`): the lines by which a stub, a kernel and this sort of image can be revoked, merged into one
//! section as `merge_sbat` of ukify does.

use super::pe::Pe;

/// The section's name.
pub(super) const SECTION: &str = ".sbat";

/// The first line of every SBAT.
const HEADER: &str = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md";

/// What ukify 257 adds for unified kernel images.
const UKI: &str = "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/";

/// The lines of all `images`, and the one of unified kernel images, under one header.
pub(super) fn merge<'a>(images: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut lines: Vec<&str> = images.into_iter().flat_map(lines_of).collect();
    lines.push(UKI);
    format!("{HEADER}\n{}\n\0", lines.join("\n"))
}

/// The lines below the header of an image's SBAT; none where it has no SBAT that can be read.
fn lines_of(image: &[u8]) -> Vec<&str> {
    let section = Pe::parse(image).ok().and_then(|pe| pe.section(SECTION));
    let text = section.and_then(|content| std::str::from_utf8(content).ok()).unwrap_or_default();
    let mut lines = text.trim_end_matches('\0').lines();
    match lines.next() {
        Some(first) if first.starts_with("sbat,") => lines.collect(),
        _ => Vec::new(),
    }
}
