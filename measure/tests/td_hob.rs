//! TD HOB digests by memory size: nine of these values were seen in logs of live guests, from 1 to 256 GiB.

mod shelf;

use measure::firmware::{TdxAttributes, TdxLayout, TdxSection, TdxSectionType};
use measure::tdx::td_hob::{TdHobError, bytes, digest};

/// The sections that matter: those in guest memory.
fn layout(temp_mem: (u64, u64)) -> TdxLayout {
    let section = |gpa, mem_size, section_type| TdxSection {
        data_offset: 0,
        raw_size: 0,
        gpa,
        mem_size,
        section_type,
        attributes: TdxAttributes(0),
    };
    let sections = vec![
        section(temp_mem.0, temp_mem.1, TdxSectionType::TEMP_MEM),
        section(0x80_b000, 0x2000, TdxSectionType::TEMP_MEM),
        section(0x80_9000, 0x2000, TdxSectionType::TD_HOB),
        section(0x80_0000, 0x6000, TdxSectionType::TEMP_MEM),
    ];
    TdxLayout { sections }
}

#[test]
fn digests_by_memory_size() {
    let Some(expected) = shelf::json("tdx/constants/tdhob.json") else { return };
    let mut checked = 0;
    for (name, temp_mem) in [("layout_temp810", (0x81_0000, 0x1_0000)), ("layout_temp811", (0x81_1000, 0xf000))] {
        for (mib, value) in expected[name]["sha384_by_MiB"].as_object().unwrap() {
            let found = digest(&layout(temp_mem), mib.parse().unwrap()).unwrap();
            assert_eq!(found.to_string(), value.as_str().unwrap(), "{name}, {mib} MiB");
            checked += 1;
        }
    }
    assert_eq!(checked, 34);
}

#[test]
fn firmware_that_does_not_fit_is_refused() {
    let layout = layout((0x81_0000, 0x1_0000));
    assert_eq!(bytes(&layout, 8), Err(TdHobError::OutsideMemory { memory_mib: 8, gpa: 0x80_0000 }));
    assert_eq!(bytes(&layout, u64::MAX), Err(TdHobError::TooMuchMemory(u64::MAX)));
    assert_eq!(bytes(&TdxLayout { sections: vec![] }, 2048), Err(TdHobError::NoSection));
}
