//! Authenticode digests: of generated images against crate `goblin`, and of signed kernels against what their own signature
//! says, where the variable BULLION_KERNELS names a folder of them (Debian's are signed).

mod shelf;

use measure::Digest384;
use measure::authenticode::streamed::Hasher;
use measure::authenticode::{hashed_parts, sha256, sha384};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Image {
    /// Sizes of the sections in eights of bytes, and in which order the table lists them.
    sections: Vec<u32>,
    reversed: bool,
    certificate: u32,
    trailing: u32,
    fill: u8,
}

const HEADERS_SIZE: usize = 0x400;
const PE_AT: usize = 0x40;
const OPTIONAL_AT: usize = PE_AT + 24;
const DIRECTORY_AT: usize = OPTIONAL_AT + 112;

fn put(image: &mut [u8], offset: usize, value: &[u8]) {
    image[offset..offset + value.len()].copy_from_slice(value);
}

/// A PE32+ image as a linker and a signing tool would leave it.
fn build(shape: &Image) -> Vec<u8> {
    let mut image = vec![0; HEADERS_SIZE];
    let count = u16::try_from(shape.sections.len()).unwrap();
    put(&mut image, 0, b"MZ");
    put(&mut image, 0x3c, &0x40_u32.to_le_bytes());
    put(&mut image, PE_AT, b"PE\0\0\x64\x86");
    put(&mut image, PE_AT + 6, &count.to_le_bytes());
    put(&mut image, PE_AT + 20, &[240, 0, 0x06, 0x02]);
    put(&mut image, OPTIONAL_AT, &0x20b_u16.to_le_bytes());
    // Alignment of sections in memory and in the file, size of the image and of its headers, and a checksum.
    for (offset, value) in [(32, 0x1000), (36, 8), (56, 0x10_0000), (60, 0x400), (64, 0x1234_5678), (108, 16)] {
        put(&mut image, OPTIONAL_AT + offset, &u32::to_le_bytes(value));
    }
    let mut table = vec![];
    for (index, eights) in shape.sections.iter().enumerate() {
        let size = eights * 8;
        let place = if size == 0 { 0 } else { u32::try_from(image.len()).unwrap() };
        let address = 0x1000 * (u32::try_from(index).unwrap() + 1);
        let words = [0x7865_742e, u32::from(b't'), size, address, size, place, 0, 0, 0, 0x6000_0020];
        table.push(words.map(u32::to_le_bytes).concat());
        let fill = shape.fill.wrapping_add(u8::try_from(index).unwrap());
        image.resize(image.len() + size as usize, fill);
    }
    if shape.reversed {
        table.reverse();
    }
    put(&mut image, OPTIONAL_AT + 240, &table.concat());
    image.resize(image.len() + shape.trailing as usize * 8, 0xee);
    if shape.certificate > 0 {
        // WIN_CERTIFICATE: length, revision 2, type PKCS 7.
        let size = shape.certificate * 8;
        let directory = [u32::try_from(image.len()).unwrap(), size].map(u32::to_le_bytes).concat();
        put(&mut image, DIRECTORY_AT + 32, &directory);
        image.extend([size.to_le_bytes(), [0, 2, 2, 0]].concat());
        image.resize(image.len() + size as usize - 8, 0xcc);
    }
    image
}

fn image() -> impl Strategy<Value = Image> {
    let sections = proptest::collection::vec(prop_oneof![1 => Just(0_u32), 4 => 1..600_u32], 0..6);
    let certificate = prop_oneof![Just(0), 2..100_u32];
    (sections, any::<bool>(), certificate, 0..50_u32, any::<u8>()).prop_map(
        |(sections, reversed, certificate, trailing, fill)| Image { sections, reversed, certificate, trailing, fill },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_goblin(shape in image()) {
        let image = build(&shape);
        let parsed = goblin::pe::PE::parse(&image).unwrap();
        let parts: Vec<_> = parsed.authenticode_ranges().collect();
        prop_assert_eq!(sha384(&image).unwrap(), Digest384::of_parts(&parts));
    }

    /// Whatever pieces it comes in; images whose table is in another order than the file too, because the parts are sorted.
    #[test]
    fn pieces_give_the_digest_of_the_whole(shape in image(), piece in 1..3000_usize) {
        let image = build(&shape);
        let mut hasher = Hasher::new(&image[..HEADERS_SIZE], image.len()).unwrap().unwrap();
        image.chunks(piece).for_each(|piece| hasher.update(piece));
        let parsed = goblin::pe::PE::parse(&image).unwrap();
        let parts: Vec<_> = parsed.authenticode_ranges().collect();
        prop_assert_eq!(hasher.clone().finish(), Some(Digest384::of_parts(&parts)));
        hasher.update(b"more");
        prop_assert_eq!(hasher.finish(), None);
    }

    #[test]
    fn damaged_images_never_panic(
        shape in image(),
        damage in proptest::collection::vec((0..0x200_usize, any::<u8>()), 0..6),
        length in 0..0x500_usize,
    ) {
        let mut image = build(&shape);
        for (offset, byte) in damage {
            image[offset] = byte;
        }
        let _ = sha384(&image);
        let _ = sha384(&image[..length.min(image.len())]);
        if let Ok(Some(mut hasher)) = Hasher::new(&image[..length.min(image.len())], image.len()) {
            image.chunks(100).for_each(|piece| hasher.update(piece));
            let _ = hasher.finish();
        }
    }
}

#[test]
fn only_checksum_and_certificates_are_left_out() {
    let shape = Image { sections: vec![10, 20], reversed: false, certificate: 5, trailing: 3, fill: 1 };
    let image = build(&shape);
    let digest = sha384(&image).unwrap();
    let hashed: usize = hashed_parts(&image).unwrap().iter().map(|part| part.len()).sum();
    assert_eq!(hashed, image.len() - 4 - 8 - 5 * 8);
    let unsigned = image.len() - 5 * 8;
    for offset in 0..image.len() {
        let mut changed = image.clone();
        changed[offset] ^= 0x10;
        let skipped = (OPTIONAL_AT + 64..OPTIONAL_AT + 68).contains(&offset)
            || (DIRECTORY_AT + 32..DIRECTORY_AT + 36).contains(&offset)
            || offset >= unsigned;
        assert_eq!(sha384(&changed).is_ok_and(|other| other == digest), skipped, "offset {offset:#x}");
    }
}

/// The signature in a kernel holds the Authenticode SHA-256 of that kernel.
#[test]
fn signed_kernels_say_their_own_digest() {
    let Some(folder) = shelf::kernels() else { return };
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let kernel = std::fs::read(&path).unwrap();
        let digest = sha256(&kernel).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(kernel.windows(32).any(|window| window == digest.0), "{}: {digest}", path.display());
        let version = measure::linux::version(&kernel).unwrap();
        assert!(path.to_string_lossy().contains(version), "{}: {version}", path.display());
    }
}
