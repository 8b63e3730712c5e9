//! QEMU's command line: the only place where one is put together.
//!
//! `command_line` turns a shape and what belongs to one host into an argument list; `snp`, `tdx` and `plain` say what is
//! particular to one TEE. `program` knows how QEMU itself is started, `features` what it can do, and `oracle` what it tells
//! firmware about the machine.

mod arguments;
pub mod bars;
pub(crate) mod devices;
pub mod features;
mod memory;
pub mod oracle;
mod plain;
pub mod program;
pub(crate) mod signs;
mod snp;
mod stand_in;
mod tdx;

use measure::shape::{Boot, Shape, TeeShape};
use spec::agent::{PORT_NAME, ROOT_DISK_SERIAL};
use spec::guest_config::DISK_SERIAL;
use spec::vm::{Host, Topology, Vm};

use arguments::{Arguments, Properties};
pub use features::{FeatureError, Features};
pub use program::{ProgramError, QemuProgram};
use signs::Signs;
use stand_in::StandIn;

use crate::host::HostFacts;
use crate::volume::Volume;

/// The machine type. Versioned, because an unversioned one means another machine, and other ACPI tables and
/// measurements, with every QEMU. This is the newest that every QEMU from the floor (`features::FLOOR`) on has.
pub const MACHINE: &str = "pc-q35-10.1";

/// The words by which QEMU makes its machine, and lets it run, when it is told to and not before: files are held against the manifest
/// meanwhile. Who has nobody to tell it drops them.
pub const WAIT: [&str; 2] = ["-preconfig", "-S"];

/// Numbers of the descriptors that QEMU inherits. Fixed, so that a plan is the same everywhere.
pub mod descriptor {
    /// QMP.
    pub const QMP: i32 = 3;
    /// The serial console.
    pub const CONSOLE: i32 = 4;
    /// The agent port.
    pub const AGENT: i32 = 5;
    /// The configuration disk.
    pub const CONFIGURATION: i32 = 6;
    /// The kernel.
    pub const KERNEL: i32 = 7;
    /// The initial RAM disk.
    pub const INITRD: i32 = 8;
    /// The root file system, or the disk that it is on.
    pub const ROOTFS: i32 = 9;
    /// The firmware, with a TEE.
    pub const FIRMWARE: i32 = 10;
    /// The guest's vsock.
    pub const VSOCK: i32 = 11;
    /// The tap device of a NIC on a bridge, or the socket to its passt.
    pub fn network(index: usize) -> i32 {
        i32::try_from(index).map_or(i32::MAX, |index| 12 + index)
    }
    /// `/dev/vhost-net` for the tap device of a NIC.
    pub fn vhost_net(index: usize) -> i32 {
        i32::try_from(index).map_or(i32::MAX, |index| 16 + index)
    }
    /// The first volume; the others follow.
    pub const VOLUMES: i32 = 20;
    /// `/dev/iommu`, with passed PCI functions.
    pub const IOMMUFD: i32 = 40;
    /// The character device of a passed PCI function.
    pub fn pci(index: usize) -> i32 {
        i32::try_from(index).map_or(i32::MAX, |index| IOMMUFD + 1 + index)
    }
}

/// The PCI slot of the first volume; the others follow. Slots are a part of the machine that the guest and, for TDX, the
/// measurements see: a volume keeps its own whatever else the machine has.
const FIRST_VOLUME_SLOT: i32 = 0x10;

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The CPU, through KVM.
    Kvm,
    /// QEMU's own translator: slow, works everywhere.
    Tcg,
}

impl std::fmt::Display for Accelerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// What is particular to one TEE. Everything else is the same for all guests.
trait TeeArguments {
    /// Properties added to `-cpu MODEL`.
    fn cpu(&self, model: Properties, accelerator: Accelerator, facts: &HostFacts) -> Properties;
    /// Properties added to `-machine`, apart from the one that makes it confidential.
    fn machine(&self, machine: Properties) -> Properties;
    /// The object that makes the machine confidential, without its `id`.
    fn confidential_guest(&self, facts: &HostFacts) -> Option<Properties>;
    /// Options of its own.
    fn options(&self, arguments: &mut Arguments);
    /// Properties added to every virtio device.
    fn virtio(&self, device: Properties) -> Properties;
    /// Whether all memory is one shared memfd, as private memory (guest_memfd) needs beside it.
    fn shared_memory(&self) -> bool;
    /// QOM types, besides the common ones, that QEMU must have.
    fn types(&self) -> &'static [&'static str];
}

fn tee_arguments(shape: &Shape) -> Box<dyn TeeArguments + '_> {
    match &shape.tee {
        TeeShape::None => Box::new(plain::Plain),
        TeeShape::Snp(snp) => Box::new(snp::Snp(snp)),
        TeeShape::Tdx(tdx) => Box::new(tdx::Tdx(tdx)),
    }
}

