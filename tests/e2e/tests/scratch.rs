//! What a scratch volume hides, and that it can be a block device of the host.
//!
//! That a disk does not hold a text is a proof only where the same search finds the text in the clear: a privileged container
//! looks above the cipher, this test below it, in the same boot.
#![allow(clippy::unwrap_used, missing_docs)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::container::Archive;
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

#[test]
fn what_is_in_the_clear_above_the_cipher_is_nowhere_on_the_hosts_disk() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (app, Some(busybox), Some(image)) = (Archive::new(MARKER, 0), Archive::busybox(), bench.container()) else {
        return;
    };
    std::fs::write(directory.path().join("app.tar"), &app.bytes).unwrap();
    std::fs::write(directory.path().join("busybox.tar"), &busybox.bytes).unwrap();
    let disk = directory.path().join("tmp.img");
    std::fs::File::create(&disk).unwrap().set_len(64 << 20).unwrap();
    let device = LoopDevice::of(&disk);
    let path = if device.is_some() { "/dev/disk/by-id/of-a-test" } else { "tmp.img" };
    let more = format!(
        "[guest.workload]\noutput = \"to-host\"\npods = '''{}'''\n{}{}[[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n[[host.volume]]\nname = \"tmp\"\npath = \"{path}\"\n",
        pods(),
        app.volume("app", "app.tar"),
        busybox.volume("busybox", "busybox.tar")
    );
    let vm = bench.container_vm(directory.path(), "t-above", image, &more);
    let run = match &device {
        Some(device) => launch_with_name(&bench, &vm, &device.0, directory.path()),
        None => {
            skipped("a block device as a volume: losetup gives none to this user");
            bench.launch(&vm, &[])
        }
    };
    run.expect(0, &["exit code 0"]);
    let printed = bench.run(["logs", "t-above", "--workload"]).expect(0, &[]).stdout;
    assert!(printed.lines().any(|line| line == "found above the cipher"), "{printed}");
    drop(device);
    let bytes = std::fs::read(&disk).unwrap();
    let written = bytes.chunks(4096).filter(|block| block.iter().any(|byte| *byte != 0)).count();
    assert!(written > 100, "the guest wrote {written} blocks only: this shows nothing");
    assert!(!bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes()), "the disk holds it in the clear");
}
