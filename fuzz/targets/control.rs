//! Debian control data: paragraphs, fields, relations between packages, versions.
#![no_main]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the modules are private in their crate and taken from archive/src as they are"
)]

use libfuzzer_sys::fuzz_target;

#[rustfmt::skip]
#[path = "../../archive/src/control.rs"]
mod control;
#[rustfmt::skip]
#[path = "../../archive/src/relation.rs"]
mod relation;
#[rustfmt::skip]
#[path = "../../archive/src/version.rs"]
mod version;

fuzz_target!(|text: &str| {
    for paragraph in control::paragraphs(text) {
        let mut before: Option<&str> = None;
        for (name, value) in paragraph.fields() {
            assert!(paragraph.get(name).is_some(), "a field that is listed is found");
            let _ = (relation::parse(value), spec::release_date::parse(value));
            if let Some(before) = before {
                assert_eq!(version::compare(before, value), version::compare(value, before).reverse());
            }
            before = Some(value);
        }
    }
});
