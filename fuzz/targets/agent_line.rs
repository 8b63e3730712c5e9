//! Lines of the agent protocol, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::agent::{Event, Reply, Request};

fuzz_target!(|line: &[u8]| {
    let _ = serde_json::from_slice::<Request>(line);
    let _ = serde_json::from_slice::<Reply>(line);
    let _ = serde_json::from_slice::<Event>(line);
});
