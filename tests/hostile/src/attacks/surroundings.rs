//! What the guest is in: the clock, entropy, memory, processors, and when it starts again.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::attack::{Attack, Means, OTHER_TABLES, OnRelease, Outcome};
use crate::guests::{Guest, bench};
use crate::machine::{Machine, State};
use crate::setup::Setup;

const CLOCK: Outcome =
    Outcome::NotNoticed { but: "the guest has no other clock; nothing that it decides today depends on the time" };

const fn other(name: &'static str, host: &'static str, outcome: Outcome, change: fn(&mut Setup)) -> Attack {
    Attack { name, host, release: OnRelease::Same, guest: Guest::Minimal, means: Means::Before(change), outcome }
}

/// The machine's tables say so, and no release names them.
const fn other_machine(name: &'static str, host: &'static str, but: &'static str, change: fn(&mut Setup)) -> Attack {
    let outcome = Outcome::NotNoticed { but };
    Attack { name, host, release: OTHER_TABLES, guest: Guest::Minimal, means: Means::Before(change), outcome }
}

pub(super) const ATTACKS: &[Attack] = &[
    other("clock-of-1970", "sets the clock to 1970", CLOCK, |setup| setup.add("-rtc", "base=1970-01-01T00:00:00")),
    other("clock-of-2100", "sets the clock to 2100", CLOCK, |setup| setup.add("-rtc", "base=2099-12-31T23:59:50")),
    Attack {
        name: "stepping-clock",
        release: OnRelease::Same,
        host: "stops the guest and lets it go on, again and again",
        guest: Guest::Minimal,
        means: Means::Running(|machine| {
            for _ in 0..4 {
                machine.qmp("stop", &json!({}))?;
                std::thread::sleep(Duration::from_secs(1));
                machine.qmp("cont", &json!({}))?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }),
        outcome: CLOCK,
    },
    other(
        "no-entropy",
        "hides the processor's random number instructions",
        Outcome::NoEffect { because: "the kernel's generator waits for its own noise", words: "" },
        without_random_numbers,
    ),
    other(
        "plain-processor",
        "gives a processor without AES, AVX and the like",
        Outcome::NoEffect { because: "the kernel has other code for it", words: "" },
        |setup| setup.set("-cpu", "qemu64"),
    ),
    other_machine(
        "less-memory",
        "gives half of the memory",
        "on TDX it is in RTMR0 (TD HOB); on SEV-SNP nothing shows it",
        |setup| setup.set("-m", "256M"),
    ),
    other_machine("more-memory", "gives twice the memory", "the same", |setup| setup.set("-m", "1G")),
    other_machine(
        "more-processors",
        "gives three vCPUs instead of one",
        "in a TEE the number of vCPUs is measured",
        |setup| setup.set("-smp", "3,sockets=1,cores=3,threads=1"),
    ),
    Attack {
        name: "resets",
        release: OnRelease::Same,
        host: "resets the guest at random moments of its start",
        guest: Guest::Minimal,
        means: Means::WhileStarting(
            |setup| setup.arguments.retain(|(option, _)| option != "-no-reboot"),
            |machine| {
                let mut moment = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.subsec_nanos());
                for _ in 0..5 {
                    moment = moment.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                    let pause = u64::from(moment >> 16) % 2500;
                    eprintln!("resets: after {pause} ms");
                    std::thread::sleep(Duration::from_millis(pause));
                    if machine.state() == State::Starting {
                        machine.qmp("system_reset", &json!({}))?;
                    }
                }
                Ok(())
            },
        ),
        outcome: Outcome::NoEffect { because: "each start begins from what is measured", words: "" },
    },
    Attack {
        name: "wiped-scratch",
        release: OnRelease::Untried,
        host: "wipes the scratch volume's disk while the guest starts, and gives one that holds something",
        guest: Guest::Container,
        means: Means::OnceReady(
            |setup| std::fs::write(setup.path("scratch"), vec![0x5a; SCRATCH_BYTES]).unwrap(),
            |machine| wipe(machine).and_then(|()| wait_for_volume(machine)),
        ),
        outcome: Outcome::NoEffect {
            because: "what is on it is never looked at; it has a key of each boot",
            words: "",
        },
    },
    Attack {
        name: "wiped-volume",
        release: OnRelease::Untried,
        host: "wipes the scratch volume's disk once the guest has written to it",
        guest: Guest::Container,
        means: Means::OnceReady(|_| (), |machine| wait_for_mount(machine).and_then(|()| wipe(machine))),
        outcome: Outcome::NotNoticed {
            but: "it is encrypted, not authenticated: what the guest reads back is noise, not what the host would choose",
        },
    },
    Attack {
        name: "no-entropy-for-a-key",
        release: OnRelease::Untried,
        host: "hides the processor's random number instructions from two guests that make a key each",
        guest: Guest::Container,
        means: Means::OnceReady(without_random_numbers, has_a_key_of_its_own),
        outcome: Outcome::NoEffect {
            because: "the keys differ: they are made of the kernel's generator, which waits for its own noise",
            words: "",
        },
    },
    Attack {
        name: "jumping-clock",
        release: OnRelease::Same,
        host: "lets the clock jump to the next timer whenever the guest has nothing to do",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.set("-accel", "tcg,thread=single");
            setup.add("-icount", "shift=3,sleep=off");
        }),
        outcome: CLOCK,
    },
];

