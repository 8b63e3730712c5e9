//! Streams that the host does not control, cut into lines: where the stream is cut does not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the module is private in its crate and taken from launcher/src as it is")]
#[rustfmt::skip]
#[path = "../../launcher/src/lines.rs"]
mod lines;

use lines::{Line, Lines};

const LIMIT: usize = 16;

fn cut(chunks: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
    let mut lines = Lines::new(LIMIT);
    let mut found = Vec::new();
    for chunk in chunks {
        lines.feed(chunk, |line| {
            found.push(match line {
                Line::Whole(bytes) => Some(bytes.to_vec()),
                Line::TooLong => None,
            });
        });
        assert!(lines.rest().len() <= LIMIT);
    }
    found
}

fuzz_target!(|bytes: &[u8]| {
    let (at, stream) = bytes.split_first().unwrap_or((&0, bytes));
    let (a, b) = stream.split_at(usize::from(*at).min(stream.len()));
    assert_eq!(cut(&[a, b]), cut(&[stream]));
});
