//! `bullion explain` of the log of a TD that got QEMU's tables: RTMR0 event by event. The log is put together from what the guest of
//! a simulated launch read by fw_cfg, hashed by coreutils; only what no file is behind has the digest that is predicted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::{Path, PathBuf};

use e2e::vectors::{sha, unhex};
use e2e::{Bench, bench, skipped};
use serde_json::Value;

/// Event types by number (TCG PC Client Platform Firmware Profile 1.06, table 27).
const TYPES: [(&str, u32); 12] = [
    ("EV_IPL", 0xd),
    ("EV_EFI_GPT_EVENT", 0x8000_0006),
    ("EV_SEPARATOR", 4),
    ("EV_EVENT_TAG", 6),
    ("EV_PLATFORM_CONFIG_FLAGS", 0xa),
    ("EV_EFI_VARIABLE_DRIVER_CONFIG", 0x8000_0001),
    ("EV_EFI_VARIABLE_BOOT", 0x8000_0002),
    ("EV_EFI_BOOT_SERVICES_APPLICATION", 0x8000_0003),
    ("EV_EFI_ACTION", 0x8000_0007),
    ("EV_EFI_HANDOFF_TABLES", 0x8000_0009),
    ("EV_EFI_PLATFORM_FIRMWARE_BLOB2", 0x8000_000a),
    ("EV_EFI_HANDOFF_TABLES2", 0x8000_000b),
];

/// A log of SHA-384 digests (the same, 10.2).
struct Log(Vec<u8>);

impl Log {
    fn new() -> Self {
        let mut spec_id = b"Spec ID Event03\0".to_vec();
        // Platform class, version 2.0, errata, size of UINTN; one algorithm, SHA-384; no vendor information.
        spec_id.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
        let mut bytes = [0_u32, 3].map(u32::to_le_bytes).concat();
        bytes.extend([0; 20]);
        bytes.extend(u32::try_from(spec_id.len()).unwrap().to_le_bytes());
        bytes.extend(spec_id);
        Self(bytes)
    }

    fn add(&mut self, register: u32, event_type: u32, digest: &[u8]) {
        self.0.extend([register, event_type, 1].map(u32::to_le_bytes).concat());
        self.0.extend([0x0c, 0]);
        self.0.extend(digest);
        self.0.extend([0; 4]);
    }
}

/// Where the guest of a simulated launch of `vm` put what it read.
fn simulated(bench: &Bench, vm: &Path, state: &Path) -> Option<PathBuf> {
    if std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_err() || bench.unpublished {
        skipped("simulated launch: there is no /dev/kvm that this user may open, or the firmware may not be pinned");
        return None;
    }
    let mut launch = bench.command(["launch", vm.to_str().unwrap(), "--simulate"]);
    e2e::run(launch.env("BULLION_STATE_DIR", state)).expect(0, &[]);
    Some(state.join("t-tables/fw_cfg"))
}

/// What the guest would have logged of the files that it read.
fn log(bench: &Bench, image: &Path, read: &Path) -> Vec<u8> {
    let of = |name: &str| image.join(name).to_str().unwrap().to_owned();
    let line = std::fs::read_to_string(image.join("cmdline")).unwrap();
    let (firmware, kernel, initrd) = (of("firmware-tdx.fd"), of("vmlinuz"), of("initrd"));
    let files = ["--firmware", &firmware, "--kernel", &kernel, "--initrd", &initrd, "--cmdline", &line];
    let words = ["measure", "tdx", "--json", "--memory", "512MiB", "--vcpus", "1"];
    let predicted = bench.run(words.iter().chain(&files)).expect(0, &[]).json();
    let options: Vec<u8> = format!("initrd=initrd {line}\0").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let events = events(&predicted, read).into_iter().map(|mut event| {
        match event.name.as_str() {
            "kernel command line" => event.digest = sha(384, &options),
            "initrd" => event.digest = sha(384, &std::fs::read(read.join("initrd_data")).unwrap()),
            _ => {}
        }
        event
    });
    logged(&events.collect::<Vec<_>>())
}

