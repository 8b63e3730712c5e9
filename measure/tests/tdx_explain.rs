//! A real log beside a prediction from other inputs: the event and the input that differ are named.

mod shelf;

use measure::Digest384;
use measure::eventlog::compare::{self, Wanted};
use measure::eventlog::{AlgorithmId, Event, EventLog, EventType, SpecId};
use measure::firmware::Firmware;
use measure::tdx::explain::{
    Difference, differences, load_options_slip, load_options_slips, memory_mib, substitution, td_hobs,
};
use measure::tdx::image::{Image, StubInputs, load_options};
use measure::tdx::platform::{AcpiDigests, Platform};
use measure::tdx::{Input, PredictedEvent, Rtmr, profile, td_hob};

const FIRST: [Rtmr; 3] = [Rtmr::Rtmr0, Rtmr::Rtmr1, Rtmr::Rtmr2];
const LOG: &str = "tdx/ccel/trustee/CCEL_data_ovmf";

/// The prediction that is right for the log: a direct boot with 2 GiB.
fn prediction(log: &EventLog<'_>, memory_mib: u64) -> Vec<PredictedEvent> {
    let image = shelf::bytes("tdx/firmware/ubuntu-24.04_ovmf_2024.02-2_OVMF.fd.xz").unwrap();
    let firmware = Firmware::parse(&image).unwrap();
    let of =
        |event_type, nth| log.events.iter().filter(|e| e.event_type == event_type).nth(nth).unwrap().sha384().unwrap();
    let acpi = [0, 1, 2].map(|nth| of(EventType::EV_PLATFORM_CONFIG_FLAGS, nth));
    let acpi = AcpiDigests { loader: acpi[0], rsdp: acpi[1], tables: acpi[2], tpm_log: None };
    let mut events = Platform::new(&firmware, &profile::BEFORE_202411, memory_mib, acpi).unwrap().events();
    let stub =
        StubInputs { load_options: of(EventType::EV_EVENT_TAG, 0), initrd: Some(of(EventType::EV_EVENT_TAG, 1)) };
    let kernel = of(EventType::EV_EFI_BOOT_SERVICES_APPLICATION, 0);
    events.extend(Image { profile: profile::BEFORE_202411, kernel, stub: Some(stub) }.events());
    events
}

#[test]
fn a_log_as_predicted_has_no_differences() {
    let Some(bytes) = shelf::bytes(LOG) else { return };
    let log = EventLog::parse(&bytes).unwrap();
    assert_eq!(differences(&log, &prediction(&log, 2048), &[], &FIRST), []);
}

/// Without ACPI tables to predict from, these events are neither right nor wrong.
#[test]
fn what_is_not_known_is_neither_right_nor_wrong() {
    let Some(bytes) = shelf::bytes(LOG) else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let mut events = prediction(&log, 2048);
    for event in events.iter_mut().filter(|event| event.event_type == EventType::EV_PLATFORM_CONFIG_FLAGS) {
        event.digest = Digest384::ZERO;
    }
    let unknown = [Input::AcpiLoader, Input::AcpiRsdp, Input::AcpiTables];
    let found = differences(&log, &events, &unknown, &FIRST);
    let inputs = found.iter().map(|difference| match difference {
        Difference::Unknown { expected, .. } => expected.input,
        other => panic!("{other:?}"),
    });
    assert_eq!(inputs.collect::<Vec<_>>(), unknown);
    // A kernel without a measuring stub: what RTMR2 then has is too much.
    events.retain(|event| event.register != Rtmr::Rtmr2);
    let found = differences(&log, &events, &unknown, &FIRST);
    assert_eq!(found.iter().filter(|found| matches!(found, Difference::Unexpected { .. })).count(), 2);
}

