//! What the guest is in: the clock, entropy, memory, processors, and when it starts again.

use std::time::Duration;

use serde_json::json;

use crate::attack::{Attack, Means, Outcome};
use crate::guests::Guest;
use crate::machine::{Machine, State};
use crate::setup::Setup;

const CLOCK: Outcome =
    Outcome::NotNoticed { but: "the guest has no other clock; nothing that it decides today depends on the time" };

const fn other(name: &'static str, host: &'static str, outcome: Outcome, change: fn(&mut Setup)) -> Attack {
    Attack { name, host, guest: Guest::Minimal, means: Means::Before(change), outcome }
}

pub(super) const ATTACKS: &[Attack] = &[
    other("clock-of-1970", "sets the clock to 1970", CLOCK, |setup| setup.add("-rtc", "base=1970-01-01T00:00:00")),
    other("clock-of-2100", "sets the clock to 2100", CLOCK, |setup| setup.add("-rtc", "base=2099-12-31T23:59:50")),
    Attack {
        name: "stepping-clock",
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
    other(
        "less-memory",
        "gives half of the memory",
        Outcome::NotNoticed { but: "on TDX it is in RTMR0 (TD HOB); on SEV-SNP nothing shows it" },
        |setup| setup.set("-m", "256M"),
    ),
    other("more-memory", "gives twice the memory", Outcome::NotNoticed { but: "the same" }, |setup| {
        setup.set("-m", "1G")
    }),
    other(
        "more-processors",
        "gives four vCPUs instead of one",
        Outcome::NotNoticed { but: "in a TEE the number of vCPUs is measured" },
        |setup| setup.set("-smp", "4,sockets=1,cores=4,threads=1"),
    ),
    Attack {
        name: "resets",
        host: "resets the guest at random moments of its start",
        guest: Guest::Minimal,
        means: Means::WhileStarting(
            |setup| setup.arguments.retain(|(option, _)| option != "-no-reboot"),
            |machine| {
                for pause in [300, 1700, 900, 2600] {
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
        host: "wipes the scratch volume's disk while the guest starts, and gives one that holds something",
        guest: Guest::Container,
        means: Means::WhileStarting(|setup| std::fs::write(setup.path("scratch"), vec![0x5a; 64 << 20]).unwrap(), wipe),
        outcome: Outcome::NoEffect {
            because: "what is on it is never looked at; it has a key of each boot",
            words: "",
        },
    },
];

fn wipe(machine: &mut Machine) -> Result<(), String> {
    std::fs::write(machine.setup().path("scratch"), vec![0; 64 << 20]).map_err(|error| error.to_string())
}