#[derive(Clone)]
struct Logged {
    name: String,
    register: u32,
    event_type: u32,
    digest: Vec<u8>,
}

fn logged(events: &[Logged]) -> Vec<u8> {
    let mut log = Log::new();
    for Logged { register, event_type, digest, .. } in events {
        log.add(*register, *event_type, digest);
    }
    log.0
}

/// The predicted events, those that QEMU's files are behind with what coreutils makes of the files that the guest read.
fn events(predicted: &Value, read: &Path) -> Vec<Logged> {
    let file = |name: &str| sha(384, &std::fs::read(read.join(name)).unwrap());
    let event = |step: &Value| {
        let text = |key: &str| step[key].as_str().unwrap();
        let register = text("register").strip_prefix("rtmr")?.parse::<u32>().unwrap() + 1;
        let digest = match text("name") {
            "ACPI table loader" => file("etc/table-loader"),
            "ACPI root pointer" => file("etc/acpi/rsdp"),
            "ACPI tables" => file("etc/acpi/tables"),
            "QEMU setting BootMenu (fw_cfg)" => file("BootMenu"),
            "QEMU setting bootorder (fw_cfg)" => file("bootorder"),
            _ => unhex(text("digest")),
        };
        let (_, event_type) = TYPES.iter().find(|(name, _)| *name == text("kind")).unwrap();
        Some(Logged { name: text("name").to_owned(), register, event_type: *event_type, digest })
    };
    predicted["steps"].as_array().unwrap().iter().filter_map(event).collect()
}

/// A TD that firmware starts from its disk, whether or not the kernel leaves firmware at the first attempt; another image on the disk is
/// named.
#[test]
fn the_log_of_a_td_from_a_disk_is_explained() {
    let Some(bench) = bench() else { return };
    let Some(recipe) = std::env::var_os("BULLION_TEST_DISK_RECIPE") else {
        return skipped("BULLION_TEST_DISK_RECIPE is set by scripts/test only");
    };
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    bench.run(["build".as_ref(), recipe.as_os_str(), "-o".as_ref(), image.as_os_str()]).expect(0, &[]);
    let vm = bench.vm(scratch.path(), "t-tables", "tdx", 1, &image);
    let text = std::fs::read_to_string(&vm).unwrap().replace("[guest]", "boot = \"disk\"\n[guest]");
    std::fs::write(&vm, text).unwrap();
    let Some(read) = simulated(&bench, &vm, &scratch.path().join("state")) else { return };
    let of = |name: &str| image.join(name).display().to_string();
    let (firmware, disk) = (of("firmware-tdx.fd"), of("disk.raw"));
    let words =
        ["measure", "tdx", "--json", "--memory", "512MiB", "--vcpus", "1", "--firmware", &firmware, "--disk", &disk];
    let events = events(&bench.run(words).expect(0, &[]).json(), &read);
    let file = scratch.path().join("log");
    let explain = |events: &[Logged], code: i32| {
        std::fs::write(&file, logged(events)).unwrap();
        let words = ["explain", "--json", file.to_str().unwrap(), "--against", vm.to_str().unwrap()];
        bench.run(words).expect(code, &[]).json()
    };
    let at_once = explain(&events, 0);
    assert_eq!(at_once["differences"], serde_json::json!([]));
    assert!(at_once["not_compared"].as_array().unwrap().contains(&"MRTD".into()), "{at_once}");
    let mut again = events.clone();
    let last: Vec<_> = again.split_off(again.len() - 2);
    let action = |text: &str| Logged { digest: sha(384, text.as_bytes()), ..last[0].clone() };
    again.extend(["Invocation", "Returned with Failure"].map(|text| action(&format!("Exit Boot Services {text}"))));
    again.extend(last);
    assert_eq!(explain(&again, 0)["verdict"], "equal");
    for (name, input) in [
        ("unified kernel image", "unified_image"),
        ("partition table", "partition_table"),
        ("section .osrel of the unified kernel image", "unified_image"),
    ] {
        let mut other = again.clone();
        other.iter_mut().find(|event| event.name == name).unwrap().digest = sha(384, b"another");
        let answer = explain(&other, 6);
        let rows = answer["differences"].as_array().unwrap();
        assert_eq!(rows.len(), 1, "{answer}");
        assert_eq!(rows[0]["input"], input, "{answer}");
    }
}

