//! What bullion-guest reads before it trusts anything: the kernel command line, its module list, what the
//! kernel says of partitions, and lines from the host.
//! Where the stream of the host is cut does not matter.
#![no_main]
#![allow(dead_code, reason = "the modules are private in their crate and taken from guest/src as they are")]

use libfuzzer_sys::fuzz_target;

#[rustfmt::skip]
#[path = "../../guest/src/command_line.rs"]
mod command_line;
#[rustfmt::skip]
#[path = "../../guest/src/lines.rs"]
mod lines;
#[rustfmt::skip]
#[path = "../../guest/src/module_list.rs"]
mod module_list;
#[rustfmt::skip]
#[path = "../../guest/src/uevent.rs"]
mod uevent;

fn cut(chunks: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let mut lines = lines::Lines::default();
    let mut found = Vec::new();
    for chunk in chunks {
        lines.push(chunk, |line| found.push(line.ok().map(<[u8]>::to_vec)));
    }
    found
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (command_line::parse(text), module_list::parse(text), uevent::partition_uuid(text));
    }
    let (at, stream) = bytes.split_first().unwrap_or((&0, bytes));
    let (a, b) = stream.split_at(usize::from(*at).min(stream.len()));
    assert_eq!(cut(&[a, b]), cut(&[stream]));
});
