//! What comes through the agent's port, the serial line, the keyboard and the interrupt controller of a guest that runs.

use std::io::{Read as _, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::attack::{Attack, Means, OnRelease, Outcome};
use crate::guests::Guest;

const fn without_effect(
    name: &'static str,
    host: &'static str,
    because: &'static str,
    act: crate::attack::Act,
) -> Attack {
    let outcome = Outcome::NoEffect { because, words: "" };
    Attack { name, host, release: OnRelease::Same, guest: Guest::Minimal, means: Means::Running(act), outcome }
}

pub(super) const ATTACKS: &[Attack] = &[
    without_effect(
        "agent-garbage",
        "sends random bytes to the agent's port",
        "a line that is no request gets an error",
        |machine| machine.send("agent", &random(1 << 16, 1)),
    ),
    without_effect("agent-lines", "sends random lines that look like requests", "the same", |machine| {
        let words =
            ["{\"id\":", "\"method\":\"identity\"", "}", "\n", "1,", "[", "\"exec\"", "{", "18446744073709551616"];
        let bytes = random(4000, 2);
        let text: String = bytes.iter().map(|byte| words[usize::from(*byte) % words.len()]).collect();
        machine.send("agent", text.as_bytes())
    }),
    without_effect(
        "agent-fuzzed",
        "sends requests with bytes changed, put in, left out and repeated, other ones in each run",
        "the same",
        |machine| {
            let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
            eprintln!("agent-fuzzed: seed {seed}");
            let mut socket = machine.connect("agent")?;
            socket.set_write_timeout(Some(Duration::from_secs(2))).map_err(|error| error.to_string())?;
            for round in 0..400 {
                let _ = socket.write_all(&mangled(seed.wrapping_add(round)));
            }
            Ok(())
        },
    ),
    without_effect("agent-endless-line", "sends a line without an end", "a line has a limit", |machine| {
        machine.send("agent", &vec![b'a'; 4 << 20])
    }),
    without_effect("agent-orders", "asks for what no agent of ours does", "there are four methods", |machine| {
        machine
            .send("agent", b"{\"id\":1,\"method\":\"exec\",\"command\":\"sh\"}\n{\"id\":2,\"method\":\"file-read\"}\n")
    }),
    without_effect("agent-hang-ups", "connects and hangs up without end", "half a request is forgotten", |machine| {
        for round in 0..200 {
            let mut socket = machine.connect("agent")?;
            let _ = socket.write_all(&b"{\"id\":1,\"method\":\"ident"[..round % 24]);
        }
        Ok(())
    }),
    without_effect(
        "agent-deaf",
        "asks without end and does not read the answers",
        "who does not listen waits",
        |machine| {
            let mut socket = machine.connect("agent")?;
            let patience = Some(Duration::from_secs(2));
            socket.set_write_timeout(patience).map_err(|error| error.to_string())?;
            let line = b"{\"id\":1,\"method\":\"measurements\"}\n".repeat(20_000);
            let _ = socket.write_all(&line);
            // Hanging up with answers unread is part of it.
            let _ = socket.read(&mut [0; 10]);
            Ok(())
        },
    ),
    without_effect("serial-garbage", "types random bytes on the serial line", "nobody reads it", |machine| {
        // 0x01 is the key of QEMU's own multiplexer.
        let bytes: Vec<u8> = random(8192, 3).into_iter().filter(|byte| *byte != 1).collect();
        machine.send("console.sock", &bytes)
    }),
    without_effect("serial-login", "types what a login or shell would take", "there is none", |machine| {
        machine.send("console.sock", b"\r\nroot\r\n\r\n\x03\x04\x1a\r\nreboot\r\n")
    }),
    Attack {
        name: "serial-break",
        release: OnRelease::Same,
        host: "sends serial breaks, each with a key of the kernel's SysRq: help, crash, tasks, kill, reboot",
        guest: Guest::Minimal,
        means: Means::Running(|machine| {
            let mut socket = machine.connect("console.sock")?;
            for key in b"htmeicb" {
                // Control-A and b: what QEMU's multiplexer takes for a break.
                socket.write_all(b"\x01b").map_err(|error| error.to_string())?;
                std::thread::sleep(Duration::from_millis(300));
                socket.write_all(&[*key]).map_err(|error| error.to_string())?;
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        }),
        outcome: Outcome::NoEffect { because: "the kernel's SysRq is off", words: "" },
    },
    without_effect(
        "keyboard",
        "types Control-Alt-Delete and SysRq keys on a keyboard",
        "there is no driver",
        |machine| {
            for keys in ["ctrl-alt-delete", "alt-sysrq-c", "alt-sysrq-b", "ret"] {
                machine.monitor(&format!("sendkey {keys}"))?;
            }
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        },
    ),
    without_effect("non-maskable-interrupt", "injects non-maskable interrupts", "the kernel goes on", |machine| {
        for _ in 0..3 {
            machine.qmp("inject-nmi", &json!({}))?;
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }),
    Attack {
        name: "words-of-the-kernel",
        release: OnRelease::Same,
        host: "makes the kernel say something: injects interrupts, types SysRq keys",
        guest: Guest::Release,
        means: Means::Running(|machine| {
            // It answers once it has closed its console.
            machine.identity()?;
            let before = machine.console();
            for _ in 0..3 {
                machine.qmp("inject-nmi", &json!({}))?;
            }
            machine.send("console.sock", b"\x01bh")?;
            std::thread::sleep(Duration::from_secs(2));
            let after = machine.console();
            let said = after.strip_prefix(&before).unwrap_or(&after);
            if said.is_empty() { Ok(()) } else { Err(format!("the console said: {said}")) }
        }),
        outcome: Outcome::NoEffect { because: "nothing comes on its console once it is ready", words: "" },
    },
    without_effect(
        "power-button",
        "presses the power button and the wake-up button",
        "nobody listens to it",
        |machine| {
            machine.qmp("system_powerdown", &json!({}))?;
            let _ = machine.qmp("system_wakeup", &json!({}));
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        },
    ),
];

/// A request that asks for nothing that ends the guest, mangled.
fn mangled(seed: u64) -> Vec<u8> {
    let mut line = b"{\"id\":18446744073709551615,\"method\":\"measurements\"}\n".to_vec();
    for change in random(24, seed).chunks_exact(3) {
        let at = usize::from(change[0]) % line.len();
        match change[1] % 4 {
            0 => line[at] = change[2],
            1 => line.insert(at, change[2]),
            2 if line.len() > 1 => drop(line.remove(at)),
            _ => line.extend_from_within(at..),
        }
    }
    line
}

/// Bytes that are the same in each run (xorshift64, Marsaglia 2003).
fn random(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}
