//! The launch as a value: everything that will be run, opened and waited for, and every reason not to.
//!
//! `plan` reads nothing and changes nothing. The same inputs give the same plan, so that it can be shown, compared with
//! a golden text, and held against what was measured, before anything happens.

mod confinement;
mod error;
mod gpus;
mod text;
mod upgrade;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use measure::shape::{Boot, Shape, SnpShape, TdxShape, TeeShape};
use sign::VerifiedRelease;
use spec::agent::Binding;
use spec::lock::Standing;
use spec::manifest::{Class, artifact};
use spec::pins::Pins;
use spec::vm::{Accelerator as Wanted, Boot as From, Limits, Restart, RestartPolicy, Vm};
use spec::{Sha256Digest, Tee};
use store::Image;

use crate::confine::Confinement;
use crate::firmware;
use crate::gpu::attach::Preparation;
use crate::host::answers::{QGS_PORT, QGS_SOCKET, QuoteService};
use crate::host::check;
use crate::host::choose::chosen;
use crate::host::{HostFacts, KvmAccess, PciFunction};
use crate::id_block;
use crate::network::{self, Tap};
use crate::qemu::features::FLOOR;
use crate::qemu::oracle::ConfigWrite;
use crate::qemu::{self, Accelerator, CommandLine, Features, QemuProgram, descriptor};
use crate::simulation;
use crate::verdict::Verdict;
use crate::volume::{self, Volume};
pub use error::PlanError;

/// How long a guest may take to become ready where the VM description says nothing.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a guest may take to stop where the VM description says nothing.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// What is done to the GPUs and NVSwitches that the guest gets, before QEMU starts.
    pub gpus: Option<Preparation>,
    /// The content of the configuration disk.
    pub configuration_disk: Vec<u8>,
    /// What a guest that has become ready must say about itself.
    pub expected: Expected,
    /// What will be measured, by register, where that was predicted: `Options::expected_measurements`.
    pub expected_measurements: Vec<(String, String)>,
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
    /// The most that QEMU takes of this host.
    pub limits: Option<Limits>,
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

/// The shape that a VM description means: what `measure` measures and `plan` launches.
pub fn shape(vm: &Vm) -> Result<Shape, PlanError> {
    let configuration = |source| PlanError::Configuration { vm: vm.name.clone(), source };
    let memory = || PlanError::Memory { vm: vm.name.clone(), memory: vm.memory.to_string() };
    let tee = match vm.tee {
        Tee::None => TeeShape::None,
        Tee::Snp => TeeShape::Snp(SnpShape {
            policy: vm.snp.unwrap_or_default().bits(),
            sev_features: SnpShape::SNP_ACTIVE,
            kernel_hashes: true,
            host_data: vm.guest.host_data().map_err(configuration)?.0,
            id_block: None,
        }),
        Tee::Tdx => TeeShape::Tdx(TdxShape {
            attributes: vm.tdx.unwrap_or_default().bits(),
            mrconfigid: vm.guest.mrconfigid().map_err(configuration)?.0,
        }),
    };
    let memory_mib = vm.memory.whole_mib().ok_or_else(memory)?;
    let boot = match vm.boot {
        From::Kernel => Boot::Kernel,
        From::Disk => Boot::Disk,
    };
    Ok(Shape { tee, boot, vcpus: vm.vcpus, cpu_model: vm.cpu_model().to_owned(), memory_mib })
}

/// Refuses an image in a TEE that is not a signed release; says which release it is.
fn check_release(inputs: &Inputs<'_>) -> Result<Option<String>, PlanError> {
    // A release of another manifest says nothing about this image.
    match inputs.release.filter(|release| *release.manifest_sha256() == inputs.image.manifest_sha256) {
        Some(release) => Ok(Some(format!(
            "release {} of {}, signed by {}, good until {}",
            release.release().sequence,
            release.release().name,
            release.key().short(),
            release.release().expires
        ))),
        None if inputs.options.dangerously_allow_unsigned => {
            Ok(Some("the image is not a signed release: nobody answers for it".to_owned()))
        }
        None => Err(PlanError::Unsigned { tee: inputs.vm.tee }),
    }
}

