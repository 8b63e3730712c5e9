//! What QEMU's monitor can do to a guest that runs.

use std::time::Duration;

use serde_json::json;

use crate::attack::{Attack, By, Means, OTHER_TABLES, OnRelease, Outcome};
use crate::guests::Guest;
use crate::machine::Machine;

const fn running(name: &'static str, host: &'static str, outcome: Outcome, act: crate::attack::Act) -> Attack {
    Attack { name, host, release: OnRelease::Same, guest: Guest::Minimal, means: Means::Running(act), outcome }
}

const READ: Outcome = Outcome::NotNoticed { but: "in a TEE the host reads ciphertext, or nothing" };

pub(super) const ATTACKS: &[Attack] = &[
    running("dump", "writes the guest's memory to a file", READ, |machine| {
        let path = machine.setup().path("dump");
        let protocol = format!("file:{}", path.display());
        machine.qmp("dump-guest-memory", &json!({ "paging": false, "protocol": protocol }))?;
        // The dump shows that memory is in the clear here: the guest's command line is in it.
        let dump = std::fs::read(&path).map_err(|error| error.to_string())?;
        let _ = std::fs::remove_file(&path);
        let word = b"bullion.root=";
        let found = dump.windows(word.len()).any(|window| window == word);
        if found { Ok(()) } else { Err("the dump does not hold the command line".to_owned()) }
    }),
    running("migrate", "copies the guest, with its memory, as a migration does", READ, |machine| {
        let path = machine.setup().path("state");
        machine.qmp("migrate", &json!({ "uri": format!("file:{}", path.display()) }))?;
        wait_for_migration(machine)?;
        let _ = std::fs::remove_file(&path);
        machine.qmp("cont", &json!({})).map(drop)
    }),
    running(
        "pull-devices",
        "pulls out disks and ports",
        Outcome::NoEffect { because: "they are on a bus that nothing is unplugged from", words: "" },
        |machine| {
            for id in ["disk-rootfs", "disk-configuration", "ports"] {
                if let Ok(answer) = machine.qmp("device_del", &json!({ "id": id })) {
                    return Err(format!("{id} could be unplugged: {answer}"));
                }
            }
            Ok(())
        },
    ),
    running(
        "machine-check",
        "injects a corrected machine check",
        Outcome::NoEffect { because: "the kernel goes on", words: "" },
        |machine| {
            // Valid, enabled; bank 9, status of a corrected error, on the first processor.
            machine.monitor("mce 0 9 0x9000000000000000 0 0 0")?;
            std::thread::sleep(Duration::from_millis(500));
            Ok(())
        },
    ),
    Attack {
        name: "hot-plugged-processor",
        release: OTHER_TABLES,
        host: "plugs a processor in while the guest runs",
        guest: Guest::Minimal,
        means: Means::OnceReady(
            |setup| setup.set("-smp", "1,maxcpus=2,sockets=2,cores=1,threads=1"),
            |machine| {
                let place = json!({ "driver": "max-x86_64-cpu", "socket-id": 1, "core-id": 0, "thread-id": 0 });
                machine.qmp("device_add", &place)?;
                std::thread::sleep(Duration::from_secs(2));
                let registers = machine.monitor("info registers -a")?;
                let (_, second) = registers.split_once("CPU#1").ok_or("there is no second processor")?;
                // Where a processor begins, and waits until it is sent somewhere (Intel SDM volume 3, 10.1.4).
                if second.contains("EIP=0000fff0") { Ok(()) } else { Err(format!("it runs: {second}")) }
            },
        ),
        outcome: Outcome::NoEffect { because: "nobody in the guest brings it up", words: "" },
    },
    Attack {
        name: "hot-plugged-memory",
        release: OTHER_TABLES,
        host: "plugs memory in while the guest runs",
        guest: Guest::Minimal,
        means: Means::OnceReady(
            |setup| setup.set("-m", "512M,slots=1,maxmem=2G"),
            |machine| {
                machine
                    .qmp("object-add", &json!({ "qom-type": "memory-backend-ram", "id": "more", "size": 128 << 20 }))?;
                machine.qmp("device_add", &json!({ "driver": "pc-dimm", "memdev": "more" }))?;
                std::thread::sleep(Duration::from_secs(2));
                Ok(())
            },
        ),
        outcome: Outcome::NotNoticed { but: "in a TEE the guest has to accept memory before it is its own" },
    },
    Attack {
        name: "fatal-machine-check",
        release: OnRelease::Untried,
        host: "injects a machine check that cannot be corrected",
        guest: Guest::Minimal,
        means: Means::Running(|machine| {
            // Valid, uncorrected, enabled, context corrupt; bank 1; in progress, with an address to go back to.
            machine.monitor("mce 0 1 0xb200000000000000 5 0 0").map(drop)
        }),
        outcome: Outcome::Stopped { by: By::Kernel, words: "Machine Check Exception: 5 Bank 1" },
    },
];

fn wait_for_migration(machine: &mut Machine) -> Result<(), String> {
    for _ in 0..600 {
        let state = machine.qmp("query-migrate", &json!({}))?;
        match state["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed") => return Err(format!("the migration failed: {state}")),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    Err("the migration did not end".to_owned())
}
