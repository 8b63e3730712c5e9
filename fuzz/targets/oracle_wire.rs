//! What QEMU says through qtest: fw_cfg's directory, and lines of its trace.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// What the module takes from its neighbours.
mod error {
    #[derive(Debug)]
    pub(crate) enum OracleError {
        NoFile(&'static str),
    }
}
mod fw_cfg {
    pub(crate) const MAX_BYTES: u64 = 1 << 20;
}
#[allow(dead_code, reason = "the module is private in its crate and taken from launcher/src as it is")]
#[rustfmt::skip]
#[path = "../../launcher/src/qemu/oracle/wire.rs"]
mod wire;

fuzz_target!(|bytes: &[u8]| {
    let directory = wire::Directory::parse(bytes);
    for entry in bytes.chunks_exact(wire::ENTRY_BYTES as usize) {
        let name = entry[8..].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        // The last entry of a name counts, and none is larger than what is read.
        assert!(directory.find(&name).is_none_or(|found| u64::from(found.size) <= fw_cfg::MAX_BYTES));
    }
    if let Err(error::OracleError::NoFile(name)) = directory.key("etc/acpi/tables") {
        assert_eq!(directory.find(name), None);
    }
    let text = String::from_utf8_lossy(bytes);
    if let Some(key) = wire::selected(&text) {
        assert!(text.contains("fw_cfg_select "), "{key:#x}");
    }
});
