//! Real firmware, whole and damaged, through every reader of firmware: no panic, and what is read is what is there.

mod shelf;

use measure::firmware::{Firmware, SevSectionType, TdxSectionType};
use measure::snp::{Seed, profile, seed};
use proptest::prelude::*;

/// Reads everything that can be read of an image. The digest over the image itself is left out: it takes no decision.
fn read_all(image: &[u8]) {
    let Ok(firmware) = Firmware::parse(image) else { return };
    let _ = (firmware.hash_table_area(), firmware.ap_reset_eip());
    if let Ok(layout) = firmware.sev_layout() {
        let pages: u64 = layout.sections.iter().map(|section| u64::from(section.size)).sum();
        // Damage can make sections of gigabytes; hashing those takes long and shows nothing new.
        if pages < 1 << 24 {
            let _ = Seed::new(measure::Digest384::ZERO, &layout, None, &profile::EC2);
        }
    }
    if let Ok(layout) = firmware.tdx_layout() {
        for section in &layout.sections {
            assert_eq!(section.content(image).len() as u64, u64::from(section.raw_size));
        }
    }
}

#[test]
fn every_image_is_read() {
    for path in shelf::IMAGES {
        let Some(image) = shelf::bytes(path) else { return };
        let firmware = Firmware::parse(&image).unwrap();
        read_all(&image);
        let layout = firmware.sev_layout().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(layout.unknown_sections().count(), 0, "{path}");
        assert!(layout.ap_reset_eip.is_some(), "{path}");
        assert_eq!(seed::firmware_digest(&firmware).is_ok(), image.len() % 4096 == 0, "{path}");
    }
}

#[test]
fn debian_amdsev_has_the_sections_its_package_was_built_with() {
    let Some(image) = shelf::bytes(shelf::IMAGES[0]) else { return };
    let layout = Firmware::parse(&image).unwrap().sev_layout().unwrap();
    let listed: Vec<_> = layout.sections.iter().map(|s| (s.gpa, s.size, s.section_type.0)).collect();
    assert_eq!(
        listed,
        [
            (0x80_0000, 0x9000, 1),
            (0x80_a000, 0x3000, 1),
            (0x80_d000, 0x1000, 2),
            (0x80_e000, 0x1000, 3),
            (0x80_f000, 0x1000, 4),
            (0x81_1000, 0x1_f000, 1),
            (0x81_0000, 0x1000, 0x10),
        ]
    );
    assert_eq!(layout.ap_reset_eip, Some(0x80_b004));
    assert_eq!(layout.hash_table.map(|area| (area.base, area.size)), Some((0x81_0c00, 0x400)));
    assert!(layout.has_kernel_hashes_page());
}

/// IntelTdxX64 builds have no place for kernel hashes, and sections of no size at address 0.
#[test]
fn debian_inteltdx_has_empty_sections() {
    let Some(image) = shelf::bytes(shelf::IMAGES[4]) else { return };
    let firmware = Firmware::parse(&image).unwrap();
    let layout = firmware.sev_layout().unwrap();
    let empty: Vec<_> = layout.sections.iter().filter(|s| s.size == 0).map(|s| (s.gpa, s.section_type)).collect();
    assert_eq!(empty, [(0, SevSectionType::SVSM_CAA), (0, SevSectionType::SNP_SEC_MEM)]);
    assert!(!layout.has_kernel_hashes_page());
    let tdx = firmware.tdx_layout().unwrap();
    assert_eq!(tdx.section(TdxSectionType::BFV).map(|s| (s.gpa, s.mem_size)), Some((0xffc8_4000, 0x37_c000)));
    assert_eq!(tdx.section(TdxSectionType::CFV).map(|s| (s.gpa, s.mem_size)), Some((0xffc0_0000, 0x8_4000)));
}

/// The last 8 KiB hold the table and all metadata of every image seen.
const TAIL: usize = 8192;

/// The end of an image, and where in it the metadata is: damage elsewhere is not looked at by any parser.
fn tails() -> Vec<Vec<u8>> {
    let tail = |image: Vec<u8>| image[image.len().saturating_sub(TAIL)..].to_vec();
    shelf::IMAGES.iter().filter_map(|path| shelf::bytes(path)).map(tail).collect()
}

#[test]
fn damaged_images_never_panic() {
    let tails = tails();
    if tails.is_empty() {
        return;
    }
    let damage = proptest::collection::vec((0..3000_usize, prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 1..6);
    let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let strategy = (0..tails.len(), damage, prop_oneof![Just(TAIL), 0..TAIL]);
    runner
        .run(&strategy, |(index, damage, length)| {
            let mut image = tails[index].clone();
            let end = image.len();
            for (from_end, byte) in damage {
                image[end - 1 - from_end.min(end - 1)] = byte;
            }
            read_all(&image[end - length.min(end)..]);
            Ok(())
        })
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes_never_panic(image in proptest::collection::vec(any::<u8>(), 0..512)) {
        read_all(&image);
    }
}
