//! Console output of a guest on its way to a terminal: no control sequence of its own comes through.
#![no_main]

use launcher::screen::TerminalGuard;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let shown = TerminalGuard::default().filter(bytes);
    assert!(shown.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control()), "{shown:?}");
});