/// Plans a launch, or says why it is refused.
pub fn plan(inputs: &Inputs<'_>) -> Result<Plan, PlanError> {
    let vm = chosen(inputs.vm, inputs.facts).map_err(|line| PlanError::Unmet { vm: inputs.vm.name.clone(), line })?;
    plan_of_chosen(&Inputs { vm: &vm, ..*inputs })
}

fn plan_of_chosen(inputs: &Inputs<'_>) -> Result<Plan, PlanError> {
    let Inputs { vm, image, features, options, .. } = *inputs;
    let mut shape = shape(vm)?;
    if let TeeShape::Snp(snp) = &mut shape.tee {
        snp.id_block = id_block::of_launch(vm, &image.manifest, snp)?;
    }
    let mut notes = Vec::new();
    if vm.tee == Tee::None && options.simulate.is_some() {
        return Err(PlanError::NothingToSimulate { vm: vm.name.clone() });
    }
    let really_in_tee = vm.tee != Tee::None && options.simulate.is_none();
    if really_in_tee && options.dangerously_skip_artifact_verification {
        return Err(PlanError::UnverifiedTee { tee: vm.tee });
    }
    if really_in_tee {
        notes.extend(check_release(inputs)?);
        upgrade::check(inputs)?;
    }
    let needed = match shape.boot {
        Boot::Kernel => &[artifact::KERNEL, artifact::INITRD, artifact::ROOTFS][..],
        Boot::Disk => &[artifact::DISK],
    };
    for name in needed.iter().copied() {
        if !image.manifest.artifacts.contains_key(name) {
            return Err(PlanError::MissingArtifact { image: image.manifest.name.clone(), name });
        }
    }
    let firmware = check_firmware(inputs, shape.boot, &mut notes)?;
    let accelerator = choose_accelerator(inputs, &mut notes)?;
    check_features(features, &shape, &vm.host, accelerator)?;
    if let Some(line) = check::unmet(inputs.facts, vm) {
        return Err(PlanError::Unmet { vm: vm.name.clone(), line: Box::new(line) });
    }
    if !features.sandbox {
        notes.push(format!("QEMU {} was built without seccomp: it runs without a sandbox", features.version_text()));
    }
    notes.extend(reservations(inputs));
    notes.extend(gpus::notes(inputs));
    let confinement = confinement::of(inputs, accelerator, &mut notes);
    let volumes = volume::volumes(vm);
    let (argv, env) = command(inputs, &shape, accelerator, &volumes)?;
    let configuration = |source| PlanError::Configuration { vm: vm.name.clone(), source };
    Ok(Plan {
        name: vm.name.clone(),
        image: image.directory.clone(),
        manifest_sha256: image.manifest_sha256,
        tee: vm.tee,
        accelerator,
        may_fall_back: accelerator == Accelerator::Kvm && vm.tee == Tee::None && vm.host.accelerator == Wanted::Auto,
        firmware,
        argv,
        env,
        descriptors: descriptors(vm.tee, shape.boot, &volumes)
            .into_iter()
            .chain(network_descriptors(inputs))
            .chain(passed_descriptors(inputs))
            .collect(),
        volumes,
        facts: grounds(inputs, accelerator),
        gpus: gpus::preparation(inputs),
        configuration_disk: vm.guest.to_disk().map_err(configuration)?,
        expected: Expected {
            root_hash: image.manifest.verity.root_hash,
            tee: vm.tee,
            binding: match vm.tee {
                Tee::None => Binding::Unattested,
                Tee::Snp => Binding::HostData,
                Tee::Tdx => Binding::Mrconfigid,
            },
            configuration: vm.guest.host_data().map_err(configuration)?,
            measurements: options.expected_measurements.clone(),
        },
        expected_measurements: options.expected_measurements.clone(),
        verify_artifacts: !options.dangerously_skip_artifact_verification,
        simulation: options.simulate.clone(),
        confinement,
        notes,
        ready_timeout: vm.host.ready_timeout_s.map_or(READY_TIMEOUT, Duration::from_secs),
        stop_timeout: vm.host.stop_timeout_s.map_or(STOP_TIMEOUT, Duration::from_secs),
        watchdog: vm.host.watchdog_s.map(Duration::from_secs),
        limits: vm.host.limits,
        // What is tried, or simulated, is done once.
        restart: vm.host.restart.filter(|restart| {
            restart.policy != RestartPolicy::Never && !options.until_ready && options.simulate.is_none()
        }),
        shape,
    })
}

