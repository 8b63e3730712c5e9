//! Real event logs: they replay to registers that hardware signed, or that their collectors published.

mod shelf;

use measure::Digest384;
use measure::eventlog::{EventLog, EventType, SeparatorRule};
use proptest::prelude::*;

/// RTMR0 to RTMR3 of a quote of version 4: 328 bytes into the TD report body, which follows a header of 48.
fn registers(quote: &[u8]) -> [Digest384; 4] {
    assert_eq!(quote[0], 4);
    [0, 1, 2, 3].map(|register| Digest384(quote[48 + 328 + register * 48..][..48].try_into().unwrap()))
}

#[test]
fn logs_replay_to_signed_registers() {
    let Some(quote) = shelf::bytes("tdx/pairs/gce-cos113/quote.bin") else { return };
    let log = shelf::bytes("tdx/pairs/gce-cos113/ccel.bin").unwrap();
    let log = EventLog::parse(&log).unwrap();
    assert_eq!(log.events.len(), 43);
    assert_eq!(log.replay().unwrap().rtmr, registers(&quote));
    log.check_separators(SeparatorRule::OncePerRegister).unwrap();

    let quote = registers(&shelf::bytes("tdx/pairs/cc-trusted-grub/quote.bin").unwrap());
    let log = shelf::bytes("tdx/pairs/cc-trusted-grub/ccel.bin").unwrap();
    let log = EventLog::parse(&log).unwrap();
    let replayed = log.replay().unwrap().rtmr;
    assert_eq!([replayed[0], replayed[1], replayed[3]], [quote[0], quote[1], quote[3]]);
    // The kernel's IMA extended RTMR2 once after the log ended: `10 DIGEST ima-ng ... boot_aggregate`.
    let ima = String::from_utf8(shelf::bytes("tdx/pairs/cc-trusted-grub/ima_log.bin").unwrap()).unwrap();
    let boot_aggregate = ima.split_whitespace().find_map(Digest384::from_hex);
    assert_eq!(replayed[2].extended(&boot_aggregate.expect("a digest in the IMA log")), quote[2]);
    // Firmware of before edk2 202411.
    assert!(log.check_separators(SeparatorRule::OncePerRegister).is_err());
    log.check_separators(SeparatorRule::TwiceInRtmr0).unwrap();
}

/// What confidential-containers/trustee and google/go-eventlog publish for these logs: the first bytes of RTMR0 to RTMR2.
#[test]
fn logs_replay_to_published_registers() {
    for (path, prefixes) in [
        ("trustee/CCEL_data", ["2dc71230", "0fa3be56", "00000000"]),
        ("trustee/CCEL_data_ovmf", ["8566f998", "775b9f6b", "94eaf7a7"]),
        ("trustee/CCEL_data_grub", ["cec0a104", "6c289e0c", "08919d01"]),
        ("trustee/CCEL_data_gcp", ["33009807", "204d49f7", "00000000"]),
        ("trustee/CCEL_data_grub_gke", ["bc994513", "c17cb288", "334aeba2"]),
        ("go-eventlog/cos-113-intel-tdx-dupe-separator.bin", ["a4de2df2", "0ee9366c", "4969684d"]),
        ("go-eventlog/cos-113-intel-tdx-dupe-separator-unpadded.bin", ["a4de2df2", "0ee9366c", "4969684d"]),
    ] {
        let Some(bytes) = shelf::bytes(&format!("tdx/ccel/{path}")) else { return };
        let rtmr = EventLog::parse(&bytes).unwrap().replay().unwrap().rtmr;
        for (register, prefix) in rtmr.iter().zip(prefixes) {
            assert!(register.to_string().starts_with(prefix), "{path}: {register}, expected {prefix}");
        }
    }
    let Some(bytes) = shelf::bytes("tdx/ccel/trustee/CCEL_AAEL_alibabacloud") else { return };
    let rtmr = EventLog::parse(&bytes).unwrap().replay().unwrap().rtmr;
    assert!(rtmr[3].to_string().starts_with("5e4ecd49"));
}

/// A log of google/go-eventlog whose second separator pretends to end RTMR0's measurements again.
#[test]
fn duplicate_separators_are_refused() {
    let Some(bytes) = shelf::bytes("tdx/ccel/go-eventlog/cos-113-intel-tdx-dupe-separator.bin") else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let error = log.check_separators(SeparatorRule::OncePerRegister).unwrap_err();
    assert_eq!((error.index, error.number), (1, 2));
}

/// Event by event, what the parser of confidential-containers/trustee makes of the same logs; it tells too whether an
/// event's data is what was measured.
#[test]
fn events_are_those_that_trustee_reads() {
    for name in ["CCEL_data", "CCEL_data_ovmf", "CCEL_data_grub", "CCEL_data_grub_gke", "CCEL_AAEL_alibabacloud"] {
        let Some(bytes) = shelf::bytes(&format!("tdx/ccel/trustee/{name}")) else { return };
        let expected = shelf::json(&format!("tdx/ccel/trustee/{name}_out.json")).unwrap();
        let expected = expected["uefi_event_logs"].as_array().unwrap();
        let log = EventLog::parse_lenient(&bytes).unwrap().0;
        assert_eq!(log.events.len(), expected.len(), "{name}");
        for (event, expected) in log.events.iter().zip(expected) {
            let read = (event.index, event.event_type.to_string(), event.sha384().unwrap().to_string());
            let digest = expected["digests"][0]["digest"].as_str().unwrap().to_owned();
            let index = u32::try_from(expected["index"].as_u64().unwrap()).unwrap();
            assert_eq!(read, (index, expected["type_name"].as_str().unwrap().to_owned(), digest), "{name}");
            if let Some(matches) = event.data_matches() {
                assert_eq!(Some(matches), expected["digest_matches_event"].as_bool(), "{name}: {event:?}");
            }
        }
    }
}

