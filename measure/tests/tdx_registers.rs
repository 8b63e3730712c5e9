//! RTMRs of direct kernel boots, predicted from their inputs, against registers that hardware signed.

mod shelf;

use measure::Digest384;
use measure::eventlog::{EventLog, EventType};
use measure::firmware::{Firmware, TdxLayout};
use measure::tdx::image::{Image, StubInputs, load_options};
use measure::tdx::platform::{AcpiDigests, Common, Platform, PlatformError};
use measure::tdx::{PredictedEvent, Profile, profile, registers, runtime, td_hob};
use serde_json::Value;

fn hex(value: &Value) -> Digest384 {
    Digest384::from_hex(value.as_str().unwrap()).unwrap()
}

fn firmware_image() -> Option<Vec<u8>> {
    shelf::bytes("tdx/firmware/ubuntu-25.04_ovmf_2025.02-3ubuntu2_OVMF.fd.xz")
}

/// The blobs as fw_cfg has them: the vectors have trailing zeroes of the tables cut off.
fn acpi(folder: &str) -> AcpiDigests {
    let read = |name: &str| shelf::bytes(&format!("tdx/platform/tcg-dumps/{folder}/{name}")).unwrap();
    let mut tables = read("etc_acpi_tables.trimmed");
    tables.resize(131_072, 0);
    AcpiDigests::of(&read("etc_table-loader"), &read("etc_acpi_rsdp"), &tables)
}

/// Shapes of virtee/tdx-measure; RTMR0 of the second, a2749c84..., was seen in a live quote.
#[test]
fn rtmr0_of_edk2_202502() {
    let Some(image) = firmware_image() else { return };
    let firmware = Firmware::parse(&image).unwrap();
    let rtmr0 = |folder, memory_mib| {
        let platform = Platform::new(&firmware, &profile::UP_TO_202502, memory_mib, acpi(folder)).unwrap();
        assert_eq!(platform.events().len(), 13);
        registers(&platform.events())[0].to_string()
    };
    for (folder, memory_mib) in [("q35-with-hpet", 4096), ("runtime-capture", 16384)] {
        let expected = shelf::json(&format!("tdx/platform/tdx-measure/{folder}/expected.json")).unwrap();
        assert_eq!(rtmr0(folder, memory_mib), expected["rtmr0"].as_str().unwrap(), "{folder}");
    }
}

/// dstack's firmware is not in the vectors; its sections and its empty variable store are those of Ubuntu 24.04's.
fn dstack_layout() -> Option<(TdxLayout, Digest384)> {
    let image = shelf::bytes("tdx/firmware/ubuntu-24.04_ovmf_2024.02-2_OVMF.fd.xz")?;
    let firmware = Firmware::parse(&image).unwrap();
    let platform = Platform::new(&firmware, &profile::BEFORE_202411, 2048, AcpiDigests::of(b"", b"", b"")).unwrap();
    Some((firmware.tdx_layout().unwrap(), platform.variable_store))
}

fn dstack_acpi(name: &str) -> AcpiDigests {
    let read = |kind: &str| shelf::bytes(&format!("dstack/acpi/{name}.{kind}.bin.gz")).unwrap();
    AcpiDigests::of(&read("loader"), &read("rsdp"), &read("tables"))
}

fn dstack_platform(memory_mib: u64, acpi: AcpiDigests) -> Option<Platform> {
    let (layout, variable_store) = dstack_layout()?;
    let td_hob = td_hob::digest(&layout, memory_mib).unwrap();
    let common = Common::of_tables(profile::UP_TO_202502, acpi);
    Some(Platform { td_hob, variable_store, settings: Vec::new(), common })
}