#[test]
fn memory_kernel_and_initrd_are_named() {
    let Some(bytes) = shelf::bytes(LOG) else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let mut events = prediction(&log, 4096);
    for event in events.iter_mut().filter(|event| matches!(event.input, Input::Kernel | Input::Initrd)) {
        event.digest = Digest384::of(b"another");
    }
    let inputs: Vec<_> = differences(&log, &events, &[], &FIRST)
        .iter()
        .map(|difference| match difference {
            Difference::Digest { expected, event, found } => {
                assert_eq!(log.events[*event].sha384(), *found);
                expected.input
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(inputs, [Input::TdHob, Input::Kernel, Input::Initrd]);
}

#[test]
fn missing_and_unexpected_events_do_not_shift_the_rest() {
    let Some(bytes) = shelf::bytes(LOG) else { return };
    let log = EventLog::parse(&bytes).unwrap();
    // Firmware of another version: the second separator is in RTMR1.
    let mut events = prediction(&log, 2048);
    let last = events.iter().rposition(|e| e.event_type == EventType::EV_SEPARATOR).unwrap();
    let mut separator = events.remove(last);
    separator.register = Rtmr::Rtmr1;
    let exit = events.iter().position(|e| e.input == Input::Fixed("Exit Boot Services Invocation")).unwrap();
    events.insert(exit, separator);
    let found = differences(&log, &events, &[], &FIRST);
    let [Difference::Unexpected { event }, Difference::Missing { expected }] = found[..] else { panic!("{found:?}") };
    assert_eq!(log.events[event].event_type, EventType::EV_SEPARATOR);
    assert_eq!(expected, separator);
}

#[test]
fn memory_is_found_from_the_td_hob() {
    let Some(bytes) = shelf::bytes(LOG) else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let image = shelf::bytes("tdx/firmware/ubuntu-24.04_ovmf_2024.02-2_OVMF.fd.xz").unwrap();
    let layout = Firmware::parse(&image).unwrap().tdx_layout().unwrap();
    assert_eq!(memory_mib(log.events[0].sha384().unwrap(), &layout), Some(2048));
    for mib in [640, 3072, 262_144] {
        assert_eq!(memory_mib(td_hob::digest(&layout, mib).unwrap(), &layout), Some(mib));
    }
    assert_eq!(memory_mib(Digest384::ZERO, &layout), None);
}

#[test]
fn spoilt_command_lines_are_found() {
    let digest = load_options(&profile::UP_TO_202502, "root=/dev/vda\n", true);
    let slip = load_options_slip(digest, "root=/dev/vda", &profile::ALL).unwrap();
    assert_eq!((slip.how, slip.has_initrd), (Some("with a newline at its end"), true));
    let digest = load_options(&profile::UP_TO_202502, "root=/dev/vda", false);
    let slip = load_options_slip(digest, "root=/dev/vda", &profile::ALL).unwrap();
    assert_eq!((slip.how, slip.has_initrd), (None, false));
    assert_eq!(load_options_slip(digest, "root=/dev/vdb", &profile::ALL), None);
}

/// A register alone: what was put in the place of one event is found from the value that a quote would have.
#[test]
fn a_register_without_a_log_is_explained_by_one_other_input() {
    let Some(bytes) = shelf::bytes(LOG) else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let signed = log.replay().unwrap().rtmr;
    let image = shelf::bytes("tdx/firmware/ubuntu-24.04_ovmf_2024.02-2_OVMF.fd.xz").unwrap();
    let layout = Firmware::parse(&image).unwrap().tdx_layout().unwrap();
    let events = prediction(&log, 16384);
    let hobs = td_hobs(&layout);
    let digests: Vec<_> = hobs.iter().map(|(_, digest)| Some(*digest)).collect();
    let found = substitution(signed[0], Rtmr::Rtmr0, &events, Input::TdHob, &digests).unwrap();
    assert_eq!(hobs[found].0, 2048);
    assert_eq!(substitution(signed[1], Rtmr::Rtmr0, &events, Input::TdHob, &digests), None);
    // The event of the initrd left out.
    let [_, _, rtmr2, _] = measure::tdx::registers(events.iter().filter(|event| event.input != Input::Initrd));
    assert_eq!(substitution(rtmr2, Rtmr::Rtmr2, &events, Input::Initrd, &[Some(Digest384::ZERO), None]), Some(1));
    assert_eq!(load_options_slips("quiet", &profile::ALL)[0].0.how, None);
}

/// A log as dstack publishes it, in JSON: register, type, digest. What firmware logs beside that is not in it.
fn published(events: &serde_json::Value) -> Vec<(u32, EventType, Vec<u8>)> {
    let event = |event: &serde_json::Value| {
        let number = |key: &str| u32::try_from(event[key].as_u64().unwrap()).unwrap();
        let digest = hex::decode(event["digest"].as_str().unwrap()).unwrap();
        (number("imr") + 1, EventType(number("event_type")), digest)
    };
    events.as_array().unwrap().iter().map(event).collect()
}

fn log_of(events: &[(u32, EventType, Vec<u8>)]) -> Vec<Event<'_>> {
    let event = |index: u32, event_type, digest| Event {
        index,
        event_type,
        digests: vec![(AlgorithmId::SHA384, digest)],
        data: &[],
        offset: 0,
    };
    events.iter().map(|(index, event_type, digest)| event(*index, *event_type, digest.as_slice())).collect()
}

/// Two images of one service, on hosts of one kind: production and development differ in the command line, which carries the
/// root hash, and in nothing else before user space.
#[test]
fn two_dstack_images_differ_in_the_command_line_alone() {
    let Some(production) = shelf::json("dstack/near-mpc/tcb_info.json") else { return };
    let development = shelf::json("dstack/near-mpc/tcb_info_dev.json").unwrap();
    let (production, development) = (published(&production["event_log"]), published(&development["event_log"]));
    let wanted: Vec<_> = production
        .iter()
        .map(|(index, event_type, digest)| Wanted { index: *index, event_type: *event_type, digest: Some(digest) })
        .collect();
    let found = compare::differences(&log_of(&development), AlgorithmId::SHA384, &wanted, &[1, 2, 3]);
    let [compare::Difference::Digest { event, .. }] = found[..] else { panic!("{found:?}") };
    assert_eq!((development[event].0, development[event].1), (3, EventType::EV_EVENT_TAG));
}

/// A guest whose image publishes what it measures (Authenticode of the kernel, digests of load options and initrd), on a host
/// whose ACPI tables are known: its log is as predicted; with the tables of another shape, the ACPI tables are named.
#[test]
fn a_dstack_guest_against_what_its_image_publishes() {
    let Some(case) = shelf::json("tdx/pairs/dstack-lite/tdx-lite-getquote.json") else { return };
    let log = published(&serde_json::from_str(case["event_log"].as_str().unwrap()).unwrap());
    let inputs = &shelf::json("dstack/tdx/tdx-lite.measurement.decoded.json").unwrap()["image"];
    let hex = |key: &str| Digest384::from_hex(inputs[key].as_str().unwrap()).unwrap();
    let stub = StubInputs { load_options: hex("cmdline_sha384"), initrd: Some(hex("initrd_sha384")) };
    let image = Image { profile: profile::UP_TO_202502, kernel: hex("kernel_authenticode"), stub: Some(stub) };
    let firmware = shelf::bytes("tdx/firmware/ubuntu-24.04_ovmf_2024.02-2_OVMF.fd.xz").unwrap();
    let firmware = Firmware::parse(&firmware).unwrap();
    let predicted = |shape: &str, memory_mib| {
        let read = |kind: &str| shelf::bytes(&format!("dstack/acpi/qemu8.2.2-picon-{shape}.{kind}.bin.gz")).unwrap();
        let acpi = AcpiDigests::of(&read("loader"), &read("rsdp"), &read("tables"));
        let mut events = Platform::new(&firmware, &profile::UP_TO_202502, memory_mib, acpi).unwrap().events();
        events.extend(image.events());
        events
    };
    let spec_id = SpecId { algorithms: vec![(AlgorithmId::SHA384, 48)], vendor: &[] };
    let log = EventLog { spec_id, events: log_of(&log) };
    assert_eq!(differences(&log, &predicted("2cpu-2g", 2048), &[], &FIRST), []);
    let inputs = |events: &[PredictedEvent]| {
        let found = differences(&log, events, &[], &FIRST);
        let input = |difference: &Difference| match difference {
            Difference::Digest { expected, .. } => expected.input,
            other => panic!("{other:?}"),
        };
        found.iter().map(input).collect::<Vec<_>>()
    };
    assert_eq!(
        inputs(&predicted("8cpu-64g", 65_536)),
        [Input::TdHob, Input::AcpiLoader, Input::AcpiRsdp, Input::AcpiTables]
    );
}
