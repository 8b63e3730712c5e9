//! The configuration disk as the guest reads it: as it comes, and with a header that fits, which no fuzzer guesses.
//! Whatever is accepted is the canonical form of what it means.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::guest_config::GuestConfig;

fuzz_target!(|bytes: &[u8]| {
    let _ = GuestConfig::from_disk(bytes);
    let mut disk = b"BULLIONC".to_vec();
    disk.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    disk.extend_from_slice(bytes);
    if let Ok(config) = GuestConfig::from_disk(&disk) {
        assert_eq!(config.canonical_bytes().expect("a canonical form"), bytes);
    }
});
