//! Devices that the guest was not told of: there from the start, or plugged in while it runs.

use std::time::Duration;

use serde_json::json;

use crate::attack::{Attack, Means, OTHER_TABLES, OnRelease, Outcome};
use crate::guests::Guest;
use crate::machine::Machine;
use crate::setup::Setup;

/// No device but those that every guest has gets a driver, and each that does not is named: by vendor, device and class.
const fn refused(name: &'static str, host: &'static str, words: &'static str, change: fn(&mut Setup)) -> Attack {
    let outcome = Outcome::NoEffect { because: "they get no driver", words };
    Attack { name, host, release: OTHER_TABLES, guest: Guest::Minimal, means: Means::Before(change), outcome }
}

pub(super) const ATTACKS: &[Attack] = &[
    refused("storage-controllers", "adds AHCI, SCSI and SD controllers", "1000:0012 class 010000", |setup| {
        setup.add_devices(&["ich9-ahci", "virtio-scsi-pci", "lsi53c895a", "sdhci-pci"]);
    }),
    Attack {
        name: "undeclared-nvme",
        release: OTHER_TABLES,
        host: "adds an NVMe disk",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.add("-blockdev", "driver=null-co,node-name=null,size=1048576");
            setup.add_devices(&["nvme,serial=hostile,drive=null"]);
        }),
        outcome: Outcome::NoEffect {
            because: "its driver is in the image, because its root may be on one: it is taken from its driver",
            words: "1b36:0010 class 010802",
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
    refused(
        "other-classes",
        "adds a device of each further class that QEMU has: shared memory, system management, field buses, file system, encryption, clock, flash",
        "1af4:1110 class 050000",
        |setup| {
            setup.add("-object", "memory-backend-ram,id=shared,size=1M,share=on");
            setup.add("-object", "cryptodev-backend-builtin,id=cryptodev");
            setup.add("-object", "can-bus,id=can");
            setup.add("-fsdev", "local,id=files,path=/proc/self/fd,security_model=none,readonly=on");
            setup.add_devices(&["ivshmem-plain,memdev=shared", "ipmi-bmc-sim,id=bmc", "pci-ipmi-kcs,bmc=bmc"]);
            setup.add_devices(&["virtio-9p-pci,fsdev=files,mount_tag=files", "virtio-crypto-pci,cryptodev=cryptodev"]);
            setup.add_devices(&["kvaser_pci,canbus=can", "tpci200", "virtio-rtc-pci", "ufs", "iommu-testdev"]);
        },
    ),
    refused("network-cards-of-old", "adds network cards that are older", "8086:1229 class 020000", |setup| {
        setup.add_devices(&["igb", "i82557b", "pcnet", "tulip", "ne2k_pci", "rocker"]);
    }),
    refused("storage-of-servers", "adds RAID and SCSI controllers of servers", "1000:0060 class 010400", |setup| {
        setup.add_devices(&["megasas", "mptsas1068", "pvscsi", "am53c974", "piix4-ide"]);
    }),
    Attack {
        name: "vsock",
        release: OTHER_TABLES,
        host: "adds a device for sockets between host and guest, and waits for a queue to write garbage into",
        guest: Guest::Minimal,
        means: Means::OnceReady(Setup::add_vsock, |machine| {
            std::thread::sleep(Duration::from_secs(1));
            if machine.setup().vsock_has_queue() { Err("a driver set up a queue".to_owned()) } else { Ok(()) }
        }),
        outcome: Outcome::NoEffect { because: "it gets no driver, so that there is no queue", words: "class 078000" },
    },
    Attack {
        name: "old-buses",
        release: OTHER_TABLES,
        host: "adds what is on old buses, without a list: panic and debug ports, floppy drive, printer port, system management, watchdog, generation counter",
        guest: Guest::Minimal,
        means: Means::Before(|setup| {
            setup.add("-chardev", "null,id=nobody");
            setup.add("-chardev", "null,id=nothing");
            setup.add_devices(&["pvpanic", "isa-debug-exit", "isa-debugcon,chardev=nothing", "isa-fdc", "vmcoreinfo"]);
            setup.add_devices(&["isa-parallel,chardev=nobody", "isa-applesmc", "ib700", "vmgenid"]);
        }),
        outcome: Outcome::NoEffect { because: "their drivers are not in the image", words: "" },
    },
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
        release: OTHER_TABLES,
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
        release: OnRelease::Untried,
        host: "adds a network card that the configuration does not name to an image with a driver for it",
        guest: Guest::Container,
        means: Means::Before(|setup| setup.add_devices(&["virtio-net-pci"])),
        outcome: Outcome::NoEffect { because: "it gets no driver", words: "1af4:1000 class 020000" },
    },
    Attack {
        name: "console-port",
        release: OnRelease::Same,
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
        release: OTHER_TABLES,
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
