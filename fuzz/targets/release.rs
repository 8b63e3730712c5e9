//! An envelope that is accepted comes back from its own text and opens for no key; a release has a canonical form that
//! means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sign::Envelope;
use spec::release::{PAYLOAD_TYPE, Statement};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = Envelope::parse("x", bytes) {
        assert!(envelope.open("x", PAYLOAD_TYPE, &[]).is_err());
        let written = envelope.to_bytes().expect("an envelope has no numbers");
        assert_eq!(Envelope::parse("x", &written).expect("its own text"), envelope);
    }
    if let Ok(statement) = Statement::parse("x", bytes) {
        let written = statement.to_bytes().expect("its numbers are small");
        assert_eq!(Statement::parse("x", &written).expect("its own text"), statement);
    }
});
