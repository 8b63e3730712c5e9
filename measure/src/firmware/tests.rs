//! Contradictions that no real image has, one per error.

use alloc::vec;
use alloc::vec::Vec;

use super::*;

const FOOTER: Guid = Guid::new(0x96b582de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
const SEV: Guid = Guid::new(0xdc886566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);
const TDX: Guid = Guid::new(0xe47a6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);
const RESET: Guid = Guid::new(0x00f771de, 0x1a7e, 0x4fcb, [0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e]);
const HASHES: Guid = Guid::new(0x7255371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);

fn entry(guid: Guid, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 18).unwrap();
    [data, &length.to_le_bytes(), &guid.0].concat()
}

/// An image of 4 KiB whose table has these entries, with `metadata` 2048 bytes before its end.
fn image(entries: &[Vec<u8>], metadata: &[u8]) -> Vec<u8> {
    let mut table = entries.concat();
    let length = u16::try_from(table.len() + 18).unwrap();
    table.extend([&length.to_le_bytes()[..], &FOOTER.0].concat());
    let mut image = vec![0; 4096];
    image[4096 - 32 - table.len()..4096 - 32].copy_from_slice(&table);
    image[2048..2048 + metadata.len()].copy_from_slice(metadata);
    image
}

fn metadata(signature: &[u8; 4], sections: &[Vec<u8>]) -> Vec<u8> {
    let body = sections.concat();
    let words = [u32::try_from(body.len() + 16).unwrap(), 1, u32::try_from(sections.len()).unwrap()];
    [&signature[..], &words.map(u32::to_le_bytes).concat(), &body].concat()
}

fn sev_image(sections: &[[u32; 3]]) -> Vec<u8> {
    let sections: Vec<_> = sections.iter().map(|section| section.map(u32::to_le_bytes).concat()).collect();
    image(&[entry(SEV, &2048_u32.to_le_bytes())], &metadata(b"ASEV", &sections))
}

fn tdx_image(data: [u32; 2], gpa: u64, size: u64, kind: [u32; 2]) -> Vec<u8> {
    let section = [
        data.map(u32::to_le_bytes).concat(),
        [gpa, size].map(u64::to_le_bytes).concat(),
        kind.map(u32::to_le_bytes).concat(),
    ];
    image(&[entry(TDX, &2048_u32.to_le_bytes())], &metadata(b"TDVF", &[section.concat()]))
}

fn sev_error(image: &[u8]) -> FirmwareError {
    Firmware::parse(image).unwrap().sev_layout().unwrap_err()
}

#[test]
fn entries_are_found_whatever_their_order() {
    let image = image(&[entry(RESET, &[1, 2, 3, 0]), entry(Guid([7; 16]), b"")], b"");
    let firmware = Firmware::parse(&image).unwrap();
    assert_eq!(firmware.ap_reset_eip(), Ok(Some(0x0003_0201)));
    assert_eq!(firmware.entry(&Guid([7; 16])), Some(&b""[..]));
    assert_eq!(firmware.entries().len(), 2);
    assert_eq!(firmware.base_gpa(), 0xffff_f000);
}

#[test]
fn no_table_is_an_error_of_its_own() {
    assert_eq!(Firmware::parse(b"").unwrap_err(), FirmwareError::Size { found: 0 });
    for length in [1, 31, 49, 4096] {
        assert!(matches!(Firmware::parse(&vec![0; length]), Err(FirmwareError::NoTable { .. })), "{length}");
    }
}

#[test]
fn damaged_tables_are_refused() {
    let good = image(&[entry(RESET, &[1, 2, 3, 4])], b"");
    let length_at = 4096 - 32 - 18;
    for length in [0, 17, 19, 0xffff] {
        let mut bad = good.clone();
        bad[length_at..length_at + 2].copy_from_slice(&u16::to_le_bytes(length));
        assert!(matches!(Firmware::parse(&bad), Err(FirmwareError::TableLength { .. })), "{length}");
    }
    let mut bad = good;
    bad[length_at - 18] = 200;
    assert!(matches!(Firmware::parse(&bad), Err(FirmwareError::TableLength { length: 200, .. })));
    let twice = image(&[entry(RESET, &[1; 4]), entry(RESET, &[2; 4])], b"");
    assert_eq!(Firmware::parse(&twice).unwrap_err(), FirmwareError::Twice(RESET));
}