/// The QOM types that QEMU must have to run `shape` as `vm`.
pub(crate) fn required_types(shape: &Shape, vm: &Vm, accelerator: Accelerator) -> Vec<String> {
    let host = &vm.host;
    let accelerator = match accelerator {
        Accelerator::Kvm => "kvm-accel",
        Accelerator::Tcg => "tcg-accel",
    };
    let common = ["virtio-blk-pci", "virtio-serial-pci", "virtserialport", accelerator];
    let own = tee_arguments(shape).types().iter().copied();
    let mut types: Vec<_> = common.into_iter().chain(own).collect();
    if !host.nics.is_empty() {
        types.extend(["virtio-net-pci", "pcie-root-port"]);
    }
    if host.vsock.is_some() {
        types.push("vhost-vsock-pci");
    }
    if !host.pci.is_empty() {
        types.extend(["vfio-pci", "pcie-root-port", "iommufd"]);
    }
    if host.huge_pages.is_some() || !host.nodes().is_empty() {
        types.push("memory-backend-memfd");
    }
    types.extend(Signs::of(&vm.guest).types());
    types.into_iter().map(str::to_owned).chain([format!("{MACHINE}-machine")]).collect()
}

/// What a command line is made of.
pub(crate) struct CommandLine<'a> {
    pub(crate) name: &'a str,
    pub(crate) shape: &'a Shape,
    pub(crate) accelerator: Accelerator,
    pub(crate) kernel_command_line: &'a str,
    pub(crate) facts: &'a HostFacts,
    pub(crate) sandbox: bool,
    /// Where it runs: networks, passed functions, huge pages.
    pub(crate) host: &'a Host,
    /// Whether functions are passed by iommufd and their descriptors, else by address and IOMMU group.
    pub(crate) by_iommufd: bool,
    /// Whether passt can be had for NICs.
    pub(crate) has_passt: bool,
    /// How much room firmware is told to make for 64-bit BARs, in MiB: `bars::window`.
    pub(crate) window_mib: Option<u64>,
    /// How many address bits a guest without a TEE needs, where its CPU model has fewer by itself: `bars::address_bits`.
    pub(crate) address_bits: Option<u32>,
    /// Whether this is the machine without what only the real host has: what `oracle` asks, never what is launched.
    pub(crate) stand_in: bool,
    /// How the vCPUs are arranged.
    pub(crate) topology: Topology,
    /// The volumes, in the order of their slots.
    pub(crate) volumes: &'a [Volume],
    /// The devices by which the guest says how it is.
    pub(crate) signs: Signs,
}

