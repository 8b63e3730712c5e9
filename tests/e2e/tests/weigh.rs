//! Weighing files that no image holds together, and looking into firmware and event logs: against values that others
//! computed or that hardware signed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Bench, Run, bench, names, skipped, vector};
use serde_json::json;

/// Debian's AmdSevX64 build, and the digests that sev-snp-measure, the sev crate and igvmmeasure give for it.
const AMDSEV: &str = "snp/launch-digest/debian_2026.08+ds-2_OVMF.amdsev.fd";
const NO_KERNEL_1: &str =
    "d74bd3ea40b240c3228edc5177ce6193561ebff633dbd0be76d6c143b876d65102425c0e2e8a930857c48daa5eacda58";
const KERNEL_1: &str =
    "d27242bce11f7a0d928824bec2c26357eb8f0de00afc3541656f166b9119ba020e4b88bdd1540af188ddd7b263a34a2b";
const KERNEL_64: &str =
    "d7a1772772622ed8f4fd6b3421da4e81a411dcde0edb0ab6cc7e4421f4af7580db4602d00fe768dafb04f0c9cbe9f125";
/// Debian's IntelTdxX64 build with keys: three calculators agree on its MRTD.
const INTELTDX: &str = "tdx/firmware/debian-sid_ovmf-inteltdx_2026.08+ds-2_OVMF.inteltdx.ms.fd.xz";
const MRTD: &str = "a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08";
const MRTD_TWO_PASS: &str =
    "b90b236113eb4c0d4df4ef590568c14e6028a3a31d7e8ac63dee9845df5008d3ebf82d4f5974e933798f65d7a279b9a9";
/// What `virt-fw-vars` makes of it without PK, KEK, db and dbx.
const KEYLESS: &str = "424e12dec9d1e175f2e9f56ea73a76dc91dd59e28334ba77310a10dd1702d7e9";

fn measure_snp(bench: &Bench, firmware: &Path, words: &[&str]) -> Run {
    let mut arguments = vec!["measure", "snp", "--json", "--firmware", firmware.to_str().unwrap()];
    arguments.extend(words);
    bench.run(arguments)
}

/// The unpacked TDX firmware with keys.
fn inteltdx(directory: &Path) -> Option<PathBuf> {
    let packed = vector(INTELTDX)?;
    let Ok(unpacked) = Command::new("xz").arg("-dc").arg(packed).output() else {
        skipped("there is no xz to unpack firmware with");
        return None;
    };
    let path = directory.join("enrolled.fd");
    std::fs::write(&path, unpacked.stdout).unwrap();
    Some(path)
}

#[test]
fn snp_digests_of_files_and_hashes_are_those_of_other_tools() {
    let Some(bench) = bench() else { return };
    let Some(firmware) = vector(AMDSEV) else { return };
    let answer = measure_snp(&bench, &firmware, &["--vcpus", "1", "--cpu", "EPYC-v4", "--steps"]).expect(0, &[]).json();
    assert_eq!(answer["snp"][0]["launch_digest"], NO_KERNEL_1);
    assert_eq!(answer["inputs"]["kernel_hashes"], false);
    assert_eq!(answer["inputs"]["firmware"]["pin"]["name"], "debian-amdsev-2026.08");
    let steps = answer["snp"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.first().unwrap()["name"], "firmware");
    assert_eq!(steps[steps.len() - 2]["digest"], answer["seed"]);
    assert_eq!(steps.last().unwrap()["digest"], NO_KERNEL_1);

    let kernel = "d1bc2c60a78ae6979736d081bc3c90e45ace6baf414f767dff588e319d3492bd";
    let initrd = "f066b3b0b474461c844d5080c569c1f4da20ed52fe214dc6a49ec35c82244f9a";
    let words = ["--kernel-sha256", kernel, "--initrd-sha256", initrd, "--cmdline", "console=ttyS0 loglevel=7"];
    let shape = ["--vcpus", "1,64", "--cpu-signature", "0x800f12"];
    let answer = measure_snp(&bench, &firmware, &[words.as_slice(), &shape].concat()).expect(0, &[]).json();
    assert_eq!(answer["snp"][0]["launch_digest"], KERNEL_1);
    assert_eq!(answer["snp"][1]["launch_digest"], KERNEL_64);
}

