//! The SMBIOS event of a guest with two sockets, as chutesai/tdx-measure published it.

mod shelf;

use measure::smbios::{SmbiosError, digest, filtered};
use proptest::prelude::*;

fn table() -> Option<(Vec<u8>, String)> {
    let case = shelf::json("tdx/constants/smbios-filter.json")?;
    let text = |key: &str| case[key].as_str().unwrap().to_owned();
    Some((hex::decode(text("dmi_hex")).unwrap(), text("rtmr0_smbios_event_sha384")))
}

#[test]
fn digest_of_a_real_table() {
    let Some((table, expected)) = table() else { return };
    assert_eq!(digest(&table).unwrap().to_string(), expected);
    // Firmware measures up to the end of the table, whatever follows in the area.
    assert_eq!(digest(&[&table[..], &[0; 100]].concat()).unwrap().to_string(), expected);
}

/// A structure, with its header's length set.
fn structure(kind: u8, fields: &[u8], strings: &[u8]) -> Vec<u8> {
    let length = u8::try_from(fields.len() + 4).unwrap();
    [&[kind, length, 0, 1][..], fields, strings].concat()
}

const END: [u8; 6] = [127, 4, 0xff, 0xfe, 0, 0];

#[test]
fn what_differs_between_machines_is_blanked() {
    // Type 1: four strings, UUID, wake-up type; SKU and family stay.
    let fields = [&[1, 2, 3, 4][..], &[0xaa; 16], &[6, 0, 0]].concat();
    let table = [structure(1, &fields, b"maker\0vm\0v1\0serial\0\0"), END.to_vec()].concat();
    let blanked = [&[1, 2, 3, 0][..], &[0; 16], &[0, 0, 0]].concat();
    let expected = [structure(1, &blanked, b"maker\0vm\0v1\0      \0\0"), END.to_vec()].concat();
    assert_eq!(filtered(&table).unwrap(), expected);
    // A shorter structure lacks the later fields.
    let table = [structure(1, &[1, 0, 0, 0], b"maker\0\0"), END.to_vec()].concat();
    assert_eq!(filtered(&table).unwrap(), table);
    // OEM strings and OEM types lose everything; other types nothing.
    let table = [structure(11, &[1], b"secret\0\0"), structure(200, &[7], b"x\0\0"), structure(16, &[7], b"\0\0")];
    let expected = [structure(11, &[0], &[0; 8]), structure(200, &[0], &[0; 3]), structure(16, &[7], b"\0\0")];
    assert_eq!(filtered(&[&table.concat()[..], &END].concat()).unwrap(), [&expected.concat()[..], &END].concat());
}

#[test]
fn damaged_tables_are_refused() {
    assert_eq!(filtered(b""), Err(SmbiosError::NoEnd));
    assert_eq!(filtered(&structure(16, &[7], b"\0\0")), Err(SmbiosError::NoEnd));
    assert_eq!(filtered(&END[..5]), Err(SmbiosError::CutOff(0)));
    assert_eq!(filtered(&[127, 3, 0, 0, 0, 0]), Err(SmbiosError::CutOff(0)));
    let table = [structure(1, &[0, 0, 0, 2], b"one\0\0"), END.to_vec()].concat();
    assert_eq!(filtered(&table), Err(SmbiosError::NoString { offset: 0, string: 2 }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn only_blanking_happens(
        damage in proptest::collection::vec((0..400_usize, any::<u8>()), 0..4),
        length in 0..500_usize,
    ) {
        let Some((mut table, _)) = table() else { return Ok(()) };
        for (offset, byte) in damage {
            let end = table.len();
            table[offset % end] = byte;
        }
        table.truncate(length.max(1));
        if let Ok(filtered) = filtered(&table) {
            prop_assert!(filtered.len() <= table.len());
            let changed = filtered.iter().zip(&table).filter(|(after, before)| after != before);
            prop_assert!(changed.into_iter().all(|(after, _)| [0, b' '].contains(after)));
            prop_assert_eq!(&filtered[..4], &table[..4]);
        }
    }
}
