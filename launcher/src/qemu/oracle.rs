//! What QEMU tells firmware about a machine, asked of QEMU itself: the ACPI tables and the other fw_cfg files that RTMR0
//! of a TDX guest is made of.
//!
//! QEMU builds its ACPI tables when firmware first reads them, and they depend on where firmware has placed the PCI
//! devices by then. So the machine of the launch is started under TCG, with stand-ins for the TEE, for the image and for
//! the peers of its sockets, on the launch's own firmware; once that has read the tables, the machine is stopped and the
//! files are read over qtest. No guest code of the image runs, and neither TEE nor KVM is needed.
//!
//! An answer takes a second or two and is kept in the cache under QEMU's identity, the firmware and the argument list.

mod cache;
mod error;
mod fw_cfg;
mod placed;
mod placement;
mod session;
mod wire;

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use measure::shape::{Shape, TeeShape};
use spec::vm::{Host, Nic, PciDevice, Topology, Vm};
use spec::volume::Carrier;
use spec::{Sha256Digest, Tee};

pub use error::{ImportError, OracleError};
pub use fw_cfg::Answer;
pub use placed::{ask_older, ask_placed};
pub use placement::ConfigWrite;
use session::Session;

use super::features::FLOOR;
use super::signs::Signs;
use super::{Accelerator, CommandLine, Features, QemuProgram, bars, features};
use crate::host::{HostFacts, KvmAccess};
use crate::plan::{Role, descriptors};
use crate::sealed_memory::sealed_memory;
use crate::volume::Volume;

/// How long QEMU and firmware may take together. A second or two is usual, and six with 250 vCPUs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A machine to ask about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The QEMU that the guest is launched with.
    pub program: &'a QemuProgram,
    /// The firmware that the guest is launched with.
    pub firmware: &'a [u8],
    /// The guest.
    pub shape: &'a Shape,
    /// What it has beyond the devices of every guest.
    pub devices: Devices,
}

/// Devices that not every guest has. Each has a place of its own that follows from its number, and nothing else about them is in
/// the tables: how many there are is enough, and for what room of BARs firmware is told to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Networks.
    pub nics: usize,
    /// Passed PCI functions.
    pub pci: usize,
    /// Whether the functions need more room for BARs than firmware has by itself, where it can be told to make more.
    pub large_bars: bool,
    /// Volumes on virtio disks.
    pub volumes: usize,
    /// Whether it has a vsock.
    pub vsock: bool,
    /// Whether it has a watchdog.
    pub watchdog: bool,
    /// Whether it has a pvpanic device.
    pub pvpanic: bool,
    /// How the vCPUs are arranged.
    pub topology: Topology,
    /// How many NUMA nodes it has, where there are several.
    pub nodes: usize,
}

impl Devices {
    /// Those of a VM description, whatever its functions are: enough for a TDX guest, whose firmware is told of no room.
    pub fn of(vm: &Vm) -> Self {
        let Signs { watchdog, pvpanic } = Signs::of(&vm.guest);
        Self {
            nics: vm.host.nics.len(),
            pci: vm.host.pci.len(),
            large_bars: false,
            // One on a drive that is passed whole is among the functions.
            volumes: vm.guest.volumes.iter().filter(|volume| volume.on == Carrier::Virtio).count(),
            vsock: vm.host.vsock.is_some(),
            watchdog,
            pvpanic,
            topology: vm.arrangement(),
            nodes: vm.host.numa_nodes.len(),
        }
    }

    /// Those of a VM description with `memory_mib` MiB on a host; where its tables are not those of stand-ins, or it has no place there, why.
    pub fn on(vm: &Vm, memory_mib: u64, facts: &HostFacts) -> Result<Self, String> {
        let devices = Self::of(vm);
        match vm.tee {
            _ if devices.pci == 0 => return Ok(devices),
            // QEMU is told the window that the tables name, the same for all.
            Tee::Tdx => return Ok(devices),
            Tee::None => {
                let reason =
                    "SeaBIOS places the BARs of passed functions by their sizes, and the ACPI tables name where";
                return Err(reason.to_owned());
            }
            Tee::Snp => {}
        }
        let functions = vm.host.pci.iter().map(|device| {
            facts.device(&device.address).ok_or_else(|| format!("there is no function {}", device.address))
        });
        let functions = functions.collect::<Result<Vec<_>, _>>()?;
        let told = bars::window(vm.tee, facts.physical_address_bits, &functions)
            .map_err(|none| format!("the functions' BARs need {} GiB of room: {}", none.needed_gib, none.reason))?;
        if bars::named_by_snp(told, memory_mib).is_none() {
            let reason = "beside so much memory the ACPI tables name the BARs of the functions that are passed";
            return Err(reason.to_owned());
        }
        Ok(Self { large_bars: told.is_some(), ..devices })
    }