/// Event by event with its data, what dstack's parser makes of the log of one of its guests.
#[test]
fn events_are_those_that_dstack_reads() {
    let Some(bytes) = shelf::bytes("dstack/tdx/ccel.bin") else { return };
    let expected = String::from_utf8(shelf::bytes("dstack/tdx/ccel.parsed.snap").unwrap()).unwrap();
    let fields = expected.lines().map(|line| line.trim().trim_end_matches(',')).filter_map(|line| {
        let value =
            line.strip_prefix("imr_index: ").or(line.strip_prefix("event_type: ")).or(line.strip_prefix("event: "));
        Some(value.unwrap_or(line).trim_matches('"')).filter(|_| value.is_some() || line.starts_with('"'))
    });
    let log = EventLog::parse(&bytes).unwrap();
    let read = log.events.iter().flat_map(|event| {
        let numbers = [event.index.to_string(), event.event_type.0.to_string()];
        numbers.into_iter().chain([event.sha384().unwrap().to_string(), hex::encode(event.data)])
    });
    assert_eq!(read.collect::<Vec<_>>(), fields.collect::<Vec<_>>());
}

const LOGS: [&str; 10] = [
    "tdx/pairs/gce-cos113/ccel.bin",
    "tdx/pairs/cc-trusted-grub/ccel.bin",
    "tdx/pairs/dstack-lite/ccel-only-sample-1g.bin",
    "tdx/ccel/go-eventlog/CCEL_unpadded.data.bin",
    "tdx/ccel/go-eventlog/event_log.bin",
    "tdx/ccel/trustee/CCEL_data",
    "tdx/ccel/trustee/CCEL_data_ovmf",
    "tdx/ccel/trustee/CCEL_data_grub",
    "tdx/ccel/trustee/CCEL_data_gcp",
    "tdx/ccel/trustee/CCEL_data_grub_gke",
];

/// Where a type is said to be hashed as logged, it is, in every log.
#[test]
fn event_data_is_what_was_measured() {
    let mut checked = 0;
    for path in LOGS {
        let Some(bytes) = shelf::bytes(path) else { return };
        let log = EventLog::parse(&bytes).unwrap();
        for (number, event) in log.events.iter().enumerate() {
            if let Some(matches) = event.data_matches() {
                assert!(matches, "{path}: event {number} {} {}", event.event_type, event.description());
                checked += 1;
            }
            assert!(event.event_type.name().is_some(), "{path}: event {number} {}", event.event_type);
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn descriptions_name_what_was_measured() {
    let Some(bytes) = shelf::bytes("tdx/ccel/trustee/CCEL_data_ovmf") else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let all: Vec<_> = log.events.iter().map(|e| format!("{} {}", e.event_type, e.description())).collect();
    for expected in
        ["EV_EFI_HANDOFF_TABLES2 TdxTable", "SecureBoot, 0 bytes", "EV_EFI_ACTION Exit Boot Services Invocation"]
    {
        assert!(all.iter().any(|line| line.contains(expected)), "{expected} in {all:#?}");
    }
}

#[test]
fn damage_is_found_or_skipped() {
    let Some(bytes) = shelf::bytes(LOGS[0]) else { return };
    assert!(EventLog::parse(&bytes[..20]).is_err());
    assert!(EventLog::parse_lenient(b"").is_err());
    // Cut in the middle of an event: the strict reader refuses, the lenient one keeps what is whole.
    let second = EventLog::parse(&bytes).unwrap().events[1].offset;
    let cut = &bytes[..second + 20];
    assert!(EventLog::parse(cut).is_err());
    let (log, error) = EventLog::parse_lenient(cut).unwrap();
    assert_eq!(log.events.len(), 1);
    assert!(error.unwrap().to_string().contains(&format!("{second:#x}")));
    // Something after the last event that is no padding.
    let mut tail = bytes.clone();
    *tail.last_mut().unwrap() = 0;
    assert!(EventLog::parse(&tail).is_err());
    assert_eq!(EventLog::parse_lenient(&tail).unwrap().0.events.len(), 43);
    // A register that does not exist.
    let mut bad = bytes.clone();
    bad[second] = 5;
    assert!(EventLog::parse(&bad).unwrap().replay().unwrap_err().to_string().contains("register 5"));
}

#[test]
fn damaged_logs_never_panic() {
    let logs: Vec<_> = LOGS
        .iter()
        .filter_map(|path| shelf::bytes(path))
        .map(|mut b| {
            b.truncate(6000);
            b
        })
        .collect();
    if logs.is_empty() {
        return;
    }
    let damage = proptest::collection::vec((0..6000_usize, any::<u8>()), 0..5);
    let config = ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&(0..logs.len(), damage, 0..6000_usize), |(index, damage, length)| {
            let mut log = logs[index].clone();
            for (offset, byte) in damage {
                let length = log.len();
                log[offset % length] = byte;
            }
            let log = &log[..length.min(log.len())];
            let strict = EventLog::parse(log);
            if let Ok((lenient, error)) = EventLog::parse_lenient(log) {
                let _ = (lenient.replay(), lenient.check_separators(SeparatorRule::OncePerRegister));
                lenient.events.iter().for_each(|event| {
                    let _ = (event.description(), event.data_matches());
                });
                if let Ok(strict) = strict {
                    assert_eq!((strict, None), (lenient, error));
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn types_are_known_by_number() {
    assert_eq!(EventType(0x8000_00e0), EventType::EV_EFI_VARIABLE_AUTHORITY);
    assert_eq!(EventType(0x1234).to_string(), "event type 0x1234");
}