#[test]
fn entries_of_a_wrong_length_are_refused() {
    let short = image(&[entry(RESET, &[1; 3]), entry(HASHES, &[1; 7]), entry(SEV, &[1; 5])], b"");
    let firmware = Firmware::parse(&short).unwrap();
    assert!(matches!(firmware.ap_reset_eip(), Err(FirmwareError::EntryLength { length: 3, expected: 4, .. })));
    assert!(matches!(firmware.hash_table_area(), Err(FirmwareError::EntryLength { length: 7, expected: 8, .. })));
    assert!(matches!(firmware.sev_layout(), Err(FirmwareError::EntryLength { length: 5, expected: 4, .. })));
}

#[test]
fn zero_means_absent() {
    let image = image(&[entry(RESET, &[0; 4]), entry(HASHES, &[0; 8])], b"");
    let firmware = Firmware::parse(&image).unwrap();
    assert_eq!((firmware.ap_reset_eip(), firmware.hash_table_area()), (Ok(None), Ok(None)));
    assert!(matches!(firmware.sev_layout(), Err(FirmwareError::Missing { .. })));
    assert!(matches!(firmware.tdx_layout(), Err(FirmwareError::Missing { .. })));
}

#[test]
fn unknown_sev_sections_are_kept_and_reported() {
    let image = sev_image(&[[0x1000, 0x1000, 0x101], [0x2000, 0x1000, 1], [0, 0, 4]]);
    let layout = Firmware::parse(&image).unwrap().sev_layout().unwrap();
    let unknown: Vec<_> = layout.unknown_sections().map(|section| section.section_type).collect();
    assert_eq!(unknown, [SevSectionType(0x101)]);
}

#[test]
fn impossible_sev_sections_are_refused() {
    for (sections, index) in [
        (vec![[0x1001, 0x1000, 1]], 0),
        (vec![[0x1000, 0xfff, 1]], 0),
        (vec![[0xffff_e000, 0x2000, 1]], 0),
        (vec![[0xffff_f000, 0xffff_f000, 1]], 0),
        (vec![[0x1000, 0x2000, 1], [0x2000, 0x1000, 2]], 1),
        (vec![[0x1000, 0x1000, 1], [0x1000, 0x1000, 1]], 1),
    ] {
        let error = sev_error(&sev_image(&sections));
        assert!(
            matches!(error, FirmwareError::Section { index: found, .. } if found == index),
            "{sections:x?}: {error}"
        );
    }
}

#[test]
fn damaged_metadata_is_refused() {
    let good = sev_image(&[[0x1000, 0x1000, 1]]);
    assert!(Firmware::parse(&good).unwrap().sev_layout().is_ok());
    for (offset, bytes) in
        [(0, &b"ASEX"[..]), (4, &[0xff; 4]), (8, &[2, 0, 0, 0]), (12, &[2, 0, 0, 0]), (12, &[0xff; 4])]
    {
        let mut bad = good.clone();
        bad[2048 + offset..2048 + offset + bytes.len()].copy_from_slice(bytes);
        assert!(matches!(sev_error(&bad), FirmwareError::Metadata { .. }), "{offset} {bytes:?}");
    }
    for offset in [0_u32, 15, 4097, u32::MAX] {
        let image = image(&[entry(SEV, &offset.to_le_bytes())], b"");
        assert!(matches!(sev_error(&image), FirmwareError::Metadata { .. }), "{offset}");
    }
}

#[test]
fn tdx_sections_are_checked_as_qemu_does() {
    let read = |image: &[u8]| Firmware::parse(image).unwrap().tdx_layout();
    assert!(read(&tdx_image([0, 0], 0x1000, 0x1000, [3, 0])).is_ok());
    assert!(read(&tdx_image([0, 0x1000], 0x1000, 0x1000, [0, 1])).is_ok());
    for (data, gpa, size, kind) in [
        ([0, 0], 0x1000, 0x1000, [4, 0]),           // a type QEMU does not know
        ([0, 0], 0x1001, 0x1000, [3, 0]),           // not aligned
        ([0, 0], 0x1000, 0xfff, [3, 0]),            // not whole pages
        ([0, 0], u64::MAX - 0xfff, 0x2000, [3, 0]), // beyond the address space
        ([0, 0x1000], 0x1000, 0x1000, [3, 0]),      // content where none belongs
        ([0, 0], 0x1000, 0x1000, [2, 1]),           // measured content that is not known
        ([0, 0], 0x1000, 0x1000, [0, 1]),           // no content
        ([0, 0x1000], 0x1000, 0x2000, [0, 1]),      // content that does not fill it
        ([0x800, 0x1000], 0x1000, 0x1000, [0, 1]),  // content outside the image
        ([0, 0], 0x1000, 0x1000, [3, 2]),           // PAGE_AUG, which QEMU ignores
    ] {
        let error = read(&tdx_image(data, gpa, size, kind)).unwrap_err();
        assert!(matches!(error, FirmwareError::Section { index: 0, .. }), "{kind:?} {error}");
    }
}