/// A guest with 2 vCPUs and 2 GiB: all three registers as its quote signs them.
#[test]
fn dstack_guest_with_a_quote() {
    let acpi = || dstack_acpi("qemu8.2.2-picon-2cpu-2g");
    let Some(case) = shelf::json("tdx/pairs/dstack-lite/tdx-lite-getquote.json") else { return };
    let quote = hex::decode(case["quote"].as_str().unwrap()).unwrap();
    let inputs = &shelf::json("dstack/tdx/tdx-lite.measurement.decoded.json").unwrap()["image"];
    let image = Image {
        profile: profile::UP_TO_202502,
        kernel: hex(&inputs["kernel_authenticode"]),
        stub: Some(StubInputs {
            load_options: hex(&inputs["cmdline_sha384"]),
            initrd: Some(hex(&inputs["initrd_sha384"])),
        }),
    };
    let mut events = dstack_platform(2048, acpi()).unwrap().events();
    events.extend(image.events());
    let signed = |register: usize| Digest384(quote[48 + 328 + register * 48..][..48].try_into().unwrap());
    assert_eq!(registers(&events)[..3], [signed(0), signed(1), signed(2)]);
}

/// A guest with 8 vCPUs and 64 GiB whose collector published registers and events.
#[test]
fn dstack_guest_with_64_gib() {
    let Some(case) = shelf::json("dstack/near-mpc/tcb_info.json") else { return };
    let log = case["event_log"].as_array().unwrap();
    let of = |event_type: EventType, nth: usize| {
        hex(&log.iter().filter(|e| e["event_type"] == event_type.0).nth(nth).unwrap()["digest"])
    };
    let image = Image {
        profile: profile::UP_TO_202502,
        kernel: of(EventType::EV_EFI_BOOT_SERVICES_APPLICATION, 0),
        stub: Some(StubInputs {
            load_options: of(EventType::EV_EVENT_TAG, 0),
            initrd: Some(of(EventType::EV_EVENT_TAG, 1)),
        }),
    };
    let mut events = dstack_platform(65536, dstack_acpi("qemu8.2.2-picon-8cpu-64g")).unwrap().events();
    events.extend(image.events());
    let expected = ["rtmr0", "rtmr1", "rtmr2"].map(|key| hex(&case[key]));
    assert_eq!(registers(&events)[..3], expected);
}

/// RTMR3 of the same guest: events of its own software.
#[test]
fn run_time_events() {
    let Some(case) = shelf::json("dstack/near-mpc/tcb_info.json") else { return };
    let mut rtmr3 = Digest384::ZERO;
    let mut checked = 0;
    for event in case["event_log"].as_array().unwrap().iter().filter(|event| event["imr"] == 3) {
        let event_type = u32::try_from(event["event_type"].as_u64().unwrap()).unwrap();
        let payload = hex::decode(event["event_payload"].as_str().unwrap()).unwrap();
        let digest = runtime::event_digest(event_type, event["event"].as_str().unwrap(), &payload);
        assert_eq!(digest, hex(&event["digest"]), "{event}");
        rtmr3 = rtmr3.extended(&digest);
        checked += 1;
    }
    assert_eq!((checked, rtmr3), (9, hex(&case["rtmr3"])));
}

