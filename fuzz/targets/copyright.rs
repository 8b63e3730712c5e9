//! A copyright file of a package: its paragraphs, and the licence synopses in them.
#![no_main]

use image::sbom::{Licence, read_copyright};
use libfuzzer_sys::fuzz_target;

const FORMAT: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/";

/// No part of an expression is empty, and none has one part only.
fn whole(licence: &Licence) -> bool {
    match licence {
        Licence::Name(name) => !name.trim().is_empty(),
        Licence::All(parts) | Licence::Any(parts) => parts.len() > 1 && parts.iter().all(whole),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = read_copyright(&text);
    if let Some(stated) = read_copyright(&format!("{FORMAT}\n\nFiles: *\n{text}")) {
        assert!(!stated.synopses.is_empty() && stated.synopses.iter().all(whole), "{stated:?}");
    }
});
