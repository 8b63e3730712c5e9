//! Firmware pins.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = spec::pins::Pins::parse("pins.toml", text);
});
