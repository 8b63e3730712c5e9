//! UEFI variable stores: as they come, and behind volume and store headers that are right (UEFI PI 1.8, volume 3, 3.2.1;
//! edk2, MdeModulePkg/Include/Guid/VariableFormat.h).
#![no_main]

use libfuzzer_sys::fuzz_target;
use measure::uefi::VariableStore;

/// Smaller than any real one, so that many are tried in a second.
const VOLUME: usize = 0x2000;
const STORE: usize = 0x1800;
/// EFI_SYSTEM_NV_DATA_FV_GUID and EFI_AUTHENTICATED_VARIABLE_GUID as they lie in memory.
const VOLUME_GUID: [u8; 16] =
    [0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c, 0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50];
const STORE_GUID: [u8; 16] =
    [0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92];

/// An image with `bytes` as the first variables of its store.
fn image(bytes: &[u8]) -> Vec<u8> {
    let mut volume = [&[0; 16][..], &VOLUME_GUID, &(VOLUME as u64).to_le_bytes(), b"_FVH"].concat();
    volume.extend([0xff, 0xfe, 0x04, 0x00, 72, 0, 0, 0, 0, 0, 0, 2]);
    volume.extend([0x84, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let sum = volume.as_chunks::<2>().0.iter().fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
    volume[0x32..0x34].copy_from_slice(&0_u16.wrapping_sub(sum).to_le_bytes());
    volume.extend(STORE_GUID);
    volume.extend(u32::try_from(STORE - 72).unwrap_or(0).to_le_bytes());
    volume.extend([0x5a, 0xfe, 0, 0, 0, 0, 0, 0]);
    volume.extend(&bytes[..bytes.len().min(STORE / 2)]);
    volume.resize(VOLUME, 0xff);
    volume
}

fn read(image: &[u8]) {
    let Ok(store) = VariableStore::parse(image) else { return };
    let kept = store.retain(|_| true);
    assert_eq!(kept.len(), image.len(), "the size never changes");
    let again = VariableStore::parse(&kept).expect("what was written can be read");
    let all = |store: &VariableStore<'_>| -> Vec<_> {
        store.variables().iter().map(|v| (v.vendor, v.name.clone(), v.attributes, v.data.to_vec())).collect()
    };
    assert_eq!(all(&again), all(&store));
    assert!(!VariableStore::parse(&store.without_keys()).expect("a store").has_keys());
}

/// Variables with headers that fit: for each, state, sizes of name and value, then as many bytes.
fn variables(mut bytes: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    while let Some(([state, name, value], rest)) = bytes.split_first_chunk::<3>() {
        let (name, value) = (usize::from(*name % 32) * 2, usize::from(*value));
        let Some((content, rest)) = rest.split_at_checked(name + value) else { break };
        let state = if state % 8 < 6 { 0x3f - state % 2 } else { *state };
        stored.extend([0xaa, 0x55, state, 0, 7, 0, 0, 0]);
        stored.extend([0; 28]);
        stored.extend([u32::try_from(name), u32::try_from(value)].map(|size| size.unwrap_or(0).to_le_bytes()).concat());
        stored.extend([content.first().copied().unwrap_or(0); 16]);
        stored.extend(content);
        stored.resize(stored.len().next_multiple_of(4), 0xff);
        bytes = rest;
    }
    stored
}

fuzz_target!(init: assert!(VariableStore::parse(&image(&[])).is_ok()), |bytes: &[u8]| {
    read(bytes);
    read(&image(bytes));
    read(&image(&variables(bytes)));
});