/// Not the register, but every event, type and order: six production guests from 4 to 256 GiB, one with 8 GPUs.
#[test]
fn trust_center_guests_event_by_event() {
    for name in ["00748642", "027b610a", "1de5235f", "40c8d700", "c80cb986", "fb14dc13"] {
        let path = format!("tdx/pairs/dstack-trust-center/trustcenter-{name}.json");
        let Some(case) = shelf::json(&path) else { return };
        let log = case["events"].as_array().unwrap();
        let logged = |imr: u32| log.iter().filter(move |event| event["imr"] == imr).collect::<Vec<_>>();
        let acpi: Vec<_> =
            logged(0).iter().filter(|e| e["event_type"] == 0xa).map(|event| hex(&event["digest"])).collect();
        let acpi = AcpiDigests { loader: acpi[0], rsdp: acpi[1], tables: acpi[2], tpm_log: None };
        let memory_mib = case["vm_config"]["memory_size"].as_u64().unwrap() >> 20;
        let stub = logged(2);
        let image = Image {
            profile: profile::UP_TO_202502,
            kernel: hex(&logged(1)[0]["digest"]),
            stub: Some(StubInputs { load_options: hex(&stub[0]["digest"]), initrd: Some(hex(&stub[1]["digest"])) }),
        };
        let mut events = dstack_platform(memory_mib, acpi).unwrap().events();
        events.extend(image.events());
        assert_eq!(registers(&events)[..3], [0, 1, 2].map(|register| hex(&case["rtmr"][register])), "{name}");
        for imr in 0..3 {
            let predicted: Vec<_> = events.iter().filter(|event| event.register.log_index() == imr + 1).collect();
            let as_logged = |e: &&PredictedEvent| (Value::from(e.event_type.0), e.digest);
            let expected: Vec<_> = logged(imr).iter().map(|e| (e["event_type"].clone(), hex(&e["digest"]))).collect();
            assert_eq!(predicted.iter().map(as_logged).collect::<Vec<_>>(), expected, "{name} RTMR{imr}");
        }
    }
}

/// Firmware of before edk2 202411: the second separator is in RTMR0.
#[test]
fn older_firmware_puts_both_separators_into_rtmr0() {
    let Some(bytes) = shelf::bytes("tdx/ccel/trustee/CCEL_data_ovmf") else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let logged = |index: u32| log.events.iter().filter(move |event| event.index == index);
    let acpi: Vec<_> = logged(1)
        .filter(|event| event.event_type == EventType::EV_PLATFORM_CONFIG_FLAGS)
        .map(|event| event.sha384().unwrap())
        .collect();
    let acpi = AcpiDigests { loader: acpi[0], rsdp: acpi[1], tables: acpi[2], tpm_log: None };
    let mut platform = dstack_platform(2048, acpi).unwrap();
    platform.common.profile = profile::BEFORE_202411;
    let stub: Vec<_> = logged(3).map(|event| event.sha384().unwrap()).collect();
    let image = Image {
        profile: profile::BEFORE_202411,
        kernel: logged(2).next().unwrap().sha384().unwrap(),
        stub: Some(StubInputs { load_options: stub[0], initrd: Some(stub[1]) }),
    };
    let mut events = platform.events();
    events.extend(image.events());
    assert_eq!(registers(&events), log.replay().unwrap().rtmr);
}

/// A command line of Kata Containers without an initrd (confidential-dot-ai/confidential-os-builder).
#[test]
fn command_line_alone() {
    let Some(golden) = shelf::json("tdx/constants/rtmr2-cmdline-golden.json") else { return };
    let line = golden["cmdline"].as_str().unwrap();
    let stub = StubInputs { load_options: load_options(&profile::UP_TO_202502, line, false), initrd: None };
    let image = Image { profile: profile::UP_TO_202502, kernel: Digest384::ZERO, stub: Some(stub) };
    assert_eq!(registers(&image.events())[2], hex(&golden["rtmr2"]));
    let none = Image { stub: None, ..image };
    assert_eq!(registers(&none.events())[2], Digest384::ZERO);
}

#[test]
fn firmware_with_keys_or_of_an_unknown_version_is_refused() {
    let path = "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz";
    let Some(image) = shelf::bytes(path) else { return };
    let firmware = Firmware::parse(&image).unwrap();
    let acpi = AcpiDigests::of(b"", b"", b"");
    let platform = Platform::new(&firmware, &profile::UP_TO_202502, 2048, acpi);
    assert_eq!(platform, Err(PlatformError::KeysEnrolled));
    assert!(Profile::of_build("edk2-stable202605", "IntelTdxX64").is_err());
    let platform = Platform::new(&firmware, &profile::INTEL_TDX_202608, 2048, acpi);
    assert_eq!(platform, Err(PlatformError::NeedsFwCfg("edk2-202608-IntelTdxX64")));
}