/// Other VMMs, and older kinds of guests, as `sev-snp-measure` has them. What KVM does to the FPU of a SEV-ES guest depends on the VM type.
#[test]
fn digests_of_other_vmms_and_older_guests_are_those_of_sev_snp_measure() {
    let Some(bench) = bench() else { return };
    let Some(firmware) = vector(AMDSEV) else { return };
    let path = |name: &str| bench.image().join(name).display().to_string();
    let (kernel, initrd) = (path("vmlinuz"), path("initrd"));
    let boot = ["--kernel", &kernel, "--initrd", &initrd, "--cmdline", "console=ttyS0"];
    for (ours, theirs) in [
        (&["--vmm", "ec2", "--vcpus", "4"][..], &["--mode", "snp", "--vmm-type", "ec2"][..]),
        (&["--vmm", "gce-milan", "--vcpus", "4"], &["--mode", "snp", "--vmm-type", "gce"]),
        (&["--mode", "sev-es", "--vmm", "qemu-kvm", "--vcpus", "4"], &["--mode", "seves"]),
        (&["--mode", "sev"], &["--mode", "sev"]),
    ] {
        let answer = measure_snp(&bench, &firmware, &[&boot[..], ours].concat()).expect(0, &[]).json();
        let Some(mut judge) = e2e::judge("sev-snp-measure") else { return };
        judge.args(theirs).args(["--vcpus", "4", "--vcpu-type", "EPYC-v4", "--guest-features", "0x1", "--ovmf"]);
        judge.arg(&firmware).args(["--kernel", &kernel, "--initrd", &initrd, "--append", "console=ttyS0"]);
        let output = judge.output().unwrap();
        assert!(output.status.success(), "{theirs:?}: {}", String::from_utf8_lossy(&output.stderr));
        let rows = if ours.contains(&"--mode") { &answer["sev"] } else { &answer["snp"] };
        assert_eq!(rows[0]["launch_digest"], String::from_utf8(output.stdout).unwrap().trim(), "{ours:?}");
        e2e::documented("measure snp", &answer);
    }
    measure_snp(&bench, &firmware, &["--mode", "sev-es"]).expect(2, &["--vcpus"]);
    measure_snp(&bench, &firmware, &["--mode", "sev", "--vcpus", "4"]).expect(2, &["SEV measures no vCPU"]);
    measure_snp(&bench, &firmware, &["--vmm", "xen"]).expect(2, &["qemu-kvm", "gce-milan"]);
}

#[test]
fn files_and_the_image_they_are_from_have_the_same_digest() {
    let Some(bench) = bench() else { return };
    let image = bench.image();
    let path = |name: &str| image.join(name).display().to_string();
    let (kernel, initrd) = (path("vmlinuz"), path("initrd"));
    let line = std::fs::read_to_string(image.join("cmdline")).unwrap();
    let words = ["--kernel", &kernel, "--initrd", &initrd, "--cmdline", &line, "--vcpus", "1,8", "--cpu", "EPYC-Genoa"];
    let files = measure_snp(&bench, &image.join("firmware-snp.fd"), &words).expect(0, &[]).json();
    let words = ["--tee", "snp", "--vcpus", "1,8", "--cpu", "EPYC-Genoa", "--json"];
    let whole = bench.run(["measure", image.to_str().unwrap()].into_iter().chain(words)).expect(0, &[]).json();
    for index in [0, 1] {
        assert_eq!(files["snp"][index]["launch_digest"], whole["snp"][index]["launch_digest"]);
    }
}

#[test]
fn what_depends_on_the_firmware_alone_needs_no_shape() {
    let Some(bench) = bench() else { return };
    let firmware = bench.image().join("firmware-snp.fd");
    let answer = measure_snp(&bench, &firmware, &[]).expect(0, &[]).json();
    assert_eq!(answer.get("snp"), None);
    assert_eq!(answer["seed"].as_str().unwrap().len(), 96);
    assert!(answer["sections"].as_array().unwrap().iter().any(|section| section["name"] == "KERNEL_HASHES"));
}

#[test]
fn words_that_contradict_each_other_are_refused() {
    let Some(bench) = bench() else { return };
    let image = bench.image().to_str().unwrap();
    let firmware = bench.image().join("firmware-snp.fd");
    measure_snp(&bench, &firmware, &["--cmdline", "quiet"]).expect(2, &["--kernel"]);
    measure_snp(&bench, &firmware, &["--vcpus", "0"]).expect(2, &["0 vCPUs"]);
    measure_snp(&bench, &firmware, &["--vcpus", "1", "--cpu", "host"]).expect(2, &["hint:", "--cpu-signature"]);
    measure_snp(&bench, &firmware, &["--kernel-sha256", "abc"]).expect(2, &["64 hex digits"]);
    measure_snp(&bench, Path::new("no-such.fd"), &[]).expect(2, &["no-such.fd"]);
    measure_snp(&bench, &bench.image().join("initrd"), &[]).expect(4, &["no OVMF table", "hint:"]);
    let firmware = firmware.to_str().unwrap();
    bench.run(["measure", image, "snp", "--firmware", firmware]).expect(2, &["an image", "hint:"]);
    bench.run(["measure", "--vcpus", "1", "snp", "--firmware", firmware]).expect(2, &["--vcpus", "hint:"]);
    bench.run(["measure"]).expect(2, &["IMAGE_OR_VM"]);
}

