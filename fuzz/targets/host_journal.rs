//! Journals of changes to a host: whatever is accepted comes back from its own text.
#![no_main]

use launcher::host::prepare::Journal;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(journal) = Journal::parse(text) {
        let again = serde_json::to_string(&journal).expect("a journal has a text");
        assert_eq!(Journal::parse(&again), Ok(journal));
    }
});
