//! A unified kernel image started from a disk, against the log of a TDX guest in somebody else's cloud. The log has digests of
//! files that nobody published; which events there are, their order and the partition table's digest are predicted.

mod shelf;

use measure::eventlog::{EventLog, EventType};
use measure::tdx::unified::{Start, UnifiedImage};
use measure::tdx::{profile, registers};
use measure::uefi::gpt::{GptError, digest};
use proptest::prelude::*;

/// The disk that such an event is about: its data is the header, a count, and the entries that are used.
fn disk(event_data: &[u8]) -> Vec<u8> {
    let (header, rest) = event_data.split_at(92);
    let mut disk = vec![0; 1 << 20];
    disk[512..604].copy_from_slice(header);
    // Unused entries in between are not measured.
    for (number, entry) in rest[8..].chunks(128).enumerate() {
        let at = 1024 + number * 3 * 128;
        disk[at..at + 128].copy_from_slice(entry);
    }
    disk
}

#[test]
fn a_disk_boot_of_a_tdx_guest() {
    let Some(bytes) = shelf::bytes("tdx/ccel/trustee/CCEL_data_gcp") else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let rtmr1: Vec<_> = log.events.iter().filter(|event| event.index == 2).collect();
    let gpt = rtmr1.iter().find(|event| event.event_type == EventType::EV_EFI_GPT_EVENT).unwrap();
    let table = digest(&disk(gpt.data)).unwrap();
    assert_eq!(Some(table), gpt.sha384());
    let started = rtmr1.iter().filter(|event| event.event_type == EventType::EV_EFI_BOOT_SERVICES_APPLICATION);
    let started: Vec<_> = started.map(|event| event.sha384().unwrap()).collect();
    let image = UnifiedImage { image: started[0], sections: Vec::new(), kernel: started[1], stub: None };
    let events = image.boot_events(Start::Disk(table)).for_tdx(&profile::UP_TO_202502);
    let predicted: Vec<_> = events.iter().map(|event| event.event_type).collect();
    assert_eq!(predicted, rtmr1.iter().map(|event| event.event_type).collect::<Vec<_>>());
    assert_eq!(registers(&events)[1], log.replay().unwrap().rtmr[1]);
    assert!(registers(&events)[1].to_string().starts_with("204d49f7"), "the published register");
}

#[test]
fn tables_of_other_guests() {
    let mut seen = 0;
    for name in ["CCEL_data_grub", "CCEL_data_grub_gke", "CCEL_AAEL_alibabacloud"] {
        let Some(bytes) = shelf::bytes(&format!("tdx/ccel/trustee/{name}")) else { return };
        let (log, _) = EventLog::parse_lenient(&bytes).unwrap();
        for event in log.events.iter().filter(|event| event.event_type == EventType::EV_EFI_GPT_EVENT) {
            assert_eq!(digest(&disk(event.data)).ok(), event.sha384(), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn disks_without_a_table_are_refused() {
    assert_eq!(digest(&[0; 4096]), Err(GptError::NoTable));
    assert_eq!(digest(b""), Err(GptError::NoTable));
    let mut disk = vec![0; 1024];
    disk[512..520].copy_from_slice(b"EFI PART");
    assert!(matches!(digest(&disk), Err(GptError::Damaged(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_taken_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), is_table: bool) {
        if let Some(signature) = bytes.get_mut(512..520).filter(|_| is_table) {
            signature.copy_from_slice(b"EFI PART");
        }
        let _ = (digest(&bytes), UnifiedImage::read(&bytes));
    }
}
