//! OVMF images: as they come, and with a table and metadata headers that fit, which no fuzzer guesses, so that it can
//! get at sections and their contents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use measure::firmware::Firmware;

/// GUIDs of the table as they lie in an image (edk2, OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm): the footer, and
/// the entries that say where SEV metadata, TDX metadata, the hash table and the first instruction of an AP are.
const FOOTER: [u8; 16] = guid(0x96b5_82de, 0x1fb2, 0x45f7, [0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d]);
const SEV: [u8; 16] = guid(0xdc88_6566, 0x984a, 0x4798, [0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc]);
const TDX: [u8; 16] = guid(0xe47a_6535, 0x984a, 0x4798, [0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2]);
const HASHES: [u8; 16] = guid(0x7255_371f, 0x3a3b, 0x4b04, [0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54]);
const AP_RESET: [u8; 16] = guid(0x00f7_71de, 0x1a7e, 0x4fcb, [0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e]);
/// What follows the table.
const RESET_VECTOR: [u8; 32] = [0; 32];

const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

/// Metadata with a header that fits the whole sections in `bytes`.
fn metadata(signature: &[u8; 4], bytes: &[u8], section: usize) -> Vec<u8> {
    let count = bytes.len() / section;
    let sections = &bytes[..count * section];
    [signature, &number(16 + sections.len())[..], &number(1), &number(count), sections].concat()
}

fn entry(guid: &[u8; 16], data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 18).unwrap_or(0);
    [data, &length.to_le_bytes(), guid].concat()
}

/// An image of `space`, metadata and a table. The fuzzer chooses what the entries for hashes and APs say.
fn image(space: &[u8], sev: &[u8], tdx: &[u8], hashes: &[u8; 8], ap: &[u8; 4]) -> Vec<u8> {
    let (sev, tdx) = (metadata(b"ASEV", sev, 12), metadata(b"TDVF", tdx, 32));
    let fixed = [entry(&HASHES, hashes), entry(&AP_RESET, ap)].concat();
    let table = fixed.len() + 2 * (4 + 18);
    let after = table + 18 + RESET_VECTOR.len();
    let places =
        [entry(&SEV, &number(after + tdx.len() + sev.len())), entry(&TDX, &number(after + tdx.len()))].concat();
    let footer = entry(&FOOTER, &[&fixed[..], &places].concat());
    [space, &sev, &tdx, &footer, &RESET_VECTOR].concat()
}

/// Reads all there is; says whether the image was accepted.
fn read(image: &[u8]) -> bool {
    let Ok(firmware) = Firmware::parse(image) else { return false };
    let _ = (firmware.hash_table_area(), firmware.ap_reset_eip());
    if let Ok(layout) = firmware.sev_layout() {
        assert!(layout.unknown_sections().count() <= layout.sections.len());
    }
    if let Ok(layout) = firmware.tdx_layout() {
        assert!(layout.sections.iter().all(|section| section.content(image).len() <= image.len()));
    }
    true
}

fuzz_target!(|bytes: &[u8]| {
    let _ = read(bytes);
    if let Some((head, rest)) = bytes.split_first_chunk::<14>() {
        let (hashes, more) = head.split_first_chunk::<8>().expect("eight of 14 bytes");
        let (ap, cuts) = more.split_first_chunk::<4>().expect("four of six bytes");
        let (sev, rest) = rest.split_at(usize::from(cuts[0]).min(rest.len()));
        let (tdx, space) = rest.split_at(usize::from(cuts[1]).min(rest.len()));
        assert!(read(&image(space, sev, tdx, hashes, ap)), "the table fits, so it is accepted");
    }
});
