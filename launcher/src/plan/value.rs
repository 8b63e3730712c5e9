//! What a plan is made of, and what it depends on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use measure::shape::Shape;
use sign::VerifiedRelease;
use spec::agent::Binding;
use spec::pins::Pins;
use spec::vm::{Limits, Restart, Vm};
use spec::{Sha256Digest, Tee};
use store::Image;

use crate::confine::Confinement;
use crate::gpu::attach::Preparation;
use crate::host::HostFacts;
use crate::host::check::Drive;
use crate::network::{Passt, Tap};
use crate::pinning::Pinned;
use crate::qemu::oracle::ConfigWrite;
use crate::qemu::{Accelerator, Features, QemuProgram};
use crate::verdict::Verdict;
use crate::volume::Volume;

/// What the caller decides, apart from the VM description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Go through the launch with a simulator in the place of the TEE. No guest code runs.
    pub simulate: Option<Simulation>,
    /// Start a guest without a TEE even though its files may not be those of the manifest.
    pub dangerously_skip_artifact_verification: bool,
    /// Start a guest in a TEE from an image that nobody known has released.
    pub dangerously_allow_unsigned: bool,
    /// Let QEMU run with all rights of this user, and see all that this user sees.
    pub dangerously_unconfined: bool,
    /// Stop the guest as soon as it is ready: to see that it boots.
    pub until_ready: bool,
    /// What the TEE should measure, where that can be predicted: a register as the vendor writes it (`MEASUREMENT` for
    /// SEV-SNP, `MRTD` for TDX), and its value in lower-case hex. A guest that measures otherwise is ended.
    pub expected_measurements: Vec<(String, String)>,
    /// Whether more of it is found out while QEMU is started, and compared as well (`launch::Later`).
    pub more_is_expected: bool,
}

/// The simulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulation {
    /// The library that plays the secure processor or the TDX module behind KVM's ioctls.
    pub preload: PathBuf,
    /// Leave QEMU running after the launch, as it would with a guest.
    pub keep_running: bool,
    /// Let the simulated guest read what firmware would read by fw_cfg, once it has placed the PCI devices like this.
    pub placement: Option<Vec<ConfigWrite>>,
}

/// Everything a plan depends on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The VM description.
    pub vm: &'a Vm,
    /// The image.
    pub image: &'a Image,
    /// The accepted release that the image is, where it was held against one.
    pub release: Option<&'a VerifiedRelease>,
    /// Known firmware.
    pub pins: &'a Pins,
    /// The host.
    pub facts: &'a HostFacts,
    /// The QEMU.
    pub program: &'a QemuProgram,
    /// What that QEMU can do.
    pub features: &'a Features,
    /// What an earlier run has shown about KVM on this host with this kernel.
    pub verdict: Option<Verdict>,
    /// Where the simulator writes its report.
    pub report: &'a std::path::Path,
    /// What the caller decides.
    pub options: &'a Options,
}

/// A descriptor that QEMU inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number in QEMU.
    pub number: i32,
    /// What it is.
    pub role: Role,
}

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The control channel.
    Qmp,
    /// The serial console.
    Console,
    /// The agent port.
    Agent,
    /// A sealed memory file with the configuration disk.
    Configuration,
    /// An artifact of the image, by name.
    Artifact(&'static str),
    /// A volume, by name.
    Volume(String),
    /// `/dev/vhost-vsock`, holding this context identifier.
    Vsock(u32),
    /// The tap device of a NIC on a bridge.
    Tap(Tap),
    /// The socket to the passt of a NIC.
    Passt(Passt),
    /// A device of the host that is passed to the guest, or passes others, by path.
    Device(PathBuf),
}

/// What is to be launched, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The VM's name.
    pub name: String,
    /// The image directory.
    pub image: PathBuf,
    /// SHA-256 of the manifest.
    pub manifest_sha256: Sha256Digest,
    /// The TEE.
    pub tee: Tee,
    /// What is measured.
    pub shape: Shape,
    /// What runs the guest.
    pub accelerator: Accelerator,
    /// Whether another accelerator may be tried where this one turns out unable to run the guest.
    pub may_fall_back: bool,
    /// The firmware and the name it is pinned under; none without a TEE, no name where it is not pinned.
    pub firmware: Option<(Sha256Digest, Option<String>)>,
    /// The whole command, its first word the program.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The descriptors that QEMU inherits besides the standard three.
    pub descriptors: Vec<Descriptor>,
    /// The guest's volumes, in the order of their slots.
    pub volumes: Vec<Volume>,
    /// The guest's volumes on NVMe drives that are passed whole, in the order in which the guest finds them.
    pub drives: Vec<Drive>,
    /// What is done to the GPUs and NVSwitches that the guest gets, before QEMU starts.
    pub gpus: Option<Preparation>,
    /// The content of the configuration disk.
    pub configuration_disk: Vec<u8>,
    /// What a guest that has become ready must say about itself.
    pub expected: Expected,
    /// Whether the image's files are held against the manifest first.
    pub verify_artifacts: bool,
    /// The simulation, where this is one.
    pub simulation: Option<Simulation>,
    /// What QEMU sees of its host; none where it runs with all rights of this user.
    pub confinement: Option<Confinement>,
    /// The facts of the host that the command rests on: with others it would be another.
    pub facts: Vec<String>,
    /// What the person who launches should know.
    pub notes: Vec<String>,
    /// How long the guest may take to become ready.
    pub ready_timeout: Duration,
    /// How long the guest may take to stop.
    pub stop_timeout: Duration,
    /// How long the guest may leave questions unanswered once it was ready; none: for ever.
    pub watchdog: Option<Duration>,
    /// How long the guest may leave its watchdog device unfed; none: it has none.
    pub hang_timeout: Option<Duration>,
    /// The most that QEMU takes of this host.
    pub limits: Option<Limits>,
    /// Which processors of the host its vCPUs run on; any where nothing is said.
    pub pinned: Vec<Pinned>,
    /// Whether it is started again when it has ended.
    pub restart: Option<Restart>,
}

/// What a guest must say about itself. A guest that says otherwise is not the one that was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The dm-verity root hash.
    pub root_hash: Sha256Digest,
    /// The TEE.
    pub tee: Tee,
    /// What binds the configuration.
    pub binding: Binding,
    /// The configuration's digest.
    pub configuration: Sha256Digest,
    /// What it must find in its registers, by the vendor's names, in hex.
    pub measurements: Vec<(String, String)>,
}
