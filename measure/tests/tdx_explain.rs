//! A real log beside a prediction from other inputs: the event and the input that differ are named.

mod shelf;

use measure::Digest384;
use measure::eventlog::{EventLog, EventType};
use measure::firmware::Firmware;
use measure::tdx::explain::{Difference, differences, load_options_slip, memory_mib};
use measure::tdx::image::{Image, StubInputs, load_options};
use measure::tdx::platform::{AcpiDigests, Platform};
use measure::tdx::{Input, PredictedEvent, Rtmr, profile, td_hob};

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
    assert_eq!(differences(&log, &prediction(&log, 2048)), []);
}

#[test]
fn memory_kernel_and_initrd_are_named() {
    let Some(bytes) = shelf::bytes(LOG) else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let mut events = prediction(&log, 4096);
    for event in events.iter_mut().filter(|event| matches!(event.input, Input::Kernel | Input::Initrd)) {
        event.digest = Digest384::of(b"another");
    }
    let inputs: Vec<_> = differences(&log, &events)
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
    let found = differences(&log, &events);
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