#[test]
fn rtmr0_is_explained_by_the_tables_that_qemu_gives() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let vm = bench.vm(scratch.path(), "t-tables", "tdx", 1, bench.image());
    let Some(read) = simulated(&bench, &vm, &scratch.path().join("state")) else { return };
    let file = scratch.path().join("log");
    std::fs::write(&file, log(&bench, bench.image(), &read)).unwrap();
    let explain = |against: &Path, words: &[&str]| {
        let first = ["explain", "--json", file.to_str().unwrap(), "--against", against.to_str().unwrap()];
        bench.run(first.iter().chain(words))
    };
    let verdicts = |answer: &Value| {
        let registers = answer["registers"].as_array().unwrap();
        registers.iter().map(|register| register["verdict"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let inputs = |answer: &Value| {
        let rows = answer["differences"].as_array().unwrap();
        rows.iter().map(|row| row["input"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let machine = |rows: &Value| {
        let row = rows.as_array().unwrap().iter().find(|row| row["input"] == "acpi").unwrap();
        (row["value"]["vcpus"].as_u64().unwrap(), row["value"]["nics"].as_u64().unwrap())
    };
    let answer = explain(&vm, &[]).expect(0, &[]).json();
    assert_eq!(verdicts(&answer), ["equal"; 4]);
    let image = bench.image();
    explain(image, &["--memory", "512MiB", "--vcpus", "1"]).expect(0, &[]);
    // By captured files instead of a QEMU.
    explain(image, &["--memory", "512MiB", "--acpi", read.to_str().unwrap()]).expect(0, &[]);
    let answer = explain(image, &["--memory", "512MiB", "--vcpus", "2"]).expect(6, &[]).json();
    assert!(inputs(&answer).contains(&"acpi".to_owned()), "{answer}");
    assert!(inputs(&answer).iter().all(|input| ["acpi", "smbios"].contains(&input.as_str())), "{answer}");
    // QEMU is asked until the tables are found, and the machine that has them is named.
    assert_eq!(machine(&answer["differences"]), (1, 0), "{answer}");
    let answer = explain(image, &["--memory", "1GiB", "--vcpus", "1"]).expect(6, &[]).json();
    let memory = answer["differences"].as_array().unwrap().iter().find(|row| row["input"] == "memory").unwrap();
    assert_eq!(memory["value"], 512);
    // Another machine than anybody named is never called the same.
    let answer = explain(image, &[]).expect(4, &["the number of vCPUs is not known", "the memory size"]).json();
    assert_eq!(verdicts(&answer), ["cannot-tell", "equal", "equal", "equal"]);
    assert_eq!(machine(&answer["unknown"]), (1, 0), "what it was is told all the same");
    // A VM with a network has other tables.
    let text = std::fs::read_to_string(&vm).unwrap() + "[[host.nic]]\n";
    let other = scratch.path().join("other.vm.toml");
    std::fs::write(&other, text).unwrap();
    let answer = explain(&other, &[]).expect(6, &[]).json();
    assert!(!inputs(&answer).is_empty() && inputs(&answer).iter().all(|input| input == "acpi"), "{answer}");
    assert_eq!(machine(&answer["differences"]), (1, 0), "{answer}");
    let missing = explain(image, &["--memory", "512MiB", "--vcpus", "1", "--qemu", "/bin/true"]);
    missing.expect(3, &["did not answer"]);
}