/// How far the image, and what is measured, may be trusted, where that is less than it could be.
fn reservations(inputs: &Inputs<'_>) -> impl Iterator<Item = String> + use<> {
    let manifest = &inputs.image.manifest;
    let dev = inputs.vm.tee != Tee::None && manifest.class == Class::Dev;
    let dev = dev.then_some("the image is of class dev: the origin of its guest binary is not proved");
    let unpublished = manifest.standing == Standing::Unpublished;
    let unpublished =
        unpublished.then_some("the image is UNPUBLISHED: its lock was made on the spot, it is not the golden one");
    let unpredicted = inputs.vm.tee != Tee::None && inputs.options.expected_measurements.is_empty();
    let unpredicted = unpredicted.then_some("there is no prediction of what the TEE measures: nothing is compared");
    let debug = inputs.vm.snp.is_some_and(|policy| policy.dangerously_allow_debug)
        || inputs.vm.tdx.is_some_and(|attributes| attributes.dangerously_allow_debug);
    let debug = debug.then_some("DEBUG is allowed: this host can read all of the guest's memory");
    let doubled = inputs.vm.tee != Tee::None && inputs.vm.host.huge_pages.is_some();
    let doubled =
        doubled.then_some("huge pages hold what is shared with the host only, and are kept: memory is needed twice");
    let really_tdx = inputs.vm.tee == Tee::Tdx && inputs.options.simulate.is_none();
    let unquoted = really_tdx && QuoteService::of(inputs.facts).is_none();
    let unquoted =
        unquoted.then_some("no quote generation service answers here: nobody can verify the guest from afar");
    let notes = [dev, unpublished, unpredicted, debug, doubled, unquoted];
    notes.into_iter().flatten().map(str::to_owned)
}

type PlannedFirmware = Option<(Sha256Digest, Option<String>)>;