const SCRATCH_BYTES: usize = 64 << 20;

fn wipe(machine: &mut Machine) -> Result<(), String> {
    std::fs::write(machine.setup().path("scratch"), vec![0; SCRATCH_BYTES]).map_err(|error| error.to_string())
}

fn without_random_numbers(setup: &mut Setup) {
    *setup.value("-cpu", "") += ",-rdrand,-rdseed";
}

const BLOCK_BYTES: usize = 4096;
/// The resize inode's double indirect block: mke2fs (1.47.2, with the guest's words) writes the same into it in each file system of this
/// size, and nobody writes to it again. Under one key, it would be the same on the host's disk.
const SAME_IN_ALL: usize = 1065;

/// Starts such a guest again and holds its disk beside the first one's.
fn has_a_key_of_its_own(machine: &mut Machine) -> Result<(), String> {
    let mut setup = bench().ok_or("there is no bench")?.setup(Guest::Container)?;
    without_random_numbers(&mut setup);
    let mut other = Machine::start(setup);
    let blocks = [wait_for_block(machine, SAME_IN_ALL)?, wait_for_block(&mut other, SAME_IN_ALL)?];
    if blocks[0] == blocks[1] { Err("two guests encrypt with one key".to_owned()) } else { Ok(()) }
}

/// Waits until the guest has written to the volume, whose disk is all zeros: it has a key then. A file system's first words are at its start.
fn wait_for_volume(machine: &mut Machine) -> Result<(), String> {
    wait_for_block(machine, 0).map(|_| ())
}

/// Waits until the guest has done with the beginning of the volume for a while: whoever makes a file system there mounts it at once, and that writes
/// to it once more.
fn wait_for_mount(machine: &mut Machine) -> Result<(), String> {
    let mut found = wait_for_block(machine, 0)?;
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let now = wait_for_block(machine, 0)?;
        if now == found {
            return Ok(());
        }
        found = now;
    }
}

/// What the guest has written to a block of the volume.
fn wait_for_block(machine: &mut Machine, block: usize) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + Duration::from_secs(300);
    let path = machine.setup().path("scratch");
    loop {
        let mut bytes = vec![0; BLOCK_BYTES];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, (block * BLOCK_BYTES) as u64));
        if read.is_ok() && bytes.iter().any(|byte| *byte != 0) {
            return Ok(bytes);
        }
        if machine.state() == State::Ended || Instant::now() > deadline {
            return Err(format!("nothing was written to the volume's block {block}: {}", machine.console()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// That two disks differ there says something only because two file systems do not.
    #[test]
    fn the_block_is_the_same_in_every_file_system() {
        let directory = tempfile::tempdir().unwrap();
        let block = |name: &str| {
            let path = directory.path().join(name);
            File::create(&path).unwrap().set_len(SCRATCH_BYTES as u64).unwrap();
            // The guest's words (guest/src/scratch.rs).
            let words = "-q -F -t ext4 -b 4096 -O ^has_journal -E nodiscard,lazy_itable_init=1";
            let made = Command::new("mke2fs").args(words.split(' ')).arg(&path).output().ok()?;
            assert!(made.status.success(), "{made:?}");
            let mut bytes = vec![0; BLOCK_BYTES];
            File::open(&path).unwrap().read_exact_at(&mut bytes, (SAME_IN_ALL * BLOCK_BYTES) as u64).unwrap();
            Some((bytes, std::fs::read(&path).unwrap()))
        };
        let (Some((first, whole)), Some((second, other))) = (block("first"), block("second")) else {
            eprintln!("skipped: there is no mke2fs");
            return;
        };
        assert!(first == second && first.iter().any(|byte| *byte != 0));
        assert!(whole != other, "they are two");
    }
}
