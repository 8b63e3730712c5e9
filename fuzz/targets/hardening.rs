//! Hardening tables, and kernel configurations that are held beside them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spec::hardening::{Configuration, Hardening};

fuzz_target!(|texts: (&str, &str)| {
    let configuration = Configuration::parse("config", texts.0);
    let table = Hardening::parse("hardening.toml", texts.1);
    if let (Ok(configuration), Ok(table)) = (configuration, table) {
        for deviation in table.deviations(&configuration) {
            assert_ne!(deviation.expected, deviation.found);
            assert_eq!(configuration.value(&deviation.name), deviation.found);
        }
    }
});
