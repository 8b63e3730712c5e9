//! What a pin has of its image: read from the image, turned back into what `measure` takes, and written as `firmware/pins.toml`
//! has it. With it, launches with a pinned firmware are predicted where the image is not at hand.

use measure::Digest384;
use measure::firmware::{Firmware, HashTableArea, SevLayout, SevSection, SevSectionType, TdxSectionType};
use measure::snp::seed::firmware_digest;
use measure::tdx::mrtd::{PageOrder, mrtd};
use spec::Sha384Digest;
use spec::pins::{HashTable, SnpPart, SnpSection, TdxPart};

/// What a SEV-SNP launch measures of an image; none where it cannot be launched so.
pub(crate) fn snp(firmware: &Firmware<'_>) -> Option<SnpPart> {
    let (layout, digest) = (firmware.sev_layout().ok()?, firmware_digest(firmware).ok()?);
    let section = |section: &SevSection| SnpSection {
        gpa: section.gpa,
        size: section.size,
        section_type: section.section_type.0,
    };
    Some(SnpPart {
        firmware_digest: Sha384Digest(digest.0),
        ap_reset_eip: layout.ap_reset_eip,
        hash_table: layout.hash_table.map(|area| HashTable { gpa: area.base, size: area.size }),
        sections: layout.sections.iter().map(section).collect(),
    })
}

/// What a TDX launch measures of an image; none where it cannot be launched so.
pub(crate) fn tdx(firmware: &Firmware<'_>) -> Option<TdxPart> {
    let layout = firmware.tdx_layout().ok()?;
    let of = |order| mrtd(firmware, order).ok().map(|digest| Sha384Digest(digest.0));
    let store = layout.section(TdxSectionType::CFV)?.content(firmware.bytes());
    Some(TdxPart {
        mrtd: of(PageOrder::SinglePass)?,
        mrtd_two_pass: of(PageOrder::TwoPass)?,
        variable_store: Sha384Digest(Digest384::of(store).0),
    })
}

/// The sections that a pin has.
pub(crate) fn layout(part: &SnpPart) -> SevLayout {
    let section = |section: &SnpSection| SevSection {
        gpa: section.gpa,
        size: section.size,
        section_type: SevSectionType(section.section_type),
    };
    SevLayout {
        sections: part.sections.iter().map(section).collect(),
        hash_table: part.hash_table.map(|area| HashTableArea { base: area.gpa, size: area.size }),
        ap_reset_eip: part.ap_reset_eip,
    }
}

/// Both parts as lines of a `[[firmware]]` entry.
pub(crate) fn lines(snp: Option<&SnpPart>, tdx: Option<&TdxPart>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(snp) = snp {
        lines.extend(["[firmware.snp]".to_owned(), format!("firmware_digest = \"{}\"", snp.firmware_digest)]);
        lines.extend(snp.ap_reset_eip.map(|eip| format!("ap_reset_eip = {eip:#x}")));
        lines.extend(
            snp.hash_table
                .map(|HashTable { gpa, size }| format!("hash_table = {{ gpa = {gpa:#x}, size = {size:#x} }}")),
        );
        lines.push("sections = [".to_owned());
        lines.extend(snp.sections.iter().map(|SnpSection { gpa, size, section_type }| {
            format!("    {{ gpa = {gpa:#x}, size = {size:#x}, type = {section_type:#x} }},")
        }));
        lines.push("]".to_owned());
    }
    if let Some(tdx) = tdx {
        lines.push("[firmware.tdx]".to_owned());
        lines.push(format!("mrtd = \"{}\"", tdx.mrtd));
        lines.push(format!("mrtd_two_pass = \"{}\"", tdx.mrtd_two_pass));
        lines.push(format!("variable_store = \"{}\"", tdx.variable_store));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the pins have is read back as what the image has: both ways end at the same text.
    #[test]
    fn lines_are_those_of_the_pins() {
        let pins = crate::inputs::pins().unwrap();
        let text = include_str!("../../../firmware/pins.toml");
        let mut seen = (0, 0);
        for pin in &pins.firmware {
            let lines = lines(pin.snp.as_ref(), pin.tdx.as_ref()).join("\n");
            assert!(text.contains(&lines), "{}", pin.name);
            seen = (seen.0 + usize::from(pin.snp.is_some()), seen.1 + usize::from(pin.tdx.is_some()));
        }
        assert!(seen.0 > 0 && seen.1 > 0);
    }
}