fn check_firmware(inputs: &Inputs<'_>, boot: Boot, notes: &mut Vec<String>) -> Result<PlannedFirmware, PlanError> {
    let Some(sha256) = firmware::of_image(&inputs.image.manifest, inputs.vm.tee, boot)? else { return Ok(None) };
    if inputs.vm.tee == Tee::None {
        // Nothing is measured, so nothing depends on what it enforces.
        return Ok(Some((sha256, inputs.pins.find(&sha256).map(|pin| pin.name.clone()))));
    }
    match firmware::allow(inputs.pins, &sha256, inputs.vm.tee) {
        Ok(pin) => Ok(Some((sha256, Some(pin.name.clone())))),
        // No guest runs in a simulation, so nothing depends on what the firmware would enforce.
        Err(refusal) if inputs.options.simulate.is_some() => {
            notes.push(format!("a real launch would be refused: {refusal}"));
            Ok(Some((sha256, inputs.pins.find(&sha256).map(|pin| pin.name.clone()))))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

fn choose_accelerator(inputs: &Inputs<'_>, notes: &mut Vec<String>) -> Result<Accelerator, PlanError> {
    let facts = inputs.facts;
    let lacks = |tee, can_simulate| move |reason| PlanError::HostLacks { tee, reason, can_simulate };
    match (inputs.vm.tee, inputs.vm.host.accelerator) {
        (Tee::Snp | Tee::Tdx, _) if inputs.options.simulate.is_some() => {
            facts.supports(Tee::None).map_err(lacks("simulated", false))?;
            Ok(Accelerator::Kvm)
        }
        (tee @ (Tee::Snp | Tee::Tdx), _) => {
            let can_simulate = matches!(facts.kvm, KvmAccess::Usable { .. });
            let name = if tee == Tee::Snp { "SEV-SNP" } else { "TDX" };
            facts.supports(tee).map_err(lacks(name, can_simulate))?;
            Ok(Accelerator::Kvm)
        }
        (Tee::None, Wanted::Tcg) => Ok(Accelerator::Tcg),
        (Tee::None, Wanted::Kvm) => {
            facts.supports(Tee::None).map_err(lacks("KVM", false))?;
            Ok(Accelerator::Kvm)
        }
        (Tee::None, Wanted::Auto) => {
            let reason = match (facts.supports(Tee::None), inputs.verdict) {
                (Err(reason), _) => reason,
                (Ok(()), Some(Verdict::Stops)) => "KVM on this host has stopped this kernel before".to_owned(),
                (Ok(()), _) => return Ok(Accelerator::Kvm),
            };
            notes.push(format!("running under TCG, which is slow: {reason}"));
            Ok(Accelerator::Tcg)
        }
    }
}

fn check_features(
    features: &Features,
    shape: &Shape,
    host: &spec::vm::Host,
    accelerator: Accelerator,
) -> Result<(), PlanError> {
    let version = features.version_text();
    if features.version < FLOOR {
        return Err(PlanError::QemuTooOld { found: version });
    }
    if let Some(missing) =
        qemu::required_types(shape, host, accelerator).into_iter().find(|name| !features.types.contains(name))
    {
        return Err(PlanError::QemuLacks { version, missing });
    }
    if !features.types.contains(&format!("{}-x86_64-cpu", shape.cpu_model)) {
        return Err(PlanError::UnknownCpu { version, model: shape.cpu_model.clone() });
    }
    Ok(())
}

type Command = (Vec<String>, BTreeMap<String, String>);

fn command(
    inputs: &Inputs<'_>,
    shape: &Shape,
    accelerator: Accelerator,
    volumes: &[Volume],
) -> Result<Command, PlanError> {
    let text =
        |path: &std::path::Path| path.to_str().map(str::to_owned).ok_or_else(|| PlanError::NotText(path.to_owned()));
    let mut program = inputs.program.clone();
    if let Some(simulation) = &inputs.options.simulate {
        program = program.with_preload(&text(&simulation.preload)?);
        program.env.insert("TEESIM_REPORT".to_owned(), text(inputs.report)?);
        if let Some(placement) = &simulation.placement {
            let writes: Vec<String> = placement.iter().map(ToString::to_string).collect();
            program.env.insert("TEESIM_FW_CFG".to_owned(), text(&simulation::fw_cfg(inputs.report))?);
            program.env.insert("TEESIM_PCI".to_owned(), writes.join(" "));
        }
        if simulation.keep_running {
            program.env.insert("TEESIM_KEEP_RUNNING".to_owned(), "1".to_owned());
        }
    }
    let command_line = CommandLine {
        name: &inputs.vm.name,
        shape,
        accelerator,
        kernel_command_line: &inputs.image.manifest.command_line,
        facts: inputs.facts,
        sandbox: inputs.features.sandbox,
        stand_in: false,
        volumes,
        host: &inputs.vm.host,
        topology: inputs.vm.topology.unwrap_or_default(),
        by_iommufd: by_iommufd(inputs),
        // Where there is no room, `check::unmet` has refused.
        window_mib: qemu::bars::window(inputs.vm.tee, inputs.facts.physical_address_bits, &passed_functions(inputs))
            .unwrap_or(None),
        address_bits: qemu::bars::address_bits(&passed_functions(inputs)),
    };
    Ok((program.argv(command_line.arguments()), program.env))
}

/// The descriptors that QEMU inherits for a guest in `tee`.
pub(crate) fn descriptors(tee: Tee, boot: Boot, volumes: &[Volume]) -> Vec<Descriptor> {
    let common = [
        (descriptor::QMP, Role::Qmp),
        (descriptor::CONSOLE, Role::Console),
        (descriptor::AGENT, Role::Agent),
        (descriptor::CONFIGURATION, Role::Configuration),
    ];
    let started = match boot {
        Boot::Kernel => &[
            (descriptor::KERNEL, artifact::KERNEL),
            (descriptor::INITRD, artifact::INITRD),
            (descriptor::ROOTFS, artifact::ROOTFS),
        ][..],
        Boot::Disk => &[(descriptor::ROOTFS, artifact::DISK)],
    };
    let started = started.iter().map(|(number, name)| (*number, Role::Artifact(name)));
    let firmware = firmware::artifact_name(tee, boot).map(|name| (descriptor::FIRMWARE, Role::Artifact(name)));
    let volumes =
        (descriptor::VOLUMES..).zip(volumes).map(|(number, volume)| (number, Role::Volume(volume.name.clone())));
    common
        .into_iter()
        .chain(started)
        .chain(firmware)
        .chain(volumes)
        .map(|(number, role)| Descriptor { number, role })
        .collect()
}

/// The functions that are passed, in the order of their ports.
fn passed_functions<'a>(inputs: &Inputs<'a>) -> Vec<&'a PciFunction> {
    inputs.vm.host.pci.iter().filter_map(|device| inputs.facts.device(&device.address)).collect()
}

/// Whether functions are passed by iommufd: always where it is there, because group VFIO cannot follow a TEE's memory.
fn by_iommufd(inputs: &Inputs<'_>) -> bool {
    let facts = inputs.facts;
    let cdev = |address: &str| facts.device(address).and_then(|device| device.cdev.as_ref()).is_some();
    facts.answers.opens("/dev/iommu").is_ok() && inputs.vm.host.pci.iter().all(|device| cdev(&device.address))
}

/// Of the vsock, and of NICs on bridges.
fn network_descriptors(inputs: &Inputs<'_>) -> Vec<Descriptor> {
    let vm = inputs.vm;
    let cid = vm.host.vsock.map(|vsock| network::cid(&vm.name, vsock));
    let mut all: Vec<_> =
        cid.map(|cid| Descriptor { number: descriptor::VSOCK, role: Role::Vsock(cid) }).into_iter().collect();
    for (index, nic) in vm.host.nics.iter().enumerate() {
        let Some(bridge) = &nic.bridge else { continue };
        let tap = Tap { name: network::tap_name(&vm.name, index), bridge: bridge.clone() };
        all.push(Descriptor { number: descriptor::tap(index), role: Role::Tap(tap) });
        if network::by_vhost(inputs.facts) {
            let role = Role::Device(network::VHOST_NET.into());
            all.push(Descriptor { number: descriptor::vhost_net(index), role });
        }
    }
    all
}

fn passed_descriptors(inputs: &Inputs<'_>) -> Vec<Descriptor> {
    let host = &inputs.vm.host;
    if host.pci.is_empty() || !by_iommufd(inputs) {
        return Vec::new();
    }
    let cdevs = host.pci.iter().filter_map(|device| inputs.facts.device(&device.address)?.cdev.as_ref());
    let functions =
        cdevs.enumerate().map(|(index, cdev)| (descriptor::pci(index), format!("/dev/vfio/devices/{cdev}")));
    let iommufd = (descriptor::IOMMUFD, "/dev/iommu".to_owned());
    [iommufd]
        .into_iter()
        .chain(functions)
        .map(|(number, path)| Descriptor { number, role: Role::Device(path.into()) })
        .collect()
}

/// What of the host went into the command.
fn grounds(inputs: &Inputs<'_>, accelerator: Accelerator) -> Vec<String> {
    let (facts, vm) = (inputs.facts, inputs.vm);
    let mut grounds = vec![format!("QEMU {}", inputs.features.version_text())];
    match facts.kvm {
        KvmAccess::Usable { vm_types } if accelerator == Accelerator::Kvm => {
            grounds.push(format!("KVM of kernel {} with VM types {vm_types:#x}", facts.kernel_release));
        }
        _ => {}
    }
    if vm.tee == Tee::Snp {
        grounds.push(format!("C-bit {}", facts.c_bit_position));
        grounds.push(format!("{} physical address bits", facts.physical_address_bits));
    }
    if vm.tee == Tee::Tdx {
        grounds.push(match QuoteService::of(facts) {
            Some(QuoteService::Unix) => format!("quotes by {QGS_SOCKET}"),
            Some(QuoteService::Vsock) => format!("quotes by vsock port {QGS_PORT}"),
            None => "no quotes".to_owned(),
        });
    }
    grounds.extend(passed_functions(inputs).into_iter().map(|function| {
        let how = function.cdev.as_deref().filter(|_| by_iommufd(inputs)).unwrap_or("its IOMMU group");
        format!("{} [{}] by {how}", function.address, function.id)
    }));
    grounds
}