#[test]
fn mrtd_is_that_of_other_calculators_and_does_not_depend_on_keys() {
    let Some(bench) = bench() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let Some(enrolled) = inteltdx(scratch.path()) else { return };
    let enrolled = enrolled.to_str().unwrap();
    let measure =
        |words: &[&str]| bench.run([&["measure", "tdx", "--json", "--firmware"], words].concat()).expect(0, &[]).json();
    assert_eq!(measure(&[enrolled])["mrtd"], MRTD);
    assert_eq!(measure(&[enrolled, "--two-pass"])["mrtd"], MRTD_TWO_PASS);
    let steps = measure(&[enrolled, "--steps"]);
    assert_eq!(steps["steps"].as_array().unwrap().last().unwrap()["digest"], MRTD);

    let keyless = scratch.path().join("keyless.fd");
    let words = ["firmware", "derive", enrolled, "--without-keys", "--json", "-o", keyless.to_str().unwrap()];
    let derived = bench.run(words).expect(0, &[]).json();
    assert_eq!(derived["firmware"]["sha256"], KEYLESS);
    assert_eq!(derived["removed"], json!(["KEK", "PK", "db", "dbx"]));
    assert_eq!(derived["mrtd"], MRTD);
    bench.run(words).expect(2, &["is there already", "--replace"]);
    bench.run(words.into_iter().chain(["--replace"])).expect(0, &[]);
    assert_eq!(names(scratch.path()), ["enrolled.fd", "keyless.fd"]);

    let show = |path: &str| bench.run(["firmware", "show", path, "--json"]).expect(0, &[]).json();
    assert_eq!(show(enrolled)["variables"]["keys_enrolled"], true);
    let shown = show(keyless.to_str().unwrap());
    assert_eq!(shown["variables"]["keys_enrolled"], false);
    assert_eq!(shown["firmware"]["pin"]["name"], "debian-inteltdx-keyless-2026.08");
    assert_eq!(shown["tdx"]["mrtd"], MRTD);
}

#[test]
fn an_image_ships_the_firmware_that_starts_its_kernel() {
    let Some(bench) = bench() else { return };
    if bench.unpublished {
        return skipped("the firmware of an UNPUBLISHED lock may be another");
    }
    let path = bench.image().join("firmware-tdx.fd");
    let shown = bench.run(["firmware", "show", path.to_str().unwrap(), "--json"]).expect(0, &[]).json();
    assert_eq!(shown["firmware"]["sha256"], KEYLESS);
    assert_eq!(shown["variables"]["keys_enrolled"], false);
    assert_eq!(shown["tdx"]["mrtd"], MRTD);
}

/// What confidential-containers/trustee and google/go-eventlog publish for these logs: the first bytes of RTMR0 to RTMR2.
#[test]
fn event_logs_replay_to_published_registers() {
    let Some(bench) = bench() else { return };
    for (path, prefixes) in [
        ("trustee/CCEL_data", ["2dc71230", "0fa3be56", "00000000"]),
        ("trustee/CCEL_data_ovmf", ["8566f998", "775b9f6b", "94eaf7a7"]),
        ("trustee/CCEL_data_gcp", ["33009807", "204d49f7", "00000000"]),
        ("go-eventlog/cos-113-intel-tdx-dupe-separator.bin", ["a4de2df2", "0ee9366c", "4969684d"]),
    ] {
        let Some(log) = vector(&format!("tdx/ccel/{path}")) else { return };
        let answer = bench.run(["eventlog", "replay", log.to_str().unwrap(), "--json"]).expect(0, &[]).json();
        for (name, prefix) in ["rtmr0", "rtmr1", "rtmr2"].into_iter().zip(prefixes) {
            assert!(answer[name].as_str().unwrap().starts_with(prefix), "{path}: {answer}");
        }
    }
}

#[test]
fn what_a_log_should_not_have_is_reported_and_under_strict_refused() {
    let Some(bench) = bench() else { return };
    let Some(log) = vector("tdx/ccel/go-eventlog/cos-113-intel-tdx-dupe-separator.bin") else { return };
    let log = log.to_str().unwrap();
    let shown = bench.run(["eventlog", "show", log, "--json"]).expect(0, &["tolerated", "separator number 2"]).json();
    assert_eq!(shown["tolerated"].as_array().unwrap().len(), 1);
    assert_eq!(shown["events"][0]["register"], "RTMR0");
    bench.run(["eventlog", "replay", log, "--strict"]).expect(6, &["separator number 2", "hint:"]);

    let scratch = tempfile::tempdir().unwrap();
    let cut = scratch.path().join("cut");
    let whole = std::fs::read(vector("tdx/ccel/trustee/CCEL_data_gcp").unwrap()).unwrap();
    std::fs::write(&cut, &whole[..1000]).unwrap();
    let cut = cut.to_str().unwrap();
    bench.run(["eventlog", "replay", cut]).expect(0, &["tolerated", "cut off"]);
    bench.run(["eventlog", "replay", cut, "--strict"]).expect(4, &["cut off", "hint:"]);
    let image = bench.image().join("initrd");
    bench.run(["eventlog", "show", image.to_str().unwrap()]).expect(4, &["not a TCG event log"]);
}