impl CommandLine<'_> {
    fn tee(&self) -> Box<dyn TeeArguments + '_> {
        let tee = tee_arguments(self.shape);
        let is_intel = matches!(self.shape.tee, TeeShape::Tdx(_));
        if self.stand_in { Box::new(StandIn { inner: tee, is_intel }) } else { tee }
    }

    /// The arguments, without QEMU's own name and what `QemuProgram` puts before them.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = Arguments::default();
        self.basics(&mut arguments);
        self.machine(&mut arguments);
        self.boot(&mut arguments);
        self.channels(&mut arguments);
        self.disks(&mut arguments);
        self.volumes(&mut arguments);
        self.devices(&mut arguments);
        self.signs.arguments(&mut arguments);
        arguments.into_vec()
    }

    fn basics(&self, arguments: &mut Arguments) {
        arguments.option("-name", Properties::of(self.name));
        for flag in ["-nodefaults", "-no-user-config"] {
            arguments.flag(flag);
        }
        arguments.value("-display", "none");
        // A guest that resets ends here: what it would boot next was not looked at by anyone.
        arguments.flag("-no-reboot");
        if !self.stand_in {
            for flag in WAIT {
                arguments.flag(flag);
            }
        }
        if self.sandbox {
            let denied = ["obsolete", "elevateprivileges", "spawn", "resourcecontrol"];
            let sandbox = denied.into_iter().fold(Properties::of("on"), |sandbox, what| sandbox.with(what, "deny"));
            arguments.option("-sandbox", sandbox);
        }
    }

    fn machine(&self, arguments: &mut Arguments) {
        let tee = self.tee();
        let machine = Properties::of(MACHINE).with("hpet", "off").with("smm", "off").with("vmport", "off");
        let guest = tee.confidential_guest(self.facts);
        let machine = tee.machine(self.with_memory(machine));
        let confidential = |machine: Properties| machine.with("confidential-guest-support", "tee");
        arguments.option("-machine", if guest.is_some() { confidential(machine) } else { machine });
        arguments.option(
            "-accel",
            match self.accelerator {
                Accelerator::Kvm => Properties::of("kvm"),
                Accelerator::Tcg => Properties::of("tcg").with("thread", "multi"),
            },
        );
        let cpu = tee.cpu(Properties::of(&self.shape.cpu_model), self.accelerator, self.facts);
        // The host's own CPU has the host's bits.
        let bits = self.address_bits.filter(|_| self.shape.tee == TeeShape::None && self.shape.cpu_model != "host");
        arguments.option("-cpu", bits.map_or(cpu.clone(), |bits| cpu.with("phys-bits", &bits.to_string())));
        let vcpus = self.shape.vcpus.to_string();
        // With a description what does not fit was refused; a search over vCPU counts tries some that do not.
        let arranged = self.topology.cores(self.shape.vcpus).map(|cores| (self.topology, cores));
        let (arranged, cores) = arranged.unwrap_or((Topology::default(), self.shape.vcpus));
        let [sockets, cores, threads] = [arranged.sockets, cores, arranged.threads].map(|number| number.to_string());
        let topology = Properties::of(&vcpus).with("sockets", &sockets).with("cores", &cores).with("threads", &threads);
        arguments.option("-smp", topology);
        self.memory(arguments);
        if let Some(guest) = guest {
            arguments.option("-object", guest);
        }
        tee.options(arguments);
    }

    fn boot(&self, arguments: &mut Arguments) {
        if self.shape.tee != TeeShape::None || self.shape.boot == Boot::Disk {
            arguments.value("-bios", &path(descriptor::FIRMWARE));
        }
        if self.shape.boot == Boot::Disk {
            return;
        }
        arguments.value("-kernel", &path(descriptor::KERNEL));
        arguments.value("-initrd", &path(descriptor::INITRD));
        arguments.value("-append", self.kernel_command_line);
    }

    fn channels(&self, arguments: &mut Arguments) {
        let channels = [("qmp", descriptor::QMP), ("console", descriptor::CONSOLE), ("agent", descriptor::AGENT)];
        for (id, number) in channels {
            let channel = Properties::of("socket").with("id", id).with("fd", &number.to_string());
            arguments.option("-chardev", channel);
        }
        // `-mon` is deprecated since QEMU 11.1, and what takes its place is not there before.
        arguments.value("-qmp", "chardev:qmp");
        arguments.value("-serial", "chardev:console");
        let bus = Properties::of("virtio-serial-pci").with("id", "ports").with("bus", "pcie.0").with("addr", "0x4");
        arguments.option("-device", self.tee().virtio(bus.with("max_ports", "2")));
        let port = Properties::of("virtserialport").with("bus", "ports.0").with("nr", "1");
        arguments.option("-device", port.with("chardev", "agent").with("name", PORT_NAME));
    }

    fn disks(&self, arguments: &mut Arguments) {
        // The guest takes a disk with the serial number for its root; on the image's disk it is a partition.
        let root = match self.shape.boot {
            Boot::Kernel => ("rootfs", descriptor::ROOTFS, Some(ROOT_DISK_SERIAL), "0x2"),
            Boot::Disk => ("image", descriptor::ROOTFS, None, "0x2"),
        };
        let disks = [root, ("configuration", descriptor::CONFIGURATION, Some(DISK_SERIAL), "0x3")];
        for (name, number, serial, address) in disks {
            let file = Properties::with_first("driver", "file").with("node-name", name).with("filename", &path(number));
            // io_uring and native AIO are left alone: the sandbox must hold on every kernel.
            arguments.option("-blockdev", file.with("read-only", "on").with("aio", "threads"));
            let device = Properties::of("virtio-blk-pci").with("id", &format!("disk-{name}")).with("drive", name);
            let device = match serial {
                Some(serial) => device.with("serial", serial),
                // Firmware starts it, and looks at no other disk.
                None => device.with("bootindex", "0"),
            };
            let device = device.with("bus", "pcie.0").with("addr", address);
            arguments.option("-device", self.tee().virtio(device));
        }
    }
}

impl CommandLine<'_> {
    fn volumes(&self, arguments: &mut Arguments) {
        for (index, volume) in (0..).zip(self.volumes) {
            let node = &volume.serial;
            let driver = if volume.block_device { "host_device" } else { "file" };
            let file = Properties::with_first("driver", driver).with("node-name", node);
            // The very description that is locked, whoever may open the disk anew: QEMU can be another user.
            let number = (descriptor::VOLUMES + index).to_string();
            arguments.option("-add-fd", Properties::with_first("fd", &number).with("set", &number));
            let file = file.with("filename", &format!("/dev/fdset/{number}")).with("aio", "threads");
            let file = file.with("read-only", if volume.read_only { "on" } else { "off" });
            // The host's page cache would hold ciphertext that nobody reads twice.
            let file = if volume.block_device { file.with("cache.direct", "on") } else { file };
            arguments.option("-blockdev", file.with("discard", "unmap"));
            // A thread of its own, so that disks wait neither for each other nor for the main loop; QEMU gives the disk a queue
            // for each vCPU by itself.
            let thread = format!("io-{node}");
            arguments.option("-object", Properties::of("iothread").with("id", &thread));
            let device = Properties::of("virtio-blk-pci").with("id", &format!("disk-{node}")).with("drive", node);
            let device = device.with("iothread", &thread);
            let slot = format!("{:#x}", FIRST_VOLUME_SLOT + index);
            let device = device.with("serial", &volume.serial).with("bus", "pcie.0").with("addr", &slot);
            arguments.option("-device", self.tee().virtio(device));
        }
    }
}

/// Where QEMU opens an inherited descriptor: the very file that was hashed, whatever its path names by then.
fn path(number: i32) -> String {
    format!("/proc/self/fd/{number}")
}
