//! Traces of GPUs that somebody else has recorded.
#![no_main]

use launcher::gpu::access::Function;
use launcher::gpu::observe::observe;
use launcher::gpu::resizable::{MEMORY_BAR, size};
use launcher::gpu::trace::Recorded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(mut recorded) = Recorded::parse(text) else { return };
    let product = recorded.product();
    let _ = observe(&mut recorded, product);
    let _ = size(&mut recorded, MEMORY_BAR);
    // Its clock is made of waits alone, all of which have an end.
    assert!(recorded.now().as_secs() < 600);
});
