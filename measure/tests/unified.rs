//! A unified kernel image started from a disk, against the log of a TDX guest in somebody else's cloud. The log has digests of
//! files that nobody published; which events there are, their order and the partition table's digest are predicted.

mod shelf;

use measure::eventlog::{EventLog, EventType};
use measure::tdx::unified::{Start, UnifiedImage};
use measure::tdx::{profile, registers};
use measure::uefi::fat;
use measure::uefi::gpt::{GptError, digest, system_partition};
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
    let events =
        image.boot_events(Start::Disk { table, first_exit_fails: false }, false).for_tdx(&profile::UP_TO_202502);
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

/// A file system of 16 sectors: one reserved, one of the only table, then clusters of one sector, which `content` fills.
fn volume(content: &[u8]) -> Vec<u8> {
    let mut volume = vec![0; 16 * 512];
    let mut put = |at: usize, bytes: &[u8]| volume[at..at + bytes.len()].copy_from_slice(bytes);
    put(11, &[0, 2, 1, 1, 0, 1]);
    put(32, &[16, 0, 0, 0, 1, 0, 0, 0]);
    put(44, &[2, 0, 0, 0]);
    put(510, &[0x55, 0xaa]);
    put(512, &content[..content.len().min(15 * 512)]);
    volume
}

#[test]
fn damaged_file_systems_are_refused() {
    let file = |content: &[u8]| fat::file(&volume(content), &["A"]);
    // A table in which the root directory is its own successor, one that leads out, and one without a mark at its end.
    for (entry, reason) in [(2_u32, "never ends"), (99, "leads out"), (0, "leads out")] {
        let table = [[0; 8], [entry.to_le_bytes(), [0; 4]].concat().try_into().unwrap()].concat();
        let error = file(&table).unwrap_err();
        assert!(error.to_string().contains(reason), "{entry}: {error}");
    }
    // One cluster, and a file that says it has two.
    let mut content = vec![0; 1024];
    content[8..16].copy_from_slice(&[0xff; 8]);
    content[512..523].copy_from_slice(b"A          ");
    content[512 + 26] = 3;
    content[512 + 29] = 2;
    assert_eq!(file(&content).map(|content| content.len()), Ok(512));
    content[512 + 29] = 4;
    assert!(matches!(file(&content), Err(fat::FatError::Damaged("a file is shorter than its directory says"))));
    assert_eq!(fat::file(&[0; 4096], &["A"]), Err(fat::FatError::NotFat32));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_taken_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), is_table: bool) {
        if let Some(signature) = bytes.get_mut(512..520).filter(|_| is_table) {
            signature.copy_from_slice(b"EFI PART");
        }
        let _ = (digest(&bytes), system_partition(&bytes), UnifiedImage::read(&bytes));
        let _ = (fat::file(&bytes, &["A"]), fat::file(&volume(&bytes), &["A", "B"]));
    }
}
