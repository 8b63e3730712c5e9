//! The disk with the root file system: other bits, before the boot, in it and after it; other sizes; other disks.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use serde_json::json;
use spec::agent::CONSOLE_READY;

use crate::attack::{Attack, By, Means, OnRelease, Outcome};
use crate::guests::Guest;
use crate::machine::Machine;
use crate::nbd::Answer;
use crate::setup::Setup;

const BLOCK: u64 = 4096;
/// EIO.
const INPUT_OUTPUT_ERROR: u32 = 5;

const fn stopped(
    name: &'static str,
    host: &'static str,
    (by, words): (By, &'static str),
    change: fn(&mut Setup),
) -> Attack {
    let outcome = Outcome::Stopped { by, words };
    Attack { name, host, release: OnRelease::Untried, guest: Guest::Minimal, means: Means::Before(change), outcome }
}

pub(super) const ATTACKS: &[Attack] = &[
    stopped(
        "bit-in-the-file-system",
        "flips a bit of the file system's superblock",
        (By::Kernel, "data block 0 is corrupted"),
        |setup| flip(setup, |_| 1024 + 40),
    ),
    stopped(
        "bit-in-the-verity-superblock",
        "flips a bit of the verity superblock",
        (By::Guest, "has the signature \"werity\", expected \"verity\""),
        |setup| flip(setup, |blocks| blocks * BLOCK),
    ),
    stopped("another-salt", "flips a bit of the salt there", (By::Guest, "has the salt "), |setup| {
        flip(setup, |blocks| blocks * BLOCK + 88)
    }),
    stopped(
        "bit-in-the-top-of-the-tree",
        "flips a bit of the block at the top of the verity tree",
        (By::Guest, "FAILED verity: the top of the verity tree"),
        |setup| flip(setup, |blocks| (blocks + 1) * BLOCK),
    ),
    stopped("bit-below-the-top-of-the-tree", "flips a bit one level lower", (By::Kernel, "metadata block "), |setup| {
        flip(setup, |blocks| (blocks + 2) * BLOCK)
    }),
    stopped("short-disk", "cuts the disk", (By::Guest, "expected at least"), |setup| {
        drop(setup.change("rootfs", |bytes| bytes.truncate(bytes.len() / 2 / 4096 * 4096)))
    }),
    stopped(
        "empty-disk",
        "gives a disk of zeros",
        (By::Guest, "has the signature \"\", expected \"verity\""),
        |setup| drop(setup.change("rootfs", |bytes| bytes.fill(0))),
    ),
    stopped(
        "no-disk",
        "gives no disk with a root file system",
        (By::Guest, "FAILED root-device: no virtio disk with the serial number \"bullion-root\""),
        |setup| setup.replace("-device", "serial=bullion-root", "serial=bullion-boot"),
    ),
    stopped(
        "swapped-disks",
        "swaps the names of the disks of root and configuration",
        (By::Guest, "FAILED verity: /dev/vdb has 4096 bytes"),
        |setup| {
            setup.replace("-device", "serial=bullion-config", "serial=bullion-other");
            setup.replace("-device", "serial=bullion-root", "serial=bullion-config");
            setup.replace("-device", "serial=bullion-other", "serial=bullion-root");
        },
    ),
    stopped(
        "two-roots",
        "gives two disks with the name of the root's",
        (By::Guest, "FAILED root-device: the disks vda, vdb all have the serial number \"bullion-root\""),
        |setup| setup.replace("-device", "serial=bullion-config", "serial=bullion-root"),
    ),
    stopped(
        "reads-that-fail",
        "answers reads of the file system with errors",
        (By::Kernel, "I/O error, dev vda, sector 0 "),
        |setup| setup.serve_root(Box::new(|offset, _| if offset == 0 { Err(INPUT_OUTPUT_ERROR) } else { Ok(()) })),
    ),
    stopped(
        "bait-and-switch",
        "shows the top of the tree as it should be when the guest looks, and another to its kernel",
        (By::Kernel, "metadata block "),
        |setup| {
            let top = blocks(setup) + 1;
            setup.serve_root(second_time(top));
        },
    ),
    Attack {
        name: "bit-after-boot",
        release: OnRelease::Untried,
        host: "flips one bit, of the first block of the file system that the guest reads once it is ready",
        guest: Guest::Container,
        means: Means::Before(|setup| {
            let answer = once_ready(setup);
            setup.serve_root(answer);
        }),
        outcome: Outcome::Stopped { by: By::Kernel, words: "data block " },
    },
    Attack {
        name: "shrinking-disk",
        release: OnRelease::Untried,
        host: "lets the disk shrink once the guest is ready",
        guest: Guest::Container,
        means: Means::OnceReady(writable, |machine| {
            machine.qmp("block_resize", &json!({ "node-name": "rootfs", "size": 4096 })).map(drop)
        }),
        outcome: Outcome::Stopped { by: By::Kernel, words: "dm-verity device has I/O error" },
    },
    Attack {
        name: "bits-after-boot",
        release: OnRelease::Untried,
        host: "flips bits of the root file system once the guest is ready",
        guest: Guest::Container,
        means: Means::OnceReady(|setup| drop(setup.change("rootfs", |_| ())), flip_everywhere),
        outcome: Outcome::Stopped { by: By::Kernel, words: "dm-verity device corrupted" },
    },
    Attack {
        name: "long-disk",
        release: OnRelease::Untried,
        host: "gives a disk with more behind the image",
        guest: Guest::Minimal,
        means: Means::Before(|setup| drop(setup.change("rootfs", |bytes| bytes.resize(bytes.len() + (8 << 20), 0xff)))),
        outcome: Outcome::NoEffect { because: "nobody reads it", words: "" },
    },
    Attack {
        name: "growing-disk",
        release: OnRelease::Untried,
        host: "lets the disk grow while the guest runs",
        guest: Guest::Minimal,
        means: Means::OnceReady(writable, |machine| {
            machine.qmp("block_resize", &json!({ "node-name": "rootfs", "size": 64 << 20 })).map(drop)
        }),
        outcome: Outcome::NoEffect { because: "the verified device has the size that was measured", words: "" },
    },
    Attack {
        name: "slow-disk",
        release: OnRelease::Untried,
        host: "takes its time over each read",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.serve_root(Box::new(|_, _| {
                std::thread::sleep(Duration::from_millis(40));
                Ok(())
            }));
        }),
        outcome: Outcome::NoEffect { because: "the guest waits", words: "" },
    },
];

