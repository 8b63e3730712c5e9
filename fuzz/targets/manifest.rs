//! A manifest that is accepted has a canonical form that means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::manifest::Manifest;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse("manifest.json", bytes)
        && let Ok(written) = manifest.to_bytes()
    {
        assert_eq!(Manifest::parse("manifest.json", &written).as_ref(), Ok(&manifest));
    }
});
