//! TCG event logs: as they come, and behind a first event that is right, which no fuzzer guesses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use measure::eventlog::EventLog;

/// EV_NO_ACTION with TCG_EfiSpecIDEvent (PC Client Platform Firmware Profile 1.06, 10.4.5.1): SHA-384 only.
fn spec_id() -> Vec<u8> {
    let id = [b"Spec ID Event03\0", &[0; 4][..], &[0, 2, 0, 2], &1_u32.to_le_bytes(), &[0x0c, 0, 48, 0], &[0]].concat();
    let length = u32::try_from(id.len()).unwrap_or(0).to_le_bytes();
    [&0_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), &[0; 20], &length, &id].concat()
}

/// Reads all there is; says whether the first event was accepted.
fn read(bytes: &[u8]) -> bool {
    let lenient = EventLog::parse_lenient(bytes);
    let Ok((log, damage)) = lenient else {
        assert!(EventLog::parse(bytes).is_err());
        return false;
    };
    for event in &log.events {
        let _ = (event.description(), event.variable(), event.tag(), event.data_matches());
        assert!(event.offset < bytes.len());
    }
    let _ = log.replay();
    if damage.is_some() {
        assert!(EventLog::parse(bytes).is_err(), "strict forgives no more than lenient");
    }
    true
}

fuzz_target!(|bytes: &[u8]| {
    let _ = read(bytes);
    assert!(read(&[&spec_id(), bytes].concat()), "the first event is right");
});