/// How many data blocks the image has.
fn blocks(setup: &mut Setup) -> u64 {
    let line = setup.value("-append", "bullion.blocks=").clone();
    line.split("bullion.blocks=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

fn flip(setup: &mut Setup, place: fn(u64) -> u64) {
    let at = usize::try_from(place(blocks(setup))).unwrap();
    drop(setup.change("rootfs", |bytes| bytes[at] ^= 1));
}

/// Answers the first read of a block with what is there, and later ones with a bit flipped.
fn second_time(block: u64) -> Answer {
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    Box::new(move |offset, data| {
        let Some(at) = (block * BLOCK).checked_sub(offset).and_then(|at| usize::try_from(at).ok()) else {
            return Ok(());
        };
        if let Some(byte) = data.get_mut(at) {
            let times = seen.entry(block).or_default();
            *times += 1;
            if *times > 1 {
                *byte ^= 1;
            }
        }
        Ok(())
    })
}

/// Flips a bit of the first block of data that is read once the guest has said that it is ready, whenever it is read: the kernel
/// reads a block that does not verify a second time (`verity_recheck`), and one of the tree it may never use.
fn once_ready(setup: &mut Setup) -> Answer {
    let (end, console, mut place) = (blocks(setup) * BLOCK, setup.path("console"), None);
    Box::new(move |offset, data| {
        let said = || std::fs::read(&console).unwrap_or_default();
        let is_ready = || String::from_utf8_lossy(&said()).contains(CONSOLE_READY);
        if place.is_none() && offset < end && is_ready() {
            place = Some(offset);
        }
        let at = place.and_then(|place| usize::try_from(place.checked_sub(offset)?).ok());
        if let Some(byte) = at.and_then(|at| data.get_mut(at)) {
            *byte ^= 1;
        }
        Ok(())
    })
}

/// Gives the machine a copy of the disk that QEMU may change.
fn writable(setup: &mut Setup) {
    drop(setup.change("rootfs", |_| ()));
    setup.replace("-blockdev", "node-name=rootfs,", "node-name=rootfs,auto-read-only=on,");
    setup.replace("-blockdev", "read-only=on", "read-only=off");
}

/// A bit in every block of the data behind its first.
fn flip_everywhere(machine: &mut Machine) -> Result<(), String> {
    let file = File::options().read(true).write(true).open(machine.setup().path("rootfs")).unwrap();
    let blocks = file.metadata().unwrap().len() / BLOCK;
    for block in 1..blocks {
        let mut byte = [0];
        file.read_exact_at(&mut byte, block * BLOCK).unwrap();
        file.write_all_at(&[byte[0] ^ 1], block * BLOCK).unwrap();
    }
    Ok(())
}
