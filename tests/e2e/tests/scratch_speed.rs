//! How fast scratch is beside what `cryptsetup` would have opened: two disks of one guest, one as the guest opened it, the
//! other taken away from it and opened again by `cryptsetup` in plain mode with the same cipher, key length and sector size.
//! Writes and reads of both alternate. A benchmark, and so not run with the others:
//!
//!   cargo test -p bullion-e2e --test scratch_speed -- --ignored --nocapture
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::container::Archive;
use e2e::{bench, skipped};

/// In a command of Kubernetes, two dollar signs are one.
const SCRIPT: &str = r#"
node() { for disk in /sys/block/dm-*; do busybox test "$(busybox cat $disk/dm/name)" = $1 && busybox echo /dev/${disk##*/}; done; }
unmount() { busybox nsenter -t 1 -m /proc/$$$$/root/bin/busybox umount $1; }
cryptsetup() { /lib/ld-linux-x86-64.so.2 --library-path /lib /bin/cryptsetup "$@"; }
write() { busybox time -p busybox dd if=/dev/zero of=$1 bs=1M count=64 oflag=direct 2>&1 | busybox tr '\n' ' '; }
read() { busybox time -p busybox dd if=$1 of=/dev/null bs=1M count=64 iflag=direct 2>&1 | busybox tr '\n' ' '; }
set -e
export DM_DISABLE_UDEV=1
ours=$(node vol-ours) theirs=$(node vol-theirs)
disk=/dev/$(busybox ls /sys/block/${theirs##*/}/slaves)
unmount /var/ours
unmount /var/theirs
cryptsetup close vol-theirs
busybox dd if=/dev/urandom of=/key bs=64 count=1 2> /dev/null
cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 512 --sector-size 4096 --key-file /key $disk again
theirs=/dev/mapper/again
for round in 1 2 3 4 5 6 7 8 9; do
  busybox echo "ours write $(write $ours)"
  busybox echo "theirs write $(write $theirs)"
  busybox echo "theirs read $(read $theirs)"
  busybox echo "ours read $(read $ours)"
done
"#;

/// A container image with busybox, and `cryptsetup` with its libraries, all from the tree of judges.
fn tools() -> Option<Archive> {
    let busybox = Path::new(&std::env::var_os("BULLION_TOOLS").unwrap_or_default()).join("../share/busybox");
    let Ok(busybox) = busybox.canonicalize() else {
        skipped("busybox is not beside BULLION_TOOLS");
        return None;
    };
    let usr = busybox.parent()?.parent()?;
    let (libraries, program) = (usr.join("lib/x86_64-linux-gnu"), usr.join("sbin/cryptsetup"));
    let mut loader = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    let listed = e2e::run(loader.arg("--library-path").arg(&libraries).arg("--list").arg(&program));
    let needed = listed.stdout.lines().filter_map(|line| line.split_once(" => ")?.1.split(' ').next());
    let mut files: Vec<(String, PathBuf)> =
        needed.map(|path| (format!("lib/{}", path.rsplit('/').next().unwrap()), PathBuf::from(path))).collect();
    files.extend([("bin/busybox".to_owned(), busybox), ("bin/cryptsetup".to_owned(), program)]);
    let contents: Vec<Vec<u8>> = files.iter().map(|(_, path)| std::fs::read(path).unwrap()).collect();
    let layer: Vec<(&str, &[u8], u32)> =
        files.iter().zip(&contents).map(|((path, _), content)| (path.as_str(), content.as_slice(), 0o755)).collect();
    Some(Archive::of_files("localhost/tools:1", &layer))
}

fn description(tools: &Archive) -> String {
    // Podman writes the YAML anew before it reads it, and loses its way where a text starts with an empty line.
    let script = SCRIPT.trim().replace('\n', "\n      ");
    let pods = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  hostPID: true\n  restartPolicy: Never\n  containers:\n  - name: a\n    image: localhost/tools:1\n    securityContext:\n      privileged: true\n    command:\n    - busybox\n    - sh\n    - -c\n    - |\n      {script}\n"
    );
    let volume = |name: &str| {
        format!(
            "[[guest.volume]]\nname = \"{name}\"\nuse = \"scratch\"\nmount = \"/var/{name}\"\n[[host.volume]]\nname = \"{name}\"\npath = \"{name}.img\"\n"
        )
    };
    let archive = tools.volume("tools", "tools.tar");
    format!(
        "[guest.workload]\noutput = \"to-host\"\npods = '''\n{pods}'''\n{archive}{}{}",
        volume("ours"),
        volume("theirs")
    )
}

/// The seconds that lines behind `what` say, each of a `dd` that went all the way.
fn seconds(printed: &str, what: &str) -> Vec<f64> {
    let lines = printed.lines().filter(|line| line.starts_with(what));
    lines.filter_map(|line| line.split_once("64+0 records out real ")?.1.split(' ').next()?.parse().ok()).collect()
}

#[test]
#[ignore = "a benchmark"]
fn scratch_is_as_fast_as_cryptsetup_makes_it() {
    let Some(bench) = bench() else { return };
    let directory = tempfile::tempdir().unwrap();
    let (Some(tools), Some(image)) = (tools(), bench.container()) else { return };
    std::fs::write(directory.path().join("tools.tar"), &tools.bytes).unwrap();
    for name in ["ours.img", "theirs.img"] {
        // Written once before, so that no run pays for making room on the host's disk.
        std::fs::write(directory.path().join(name), vec![0; 96 << 20]).unwrap();
    }
    let vm = bench.container_vm(directory.path(), "t-speed", image, &description(&tools));
    let run = bench.launch(&vm, &[]);
    let printed = bench.run(["logs", "t-speed", "--workload"]).expect(0, &[]).stdout;
    assert_eq!(run.code, 0, "{printed}\n{run:#?}");
    for what in ["write", "read"] {
        let (ours, theirs) = (seconds(&printed, &format!("ours {what}")), seconds(&printed, &format!("theirs {what}")));
        assert_eq!((ours.len(), theirs.len()), (9, 9), "{printed}");
        let mut ratios: Vec<f64> = theirs.iter().zip(&ours).map(|(theirs, ours)| theirs / ours).collect();
        ratios.sort_by(f64::total_cmp);
        eprintln!("{what}: {:.2} times as fast as cryptsetup ({:.2} to {:.2})", ratios[4], ratios[0], ratios[8]);
        assert!(ratios[4] >= 0.95, "{printed}");
    }
}