    /// A host that has them. Networks lead nowhere, and no port of this host is taken.
    fn host(&self) -> Host {
        let nic = Nic { no_outbound: true, ..Nic::default() };
        let function = PciDevice::at("");
        let vsock = self.vsock.then(Default::default);
        let numa_nodes = (0..).take(self.nodes).collect();
        Host { nics: vec![nic; self.nics], pci: vec![function; self.pci], vsock, numa_nodes, ..Host::default() }
    }

    fn stand_in_volumes(&self) -> Vec<Volume> {
        let volume = |number| Volume {
            name: format!("volume{number}"),
            serial: format!("volume{number}"),
            path: PathBuf::new(),
            read_only: true,
            block_device: false,
            overwrite: false,
        };
        (0..self.volumes).map(volume).collect()
    }
}

/// The fw_cfg files of a machine, from the cache in the directory `cache` where they were asked for before.
pub fn ask(question: &Question<'_>, cache: &Path) -> Result<Answer, OracleError> {
    let features = Features::of(question.program, cache)?;
    if features.version < FLOOR {
        return Err(OracleError::TooOld { found: features.version_text() });
    }
    let arguments = command_line(question.shape, &question.devices, features.sandbox);
    remembered(question, arguments, "", cache, |arguments, inherited| watch(question.program, arguments, inherited))
}

/// What is remembered of a machine that was asked about before.
pub fn recall(question: &Question<'_>, cache: &Path) -> Option<Answer> {
    let features = Features::known(question.program, cache).ok().flatten().filter(|found| found.version >= FLOOR)?;
    let arguments = command_line(question.shape, &question.devices, features.sandbox);
    let identity = features::identity(question.program).ok()?;
    cache::Place::of(cache, &identity, &Sha256Digest::of(question.firmware), &arguments, "").read()
}

/// What `asking` finds, with these arguments and something for each descriptor that they name; from the cache where the same was
/// asked for before, in the same `manner`.
fn remembered(
    question: &Question<'_>,
    arguments: Vec<String>,
    manner: &str,
    cache: &Path,
    asking: impl FnOnce(Vec<String>, Vec<(i32, OwnedFd)>) -> Result<Answer, OracleError>,
) -> Result<Answer, OracleError> {
    let run = |source| OracleError::Run { program: question.program.binary.clone(), source };
    let identity = features::identity(question.program).map_err(run)?;
    let kept = cache::Place::of(cache, &identity, &Sha256Digest::of(question.firmware), &arguments, manner);
    if let Some(known) = kept.read() {
        return Ok(known);
    }
    let (inherited, peers) = stand_ins(question).map_err(run)?;
    let found = asking(arguments, inherited)?;
    drop(peers);
    kept.write(&found);
    Ok(found)
}

/// The fw_cfg files of any machine, by QEMU's own arguments and the descriptors they name, 60 and 61 excepted. Nothing is
/// remembered.
pub fn watch(
    program: &QemuProgram,
    arguments: Vec<String>,
    inherited: Vec<(i32, OwnedFd)>,
) -> Result<Answer, OracleError> {
    let mut session = Session::start(program, arguments, inherited, TIMEOUT)?;
    let directory = session.directory()?;
    let wanted = fw_cfg::ACPI.iter().map(|(name, _)| directory.key(name)).collect::<Result<Vec<_>, _>>()?;
    session.run_until_selected(&wanted)?;
    session.read(&directory)
}

/// The releases of QEMU whose tables were seen to be those of `version`, that release included. Tables of QEMU 10.0, which is
/// launched by nobody, are those that live guests had with 10.2; those of 11.1 are others.
pub fn releases_alike(version: [u64; 3]) -> Vec<String> {
    let [major, minor, _] = version;
    match (major, minor) {
        (10, 0..=2) => vec!["10.1".to_owned(), "10.2".to_owned()],
        _ => vec![format!("{major}.{minor}")],
    }
}

/// The launch's own argument list, for a host without a TEE.
fn command_line(shape: &Shape, devices: &Devices, sandbox: bool) -> Vec<String> {
    let facts = HostFacts {
        kvm: KvmAccess::Unusable { reason: String::new() },
        c_bit_position: 0,
        physical_address_bits: 0,
        kernel_release: String::new(),
        boot_id: String::new(),
        ..HostFacts::default()
    };
    let line = CommandLine {
        name: "oracle",
        shape,
        accelerator: Accelerator::Tcg,
        kernel_command_line: "",
        facts: &facts,
        sandbox,
        stand_in: true,
        volumes: &devices.stand_in_volumes(),
        signs: Signs { watchdog: devices.watchdog, pvpanic: devices.pvpanic },
        host: &devices.host(),
        topology: devices.topology,
        by_iommufd: false,
        has_passt: false,
        window_mib: if devices.large_bars { bars::larger_window(tee(shape)) } else { None },
        address_bits: None,
    };
    line.arguments()
}

