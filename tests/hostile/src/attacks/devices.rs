//! Devices that the guest was not told of: there from the start, or plugged in while it runs.

use std::time::Duration;

use serde_json::json;

use crate::attack::{Attack, Means, Outcome};
use crate::guests::Guest;
use crate::machine::Machine;
use crate::setup::Setup;

/// No device but those that every guest has gets a driver, and each that does not is named: by vendor, device and class.
const fn refused(name: &'static str, host: &'static str, words: &'static str, change: fn(&mut Setup)) -> Attack {
    let outcome = Outcome::NoEffect { because: "they get no driver", words };
    Attack { name, host, guest: Guest::Minimal, means: Means::Before(change), outcome }
}

pub(super) const ATTACKS: &[Attack] = &[
    refused("storage-controllers", "adds AHCI, SCSI and SD controllers", "1000:0012 class 010000", |setup| {
        setup.add_devices(&["ich9-ahci", "virtio-scsi-pci", "lsi53c895a", "sdhci-pci"]);
    }),
    Attack {
        name: "undeclared-nvme",
        host: "adds an NVMe disk",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.add("-blockdev", "driver=null-co,node-name=null,size=1048576");
            setup.add_devices(&["nvme,serial=hostile,drive=null"]);
        }),
        outcome: Outcome::NoEffect {
            because: "its driver is in the image, because its root may be on one, and has it; what is on it is not used",
            words: "",
        },
    },
    refused("network-cards", "adds network cards of several makers", "8086:10d3 class 020000", |setup| {
        setup.add_devices(&["e1000e", "e1000", "rtl8139", "vmxnet3", "virtio-net-pci"]);
    }),
    refused("display-and-sound", "adds display and sound devices", "1234:1111 class 030000", |setup| {
        setup.add("-audiodev", "none,id=silence");
        setup.add_devices(&["VGA", "virtio-gpu-pci", "intel-hda", "AC97,audiodev=silence"]);
    }),
    refused(
        "usb-controllers",
        "adds USB controllers with keyboard, mouse and tablet",
        "1b36:000d class 0c0330",
        |setup| {
            setup.add_devices(&[
                "qemu-xhci,id=usb",
                "usb-kbd,bus=usb.0",
                "usb-mouse,bus=usb.0",
                "usb-tablet,bus=usb.0",
            ]);
            setup.add_devices(&["ich9-usb-ehci1"]);
        },
    ),
    refused(
        "other-devices",
        "adds devices for entropy, memory, input, watchdog, test and panic",
        "1234:11e8 class 00ff00",
        |setup| {
            setup.add_devices(&["virtio-rng-pci", "virtio-balloon-pci", "virtio-keyboard-pci", "i6300esb", "edu"]);
            setup.add_devices(&["pci-testdev", "pvpanic-pci"]);
        },
    ),
    refused("serial-card", "adds a serial card", "1b36:0002 class 070002", |setup| {
        setup.add("-chardev", "null,id=nothing");
        setup.add_devices(&["pci-serial,chardev=nothing"]);
    }),
    refused("bridges", "adds bridges with devices behind them", "8086:100e class 020000", |setup| {
        setup.add_devices(&[
            "pcie-root-port,id=slot9,chassis=9",
            "pcie-pci-bridge,id=bridge,bus=slot9",
            "e1000,bus=bridge,addr=1",
        ]);
    }),
    Attack {
        name: "undeclared-disk",
        host: "adds a virtio disk that the configuration does not name",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.add("-blockdev", "driver=null-co,node-name=null,size=1048576");
            setup.add_devices(&["virtio-blk-pci,drive=null,serial=hostile"]);
        }),
        outcome: Outcome::NoEffect { because: "it is taken from its driver", words: "1af4:1001 class 010000" },
    },
    Attack {
        name: "undeclared-network",
        host: "adds a network card that the configuration does not name to an image with a driver for it",
        guest: Guest::Container,
        means: Means::Before(|setup| setup.add_devices(&["virtio-net-pci"])),
        outcome: Outcome::NoEffect { because: "it gets no driver", words: "1af4:1000 class 020000" },
    },
    Attack {
        name: "console-port",
        host: "adds a virtio console, and a second port with the agent's name",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.replace("-device", "max_ports=2", "max_ports=8");
            setup.add("-chardev", "null,id=nothing");
            setup.add("-chardev", "null,id=nobody");
            setup.add_devices(&["virtconsole,bus=ports.0,nr=4,chardev=nothing"]);
            setup.add_devices(&["virtserialport,bus=ports.0,nr=5,chardev=nobody,name=org.bullion.agent.1"]);
        }),
        outcome: Outcome::NoEffect { because: "no console is there, and the agent's port has one name", words: "" },
    },
    Attack {
        name: "hot-plugged-disk",
        host: "plugs a disk in while the guest runs",
        guest: Guest::Minimal,
        means: Means::OnceReady(
            |setup| {
                setup.add_devices(&["pcie-root-port,id=slot9,chassis=9"]);
                setup.add("-blockdev", "driver=null-co,node-name=null,size=1048576");
            },
            is_plugged_in_and_not_read,
        ),
        outcome: Outcome::NoEffect { because: "nothing binds to a driver by itself: the disk is not read", words: "" },
    },
];

/// A disk that has a driver is read at once, for its partition table.
fn is_plugged_in_and_not_read(machine: &mut Machine) -> Result<(), String> {
    let disk = json!({ "driver": "virtio-blk-pci", "bus": "slot9", "id": "plugged", "drive": "null" });
    machine.qmp("device_add", &disk)?;
    // The kernel takes five seconds over a device that was plugged in.
    std::thread::sleep(Duration::from_secs(8));
    let all = machine.qmp("query-blockstats", &json!({}))?;
    let plugged = all.as_array().and_then(|all| all.iter().find(|one| one["qdev"].to_string().contains("plugged")));
    match plugged.map(|one| one["stats"]["rd_operations"].clone()) {
        Some(reads) if reads == 0 => Ok(()),
        other => Err(format!("the disk was read: {other:?}")),
    }
}
