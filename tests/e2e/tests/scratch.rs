//! What a scratch volume hides, and that it can be a block device of the host, or a drive of the guest's own.
//!
//! That a disk does not hold a text is a proof only where the same search finds the text in the clear: a privileged container
//! looks above the cipher, this test below it, in the same boot.
#![allow(clippy::unwrap_used, missing_docs)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::cipher::assert_hidden;
use e2e::container::Archive;
use e2e::passed::{self, PassedDrive};
use e2e::{Bench, Run, bench, skipped};

const MARKER: &str = "the container of this test was here";

/// A file of the host as a block device.
struct LoopDevice(PathBuf);

impl LoopDevice {
    /// `None` (and a word why) where this user cannot have one.
    fn of(file: &Path) -> Option<Self> {
        let output =
            Command::new("losetup").args([OsStr::new("--find"), OsStr::new("--show"), file.as_os_str()]).output();
        let device = output.ok().filter(|output| output.status.success())?;
        Some(Self(PathBuf::from(String::from_utf8(device.stdout).unwrap().trim())))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// Runs the words behind it with a `/dev` in which the block device `$2` has the name that `$3` says below `/dev/disk/by-id`,
/// put together in the directory `$1`. The machine's own `/dev` stays as it is.
const WITH_NAME: &str = r#"
set -e
new=$1 device=$2 name=$3; shift 3
mount -t tmpfs none "$new"
for node in null zero full random urandom kvm "${device#/dev/}"; do
  [ -e "/dev/$node" ] || continue
  : > "$new/$node"; mount --bind "/dev/$node" "$new/$node"
done
mkdir -p "$new/disk/by-id" "$new/shm" "$new/pts"
ln -s "../../${device#/dev/}" "$new/disk/by-id/$name"
mount --rbind "$new" /dev
exec "$@"
"#;

fn launch_with_name(bench: &Bench, vm: &Path, device: &Path, directory: &Path) -> Run {
    let new = directory.join("dev");
    std::fs::create_dir(&new).unwrap();
    let mut command = Command::new("timeout");
    command.args(["500", "unshare", "--mount", "sh", "-c", WITH_NAME, "sh"]).arg(new).arg(device).arg("of-a-test");
    command.arg(&bench.bullion).arg("launch").arg(vm).args(bench.vmm_words());
    e2e::run(bench.at_home(&mut command))
}

/// One container writes, the other looks for it on the device that its file system is on.
fn pods() -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata:
  name: a
spec:
  restartPolicy: Never
  containers:
  - name: writes
    image: localhost/app:1
  - name: looks
    image: localhost/busybox:1
    securityContext:
      privileged: true
    command:
    - busybox
    - sh
    - -c
    - |
      for disk in /sys/block/dm-*; do
        busybox test "$(busybox cat $disk/dm/name)" = vol-tmp && device=/dev/${{disk##*/}}
      done
      busybox sync
      busybox tr '\000' '\n' < $device | busybox grep -qF '{MARKER}' && busybox echo found above the cipher
"#
    )
}

/// Writes the archives of the containers into `directory`. What a description has for them and for a scratch volume `tmp` with `keys`;
/// `None` (and a word why) where busybox is not there.
fn description(directory: &Path, keys: &str) -> Option<String> {
    let (app, busybox) = (Archive::new(MARKER, 0), Archive::busybox()?);
    std::fs::write(directory.join("app.tar"), &app.bytes).unwrap();
    std::fs::write(directory.join("busybox.tar"), &busybox.bytes).unwrap();
    Some(format!(
        "[guest.workload]\noutput = \"to-host\"\npods = '''{}'''\n{}{}[[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n{keys}",
        pods(),
        app.volume("app", "app.tar"),
        busybox.volume("busybox", "busybox.tar")
    ))
}

/// Asserts that the guest `name` saw the text above the cipher, and that `disk` was written to and does not hold it.
fn is_in_the_clear_above_the_cipher_alone(bench: &Bench, name: &str, disk: &Path) {
    let printed = bench.run(["logs", name, "--workload"]).expect(0, &[]).stdout;
    assert!(printed.lines().any(|line| line == "found above the cipher"), "{printed}");
    // What the container wrote, and what every ext4 file system holds.
    assert_hidden(&std::fs::read(disk).unwrap(), &[MARKER, "lost+found"]);
}

#[test]
fn what_is_in_the_clear_above_the_cipher_is_nowhere_on_the_hosts_disk() {
    let Some(bench) = bench() else { return };
    let Some(image) = bench.container() else { return };
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("tmp.img");
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let device = LoopDevice::of(&disk);
    let path = if device.is_some() { "/dev/disk/by-id/of-a-test" } else { "tmp.img" };
    let keys = format!("[[host.volume]]\nname = \"tmp\"\npath = \"{path}\"\n");
    let Some(more) = description(directory.path(), &keys) else { return };
    let vm = bench.container_vm(directory.path(), "t-above", image, &more);
    let run = match &device {
        Some(device) => launch_with_name(&bench, &vm, &device.0, directory.path()),
        None => {
            skipped("a block device as a volume: losetup gives none to this user");
            bench.launch(&vm, &[])
        }
    };
    run.expect(0, &["exit code 0"]);
    drop(device);
    is_in_the_clear_above_the_cipher_alone(&bench, "t-above", &disk);
}

#[test]
fn scratch_on_a_drive_that_is_passed_whole_is_cipher_and_drives_are_counted() {
    let Some(bench) = bench() else { return };
    let (Some(image), Some(host)) = (bench.container(), PassedDrive::find()) else { return };
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("drive.img");
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let keys = format!("on = \"nvme\"\n[[host.pci]]\naddress = \"{}\"\nvolume = \"tmp\"\n", passed::ADDRESS);
    let Some(more) = description(directory.path(), &keys) else { return };
    let vm = bench.container_vm(directory.path(), "t-drive", image, &more);
    let plan = host.launch(&bench, &vm, (&disk, 1), &["--plan"]).expect(0, &[]).stdout;
    for line in [
        format!("volume       tmp {} (NVMe drive passed whole, scratch: what it holds is lost)", passed::ADDRESS),
        format!("note         nobody can see what the NVMe drive {} holds", passed::ADDRESS),
    ] {
        assert!(plan.contains(&line), "{line}: {plan}");
    }
    for (drives, found) in [(0, "there are 0 NVMe controllers"), (2, "there are 2 NVMe controllers")] {
        let words = [found, "the configuration has volumes on 1"];
        host.launch(&bench, &vm, (&disk, drives), &[]).expect(7, &words);
        assert!(std::fs::read(&disk).unwrap().iter().all(|byte| *byte == 0), "a guest that stops writes nothing");
    }
    host.launch(&bench, &vm, (&disk, 1), &[]).expect(0, &["exit code 0"]);
    is_in_the_clear_above_the_cipher_alone(&bench, "t-drive", &disk);
}
