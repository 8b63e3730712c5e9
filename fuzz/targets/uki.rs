//! The reader of PE images and the writer of unified kernel images: any bytes as stub and as kernel.
#![no_main]

use image::uki::{Parts, build};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (stub, kernel) = bytes.split_at(bytes.len() / 2);
    for (stub, kernel) in [(bytes, bytes), (stub, kernel)] {
        let parts = Parts {
            stub,
            os_release: None,
            command_line: "quiet",
            kernel_version: "1",
            kernel,
            initrd: b"initrd",
        };
        if let Ok(image) = build(&parts) {
            assert!(image.len() > stub.len(), "the sections are in it");
        }
    }
});
