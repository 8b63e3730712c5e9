//! Tables that QEMU gives to firmware, the packed part of firmware images, and what firmware starts from disks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use measure::acpi::admission_digest;
use measure::firmware::volumes;
use measure::fw_cfg::FwCfg;
use measure::smbios::{BiosInformation, completed, filtered};
use measure::tdx::unified::UnifiedImage;
use measure::uefi::gpt;

fuzz_target!(|bytes: &[u8]| {
    let bios = BiosInformation { vendor: "vendor", version: "version", release_date: "date" };
    if let Ok(table) = completed(bytes, &bios) {
        // What firmware adds is never what makes a table unreadable.
        assert!(filtered(&table).is_ok() || filtered(bytes).is_err());
    }
    let mut fw_cfg = FwCfg::default();
    for name in FwCfg::NAMES {
        fw_cfg.insert(name, bytes.to_vec());
    }
    let _ = (fw_cfg.acpi(), fw_cfg.settings());
    let third = bytes.len() / 3;
    let (loader, rest) = bytes.split_at(third);
    let (rsdp, tables) = rest.split_at(third);
    let _ = admission_digest(loader, rsdp, tables);
    let _ = (volumes::packed(bytes), volumes::digests(bytes));
    let _ = (gpt::digest(bytes), UnifiedImage::read(bytes));
});
