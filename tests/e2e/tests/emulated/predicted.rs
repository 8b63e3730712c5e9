//! What `bullion measure tpm` says of a boot, and the boot's log and TPM beside it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use e2e::Bench;
use e2e::emulator::Stopped;
use measure::eventlog::{AlgorithmId, EventType};
use serde_json::Value;

use crate::memory::log;

pub(crate) struct Files<'a> {
    pub(crate) code: &'a Path,
    pub(crate) variables: &'a Path,
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: Option<&'a Path>,
    pub(crate) cmdline: Option<&'a str>,
}

/// What `bullion measure tpm` says, from inputs alone.
pub(crate) fn prediction(bench: &Bench, files: &Files<'_>, stopped: &Stopped) -> Value {
    let path = |path: &Path| path.display().to_string();
    let mut words = vec!["measure", "tpm", "--json", "--firmware"].into_iter().map(str::to_owned).collect::<Vec<_>>();
    words.extend([path(files.code), "--variables".to_owned(), path(files.variables)]);
    words.extend(["--fw-cfg".to_owned(), path(&stopped.fw_cfg), "--kernel".to_owned(), path(files.kernel)]);
    if let Some(cmdline) = files.cmdline {
        words.extend(["--cmdline".to_owned(), cmdline.to_owned()]);
    }
    if let Some(initrd) = files.initrd {
        words.extend(["--initrd".to_owned(), path(initrd)]);
    }
    let answer = bench.run(words).expect(0, &[]).json();
    e2e::documented("measure tpm", &answer);
    answer
}

/// The log replays to what the TPM holds, and is what was predicted, event by event.
#[track_caller]
pub(crate) fn assert_as_predicted(stopped: &Stopped, prediction: &Value) {
    assert_events(stopped, prediction, |_| true);
}

/// The same of the PCRs that `is_told` says.
#[track_caller]
pub(crate) fn assert_events(stopped: &Stopped, prediction: &Value, is_told: impl Fn(u32) -> bool) {
    let log = log(&stopped.memory).unwrap();
    let logged = log.events.iter().filter(|event| event.event_type != EventType::EV_NO_ACTION && is_told(event.index));
    let logged = logged.map(|event| format!("PCR {} {} {}", event.index, event.event_type, event.sha384().unwrap()));
    let predicted = prediction["steps"].as_array().unwrap().iter().map(|step| {
        let text = |key: &str| step[key].as_str().unwrap().to_owned();
        format!("PCR {} {} {}", step["pcr"], text("event_type"), text("digest"))
    });
    assert_eq!(predicted.collect::<Vec<_>>(), logged.collect::<Vec<_>>());
    for (number, value) in log.replay_pcrs(AlgorithmId::SHA384).unwrap() {
        let value = measure::digest::encode_hex(&value);
        assert_eq!(stopped.pcrs[&number], value, "the log does not replay to PCR {number}");
        if is_told(number) {
            assert_eq!(prediction[format!("pcr{number}")], value, "PCR {number}");
        }
    }
    for number in (0..16).filter(|number| *number != 10 && is_told(*number)) {
        assert_eq!(prediction[format!("pcr{number}")], stopped.pcrs[&number], "PCR {number}");
    }
}

/// Builds with SMM, as those with Secure Boot are, change a volume that PCR 0 covers before they measure it.
#[track_caller]
pub(crate) fn assert_as_predicted_but_for_pcr_0(stopped: &Stopped, prediction: &Value) {
    assert_events(stopped, prediction, |pcr| pcr != 0);
}

/// QEMU's words for a direct boot of the minimal image, and its command line.
pub(crate) fn direct_words(image: &Path) -> (Vec<String>, String) {
    let cmdline = std::fs::read_to_string(image.join("cmdline")).unwrap();
    let path = |name: &str| image.join(name).display().to_string();
    let words =
        ["-kernel".into(), path("vmlinuz"), "-initrd".into(), path("initrd"), "-append".into(), cmdline.clone()];
    (words.to_vec(), cmdline)
}

/// The image of `minimal-disk`; `None` (and a word why) where its recipe was not named.
pub(crate) fn unified_image(bench: &Bench, directory: &Path) -> Option<PathBuf> {
    let Some(recipe) = std::env::var_os("BULLION_TEST_DISK_RECIPE") else {
        e2e::skipped("BULLION_TEST_DISK_RECIPE is set by scripts/test only");
        return None;
    };
    let image = directory.join("image");
    bench.run([OsStr::new("build"), &recipe, OsStr::new("-o"), image.as_os_str()]).expect(0, &[]);
    Some(image.join("uki.efi"))
}

/// The slot that the disk of these tests is in: not the one that QEMU would choose.
pub(crate) const SLOT: &str = "05.0";

/// QEMU's words for the disk of `minimal-disk`; what is written to it is forgotten.
pub(crate) fn disk_words(image: &Path) -> Vec<String> {
    let drive = format!("if=none,id=disk,format=raw,snapshot=on,file={}", image.join("disk.raw").display());
    let device = format!("virtio-blk-pci,drive=disk,addr=0x{SLOT}");
    ["-drive".to_owned(), drive, "-device".to_owned(), device].to_vec()
}

/// The same where QEMU's boot order names the disk.
pub(crate) fn ordered_disk_words(image: &Path) -> Vec<String> {
    let mut words = disk_words(image);
    words[3].push_str(",bootindex=0");
    words
}
