//! Maintainer scripts: what is left of one after what is recognised was taken off is made of the script's own words.
#![no_main]

use image::scripts::rest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| {
    let (kind, text) = input;
    let names = ["postinst", "preinst", "triggers", "config", "postrm"];
    let name = names[usize::from(kind) % names.len()];
    let (left, _) = rest(name, text);
    // A shell joins such lines; a list of triggers has none.
    let joined = if name == "triggers" { text.to_owned() } else { text.replace("\\\n", " ") };
    let mut words = joined.split_whitespace();
    for word in left.split_whitespace() {
        assert!(words.any(|other| other == word), "{word:?} is not in the script, or not there");
    }
});
