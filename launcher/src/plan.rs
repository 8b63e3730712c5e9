//! The launch as a value: everything that will be run, opened and waited for, and every reason not to.
//!
//! `plan` reads nothing and changes nothing. The same inputs give the same plan, so that it can be shown, compared with
//! a golden text, and held against what was measured, before anything happens.

mod checks;
mod confinement;
mod descriptors;
mod error;
mod gpus;
mod notes;
mod text;
mod upgrade;
mod value;

use std::collections::BTreeMap;
use std::time::Duration;

use measure::shape::{Boot, Shape, SnpShape, TdxShape, TeeShape};
use spec::Tee;
use spec::agent::Binding;
use spec::manifest::artifact;
use spec::vm::{Accelerator as Wanted, Boot as From, RestartPolicy, Vm};

use crate::host::check::{self, Drive};
use crate::host::choose::chosen;
use crate::id_block;
use crate::pinning;
use crate::qemu::signs::Signs;
use crate::qemu::{self, Accelerator, CommandLine};
use crate::simulation;
use crate::volume::{self, Volume};
use checks::{check_drivers, check_features, check_firmware, check_release, choose_accelerator};
pub(crate) use descriptors::descriptors;
use descriptors::{by_iommufd, has_passt, network_descriptors, passed_descriptors, passed_functions};
pub use error::PlanError;
use notes::{grounds, reservations, unseen};
pub use value::{Descriptor, Expected, Inputs, Options, Plan, Role, Simulation};

/// How long a guest may take to become ready where the VM description says nothing.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a guest may take to stop where the VM description says nothing.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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
    Ok(Shape { tee, boot: boot(vm), vcpus: vm.vcpus, cpu_model: vm.cpu_model().to_owned(), memory_mib })
}

/// What starts the guest.
pub(crate) fn boot(vm: &Vm) -> Boot {
    match vm.boot {
        From::Kernel => Boot::Kernel,
        From::Disk => Boot::Disk,
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
    check_drivers(inputs)?;
    let firmware = check_firmware(inputs, shape.boot, &mut notes)?;
    let accelerator = choose_accelerator(inputs, &mut notes)?;
    check_features(features, &shape, vm, accelerator)?;
    if let Some(line) = check::unmet(inputs.facts, vm) {
        return Err(PlanError::Unmet { vm: vm.name.clone(), line: Box::new(line) });
    }
    if !features.sandbox {
        notes.push(format!("QEMU {} was built without seccomp: it runs without a sandbox", features.version_text()));
    }
    notes.extend(reservations(inputs));
    notes.extend(gpus::notes(inputs));
    notes.extend(unseen(inputs));
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
        drives: vm.host.pci.iter().filter_map(Drive::of).collect(),
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
        verify_artifacts: !options.dangerously_skip_artifact_verification,
        simulation: options.simulate.clone(),
        confinement,
        notes,
        ready_timeout: vm.host.ready_timeout_s.map_or(READY_TIMEOUT, Duration::from_secs),
        stop_timeout: vm.host.stop_timeout_s.map_or(STOP_TIMEOUT, Duration::from_secs),
        watchdog: vm.host.watchdog_s.map(Duration::from_secs),
        hang_timeout: vm.guest.watchdog.map(|watchdog| Duration::from_secs(watchdog.timeout_s.into())),
        limits: vm.host.limits,
        pinned: pinning::of(vm, inputs.facts),
        // What is tried, or simulated, is done once.
        restart: vm.host.restart.filter(|restart| {
            restart.policy != RestartPolicy::Never && !options.until_ready && options.simulate.is_none()
        }),
        shape,
    })
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
        signs: Signs::of(&inputs.vm.guest),
        host: &inputs.vm.host,
        topology: inputs.vm.arrangement(),
        by_iommufd: by_iommufd(inputs),
        has_passt: has_passt(inputs),
        // Where there is no room, `check::unmet` has refused.
        window_mib: qemu::bars::window(inputs.vm.tee, inputs.facts.physical_address_bits, &passed_functions(inputs))
            .unwrap_or(None),
        address_bits: qemu::bars::address_bits(&passed_functions(inputs)),
    };
    Ok((program.argv(command_line.arguments()), program.env))
}
