//! What the guest is in: the clock, entropy, memory, processors, and when it starts again.

use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::attack::{Attack, Means, OTHER_TABLES, OnRelease, Outcome};
use crate::guests::Guest;
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
        |setup| *setup.value("-cpu", "") += ",-rdrand,-rdseed",
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
        means: Means::OnceReady(|_| (), |machine| wait_for_volume(machine).and_then(|()| wipe(machine))),
        outcome: Outcome::NotNoticed {
            but: "it is encrypted, not authenticated: what the guest reads back is noise, not what the host would choose",
        },
    },
    Attack {
        name: "no-entropy-for-a-key",
        release: OnRelease::Untried,
        host: "hides the processor's random number instructions from a guest that makes a key",
        guest: Guest::Container,
        means: Means::OnceReady(|setup| *setup.value("-cpu", "") += ",-rdrand,-rdseed", wait_for_volume),
        outcome: Outcome::NoEffect {
            because: "the key is made of the kernel's generator, which waits for its own noise",
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

/// Waits until the guest has written to the volume, whose disk is all zeros: it has a key then.
fn wait_for_volume(machine: &mut Machine) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(300);
    let path = machine.setup().path("scratch");
    // A file system's first words are at its start.
    let is_empty = || {
        let mut start = [0; 1 << 16];
        File::open(&path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
            && start.iter().all(|byte| *byte == 0)
    };
    while is_empty() {
        if machine.state() == State::Ended || Instant::now() > deadline {
            return Err(format!("nothing was written to the volume: {}", machine.console()));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
