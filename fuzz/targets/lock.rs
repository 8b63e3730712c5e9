//! A lock that is accepted comes back from its own text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(lock) = spec::lock::Lock::parse("x.lock", text)
        && let Ok(written) = lock.to_text()
    {
        assert_eq!(spec::lock::Lock::parse("x.lock", &written).as_ref(), Ok(&lock));
    }
});
