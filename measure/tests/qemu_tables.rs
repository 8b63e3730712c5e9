//! What firmware makes of QEMU's tables, against a guest of somebody else; and foreign bytes, which must not hurt.

mod shelf;

use measure::firmware::volumes;
use measure::fw_cfg::FwCfg;
use measure::smbios::{BiosInformation, completed, filtered};
use proptest::prelude::*;

/// A guest of chutesai/tdx-measure: its table less what firmware added is what QEMU gave it.
#[test]
fn firmware_completes_the_smbios_table_of_a_real_guest() {
    let Some(case) = shelf::json("tdx/constants/smbios-filter.json") else { return };
    let table = hex::decode(case["dmi_hex"].as_str().unwrap()).unwrap();
    let vendor = table.windows(7).position(|window| window == b"EDK II\0").unwrap();
    let qemu = [&table[..vendor - 26], &[127, 4, 0, 0x7f, 0, 0]].concat();
    let bios = BiosInformation { vendor: "EDK II", version: "unknown", release_date: "02/02/2022" };
    assert_eq!(completed(&qemu, &bios).unwrap(), table);
    // A table that has a structure of type 0 gets no second one.
    assert_eq!(completed(&table, &bios).unwrap(), table);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let bios = BiosInformation { vendor: "vendor", version: "version", release_date: "date" };
        if let Ok(table) = completed(&bytes, &bios) {
            prop_assert!(filtered(&table).is_ok() || filtered(&bytes).is_err());
        }
        let mut fw_cfg = FwCfg::default();
        for name in FwCfg::NAMES {
            fw_cfg.insert(name, bytes.clone());
        }
        let _ = (fw_cfg.acpi(), fw_cfg.settings());
        let _ = (volumes::packed(&bytes), volumes::digests(&bytes));
    }
}