fn tee(shape: &Shape) -> Tee {
    match shape.tee {
        TeeShape::None => Tee::None,
        TeeShape::Snp(_) => Tee::Snp,
        TeeShape::Tdx(_) => Tee::Tdx,
    }
}

/// Descriptors by their number in QEMU, and our ends of those that are sockets.
type StandIns = (Vec<(i32, OwnedFd)>, Vec<UnixStream>);

/// Something for each descriptor of the launch: what a file holds reaches no table, apart from the firmware.
fn stand_ins(question: &Question<'_>) -> std::io::Result<StandIns> {
    let tee = tee(question.shape);
    let boot = question.shape.boot;
    let firmware = crate::firmware::artifact_name(tee, boot);
    let (mut inherited, mut peers) = (Vec::new(), Vec::new());
    for descriptor in descriptors(tee, boot, &question.devices.stand_in_volumes()) {
        let file = match descriptor.role {
            Role::Qmp | Role::Console | Role::Agent => {
                let (ours, theirs) = UnixStream::pair()?;
                peers.push(ours);
                theirs.into()
            }
            Role::Artifact(name) if Some(name) == firmware => sealed_memory(question.firmware)?,
            Role::Artifact(spec::manifest::artifact::KERNEL) => sealed_memory(&kernel())?,
            // A set of descriptors gives out one whose access is what is asked for.
            Role::Volume(_) => read_only(&sealed_memory(&[0; 4096])?)?,
            Role::Configuration | Role::Artifact(_) => sealed_memory(&[0; 4096])?,
            // `descriptors` names none of these: the machine that is asked has no part of the host.
            Role::Device(_) | Role::Vsock(_) | Role::Tap(_) | Role::Passt(_) => continue,
        };
        inherited.push((descriptor.number, file));
    }
    Ok((inherited, peers))
}

fn read_only(file: &OwnedFd) -> std::io::Result<OwnedFd> {
    Ok(std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}

/// As much of a bzImage as QEMU looks at (Linux `Documentation/arch/x86/boot.rst`): it offers one to firmware, which
/// would start it after it has read the tables.
fn kernel() -> Vec<u8> {
    // One sector of set-up code, the signatures, protocol 2.15, loaded high, initrd anywhere below 2 GiB.
    let fields: [(usize, &[u8]); 6] = [
        (0x1f1, &[1]),
        (0x1fe, &[0x55, 0xaa]),
        (0x202, b"HdrS"),
        (0x206, &[0x0f, 0x02]),
        (0x211, &[1]),
        (0x22c, &[0xff, 0xff, 0xff, 0x7f]),
    ];
    let mut image = vec![0; 4096];
    for (offset, bytes) in fields {
        image.splice(offset..offset + bytes.len(), bytes.iter().copied());
    }
    image
}

#[cfg(test)]
mod tests {
    use measure::shape::{Boot, TdxShape};

    use super::*;
    use crate::qemu::WAIT;

    #[test]
    fn the_stand_in_lacks_the_tee_and_nothing_else() {
        let tdx = TdxShape { attributes: TdxShape::SEPT_VE_DISABLE, mrconfigid: [0; 48] };
        let boot = Boot::Kernel;
        let shape = Shape { tee: TeeShape::Tdx(tdx), boot, vcpus: 4, cpu_model: "host".to_owned(), memory_mib: 2048 };
        let launch = CommandLine {
            name: "oracle",
            shape: &shape,
            accelerator: Accelerator::Kvm,
            kernel_command_line: "",
            // A host with a quote generation service would be told of in other words.
            facts: &HostFacts { answers: Default::default(), ..HostFacts::probe() },
            sandbox: true,
            stand_in: false,
            volumes: &[],
            signs: Signs::default(),
            host: &Host::default(),
            topology: Topology::default(),
            has_passt: false,
            by_iommufd: false,
            window_mib: None,
            address_bits: None,
        };
        let mut launched = launch.arguments();
        let asked = command_line(&shape, &Devices::default(), true);
        let guest = launched.iter().position(|word| word.starts_with("tdx-guest,")).unwrap();
        launched.drain(guest - 1..=guest);
        // Who asks lets the machine go on by itself.
        launched.retain(|word| !WAIT.contains(&word.as_str()));
        let changed: Vec<_> = launched.iter().zip(&asked).filter(|(launched, asked)| launched != asked).collect();
        let [(machine, plain), (kvm, tcg), (host, max)] = changed[..] else { panic!("{changed:#?}") };
        assert_eq!(*machine, format!("{plain},confidential-guest-support=tee"));
        assert_eq!(
            [kvm.as_str(), tcg, host, max],
            ["kvm", "tcg,thread=multi", "host,pmu=off", "max,phys-bits=46,pmu=off,vendor=GenuineIntel"]
        );
        assert_eq!(launched.len(), asked.len());
    }
}
