//! Carrying out a plan: lock the name, check the inputs, start QEMU, supervise it, record how it ended, leave nothing.

mod attempt;
pub mod gpus;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use spec::agent::{Identity, Measurements, Workload};
use spec::manifest::artifact;
use spec::pins::Pins;
use spec::vm::Vm;
use spec::{Diagnostic, Outcome};

use crate::ending::{Ending, Report, StopHow};
use crate::gpu::sysfs::{PROCFS, SYSFS};
use crate::host::HostFacts;
use crate::log::Log;
use crate::network::NetworkError;
use crate::notify::Notifier;
use crate::plan::{Inputs, Options, Plan, PlanError, plan};
use crate::qemu::{Accelerator, FeatureError, Features, QemuProgram};
use crate::restart::{Next, Restarts};
use crate::screen::Screen;
use crate::state::directories::create_private_directory;
use crate::state::{Directories, Exit, Lock, Phase, ProcessId, Record, StateError, now, sweep};
use crate::supervise::{Outcome as RunOutcome, Progress, Signals, Witness};
use crate::verdict::{Verdict, Verdicts};
use crate::volume::{self, Volume, VolumeError};
use gpus::GpuError;
use sign::VerifiedRelease;
use store::{Image, OpenArtifacts, VerifyError, open_unverified, verify};

/// What is to be launched, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The VM description.
    pub vm: &'a Vm,
    /// The image.
    pub image: &'a Image,
    /// The accepted release that the image is, where it was held against one.
    pub release: Option<&'a VerifiedRelease>,
    /// Known firmware.
    pub pins: &'a Pins,
    /// The QEMU.
    pub program: &'a QemuProgram,
    /// What the caller decides.
    pub options: &'a Options,
    /// The cache directory, for what was learned about the host and QEMU.
    pub cache: &'a Path,
    /// Where state lives.
    pub directories: &'a Directories,
}

/// A launch that did not come to a running QEMU, or lost sight of it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The name is taken, or state cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The image is not what its manifest says.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// QEMU cannot be asked what it can do.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The launch is refused.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A volume is not used.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A network cannot be had.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A GPU or NVSwitch is not ready for the guest.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// QEMU cannot be started.
    #[error("cannot start {program}")]
    Start {
        /// The first word of the command.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call of the supervisor failed. QEMU was ended.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl LaunchError {
    fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

impl Diagnostic for LaunchError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::State(error) => error.outcome(),
            Self::Verify(error) => error.outcome(),
            Self::Features(error) => error.outcome(),
            Self::Plan(error) => error.outcome(),
            Self::Volume(error) => error.outcome(),
            Self::Network(error) => error.outcome(),
            Self::Gpu(error) => error.outcome(),
            Self::Start { .. } => Outcome::HostCannot,
            Self::System { .. } => Outcome::Internal,
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::State(error) => error.hint(),
            Self::Verify(error) => error.hint(),
            Self::Features(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::Volume(error) => error.hint(),
            Self::Network(error) => error.hint(),
            Self::Gpu(error) => error.hint(),
            Self::Start { .. } | Self::System { .. } => None,
        }
    }
}

/// What is told while a launch goes on.
pub type Listener<'a> = &'a mut dyn FnMut(Progress<'_>);

/// Plans a launch as `launch` would, on a host of which these are the facts, without doing anything.
pub fn plan_only(request: &Request<'_>, facts: &HostFacts) -> Result<Plan, LaunchError> {
    let features = Features::of(request.program, request.cache)?;
    Ok(plan_with(request, facts, &features)?)
}

/// Launches a VM and supervises it until it ends. Call it from the thread that lives as long as the VM shall, before
/// others are started: QEMU is killed when that thread ends, and signals are blocked in it.
pub fn launch(
    request: &Request<'_>,
    mut screen: Option<Screen>,
    listener: Listener<'_>,
) -> Result<Report, LaunchError> {
    let begun = Instant::now();
    let signals = Signals::block().map_err(LaunchError::system("block signals"))?;
    let mut presence = Presence::begin(request)?;
    let facts = HostFacts::probe();
    let (features, artifacts) = check_inputs(request)?;
    let volumes = open_volumes(request)?;
    let mut trial = Trial { request, facts, features, artifacts, volumes, begun };
    let mut told = BTreeSet::new();
    let mut logs = Logs::begin(request)?;
    let mut restarts = None;
    // The devices are this guest's until it has ended.
    let mut claims = Vec::new();
    let (outcome, plan) = loop {
        let plan = plan_with(request, &trial.facts, &trial.features)?;
        for note in &plan.notes {
            if told.insert(note.clone()) {
                listener(Progress::Note(note));
            }
        }
        if let Some(preparation) = &plan.gpus {
            presence.record.gpus = preparation.members.iter().map(|member| member.address).collect();
            presence.record.gpu_mode = Some(preparation.mode);
            let roots = (Path::new(SYSFS), Path::new(PROCFS));
            gpus::prepare(preparation, &mut claims, roots, request.directories, listener)?;
        }
        let started = Instant::now();
        let mut outcome = trial.run(&plan, &signals, screen.as_mut(), &mut presence, &mut logs, listener)?;
        if outcome.kvm_cannot_run && plan.may_fall_back {
            trial.remember(Verdict::Stops, listener);
            trial.give_up_on_kvm();
            continue;
        }
        let ready_ms = presence.record.ready_ms;
        if ready_ms.is_some() && plan.may_fall_back {
            trial.remember(Verdict::Runs, listener);
        }
        let ready_for =
            ready_ms.map_or(Duration::ZERO, |ms| started.elapsed().saturating_sub(Duration::from_millis(ms)));
        match restarts.get_or_insert_with(|| Restarts::new(plan.restart)).after(&outcome.ending, ready_for) {
            Next::End => break (outcome, plan),
            Next::Enough(times) => {
                listener(Progress::Note(&format!("it was started again {times} times in a row: that is enough")));
                break (outcome, plan);
            }
            Next::Again(pause) => {
                presence.wait(&outcome);
                logs.mark(presence.record.restarts);
                let restarts = presence.record.restarts;
                listener(Progress::Restarting { ending: &outcome.ending, restarts, after: pause });
                if let Some(by) = presence.pause(&signals, pause).map_err(LaunchError::system("wait for signals"))? {
                    outcome.ending = Ending::Stopped { by, how: StopHow::Waiting };
                    break (outcome, plan);
                }
                trial.begun = Instant::now();
            }
        }
    };
    Ok(presence.end(outcome.ending, outcome.last_words, plan.accelerator))
}

fn plan_with(request: &Request<'_>, facts: &HostFacts, features: &Features) -> Result<Plan, PlanError> {
    let kernel = request.image.manifest.artifacts.get(artifact::KERNEL);
    let verdict = kernel.and_then(|kernel| Verdicts::open(request.cache).find(facts, &kernel.sha256));
    plan(&Inputs {
        vm: request.vm,
        image: request.image,
        release: request.release,
        pins: request.pins,
        facts,
        program: request.program,
        features,
        verdict,
        report: &request.directories.kept(&request.vm.name).join("simulation.json"),
        options: request.options,
    })
}

/// Hashes the artifacts while QEMU is asked what it can do.
fn check_inputs(request: &Request<'_>) -> Result<(Features, OpenArtifacts), LaunchError> {
    let (directory, manifest) = (&request.image.directory, &request.image.manifest);
    thread::scope(|scope| {
        let verifier = scope.spawn(|| match request.options.dangerously_skip_artifact_verification {
            false => verify(directory, manifest),
            true => open_unverified(directory, manifest),
        });
        // QEMU is started by this thread, with which it would end.
        let features = Features::of(request.program, request.cache);
        match verifier.join() {
            Ok(artifacts) => Ok((artifacts.map_err(LaunchError::from), features)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
    .and_then(|(artifacts, features)| {
        let artifacts = artifacts?;
        Ok((features?, artifacts))
    })
}

/// Opens and locks the volumes.
fn open_volumes(request: &Request<'_>) -> Result<BTreeMap<String, Flock<File>>, VolumeError> {
    let open = |volume: Volume| Ok((volume.name.clone(), volume::open(&volume)?));
    volume::volumes(request.vm).into_iter().map(open).collect()
}

/// What the guest says, on the console and by its workload, over all attempts of one launch.
struct Logs {
    console: Log,
    workload: Log,
}

impl Logs {
    fn begin(request: &Request<'_>) -> Result<Self, StateError> {
        let terms = request.vm.host.log.unwrap_or_default();
        let begin = |path: &Path| Log::begin(path, terms).map_err(StateError::io("begin", path));
        let (directories, name) = (request.directories, &request.vm.name);
        Ok(Self { console: begin(&directories.console_log(name))?, workload: begin(&directories.workload_log(name))? })
    }

    /// Says where one life of the guest ends and the next begins. A disk that is full is noticed with the guest's own words.
    fn mark(&mut self, restarts: u32) {
        let _ = self.console.write(format!("\n[bullion: started again, restart {restarts}]\n").as_bytes());
    }
}

/// What stays the same between the attempts of one launch.
struct Trial<'a> {
    request: &'a Request<'a>,
    facts: HostFacts,
    features: Features,
    artifacts: OpenArtifacts,
    /// The volumes by name, open and locked.
    volumes: BTreeMap<String, Flock<File>>,
    begun: Instant,
}

impl Trial<'_> {
    fn remember(&self, verdict: Verdict, listener: Listener<'_>) {
        let Some(kernel) = self.request.image.manifest.artifacts.get(artifact::KERNEL) else { return };
        let remembered = Verdicts::open(self.request.cache).remember(&self.facts, &kernel.sha256, verdict);
        if let Err(error) = remembered {
            listener(Progress::Note(&format!("what was learned about KVM cannot be kept: {error}")));
        }
    }

    /// The next plan must not choose KVM again, even where the verdict could not be kept.
    fn give_up_on_kvm(&mut self) {
        let reason = "KVM on this host cannot run this kernel (QEMU reports an internal error)".to_owned();
        self.facts.kvm = crate::host::KvmAccess::Unusable { reason };
    }
}

/// A VM as others see it, from the moment its name is taken. Whatever way this ends, nothing is left in the run directory.
struct Presence<'a> {
    directories: &'a Directories,
    record: Record,
    notifier: Notifier,
    _lock: Lock,
}

impl<'a> Presence<'a> {
    fn begin(request: &Request<'a>) -> Result<Self, StateError> {
        let (directories, name) = (request.directories, &request.vm.name);
        directories.prepare()?;
        let lock = Lock::take(directories, name)?;
        sweep(directories, name);
        create_private_directory(&directories.running(name))?;
        create_private_directory(&directories.kept(name))?;
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let record = Record {
            schema: 1,
            name: name.clone(),
            supervisor: ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 }),
            qemu_pid: None,
            started_at: now(),
            phase: Phase::Starting,
            tee: request.vm.tee,
            simulated: request.options.simulate.is_some(),
            image: request.image.directory.clone(),
            manifest_sha256: request.image.manifest_sha256,
            accelerator: None,
            prepared_ms: None,
            gpu_mode: None,
            gpus: Vec::new(),
            ready_ms: None,
            identity: None,
            measurements: None,
            workload: None,
            volumes: count(request.vm.guest.volumes.len()),
            passed_devices: count(request.vm.host.pci.len()),
            stop_timeout_s: request.vm.host.stop_timeout_s.unwrap_or(10),
            console_log: directories.console_log(name),
            restarts: 0,
            before: None,
            exit: None,
        };
        let notifier = Notifier::from_environment();
        let presence = Self { directories, record, notifier, _lock: lock };
        presence.save()?;
        Ok(presence)
    }

    fn save(&self) -> Result<(), StateError> {
        self.record.save_running(&self.directories.running(&self.record.name))
    }

    /// It has ended, and will be started again. A record that cannot be written is noticed with the next start.
    fn wait(&mut self, outcome: &RunOutcome) {
        let record = &mut self.record;
        record.phase = Phase::Waiting;
        record.restarts = record.restarts.saturating_add(1);
        let before = exit(&outcome.ending, &outcome.last_words);
        self.notifier.status(&format!("waiting to be started again: {}", before.summary));
        record.before = Some(before);
        (record.qemu_pid, record.ready_ms, record.workload) = (None, None, None);
        (record.identity, record.measurements) = (None, None);
        let _ = self.save();
    }

    /// Waits for `pause` or a signal, and gives the service manager signs of life meanwhile.
    fn pause(&self, signals: &Signals, pause: Duration) -> io::Result<Option<&'static str>> {
        let end = Instant::now() + pause;
        loop {
            let now = Instant::now();
            self.notifier.beat(now);
            let wake = self.notifier.deadline().map_or(end, |beat| beat.min(end));
            let signal = signals.wait(wake.saturating_duration_since(now))?;
            if signal.is_some() || Instant::now() >= end {
                return Ok(signal);
            }
        }
    }

    fn end(mut self, ending: Ending, last_words: Vec<String>, accelerator: Accelerator) -> Report {
        self.notifier.stopping(&ending.to_string());
        self.record.phase = Phase::Exited;
        self.record.exit = Some(exit(&ending, &last_words));
        // The caller reports the ending in any case; a full disk costs the copy of it.
        let _ = self.record.save_last(&self.directories.kept(&self.record.name));
        Report {
            ending,
            last_words,
            console_log: self.record.console_log.clone(),
            accelerator,
            ready_ms: self.record.ready_ms,
            identity: self.record.identity.take(),
            measurements: self.record.measurements.take(),
            workload: self.record.workload.take(),
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn exit(ending: &Ending, last_words: &[String]) -> Exit {
    Exit {
        code: ending.outcome().map_or(0, Outcome::code),
        summary: ending.to_string(),
        last_words: last_words.to_vec(),
        ended_at: now(),
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        // Before the lock is let go: the next holder must find nothing.
        let _ = fs::remove_dir_all(self.directories.running(&self.record.name));
    }
}

/// Keeps the record and the caller informed.
struct Informer<'a, 'b> {
    presence: &'a mut Presence<'b>,
    listener: Listener<'a>,
    output: &'a mut Log,
}

impl Informer<'_, '_> {
    fn save(&mut self) {
        if let Err(error) = self.presence.save() {
            (self.listener)(Progress::Note(&format!("the VM's state cannot be recorded: {error}")));
        }
    }
}

impl Witness for Informer<'_, '_> {
    fn phase(&mut self, phase: Phase) {
        self.presence.record.phase = phase;
        self.save();
        if phase == Phase::Running {
            self.presence.notifier.status("QEMU runs, the guest is not ready yet");
        }
        if phase == Phase::Stopping {
            self.presence.notifier.stopping("stopping the guest");
            (self.listener)(Progress::Stopping);
        }
    }

    fn ready(&mut self, identity: Identity, after: Duration) {
        (self.listener)(Progress::Ready { identity: &identity, after });
        self.presence.record.ready_ms = u64::try_from(after.as_millis()).ok();
        self.presence.record.identity = Some(identity);
        self.presence.notifier.ready();
        self.save();
    }

    fn measured(&mut self, measurements: Measurements) {
        (self.listener)(Progress::Measured(&measurements));
        self.presence.record.measurements = Some(measurements);
        self.save();
    }

    fn workload(&mut self, workload: Workload) {
        (self.listener)(Progress::Workload(workload));
        self.presence.record.workload = Some(workload);
        self.save();
    }

    fn output(&mut self, line: &str) {
        (self.listener)(Progress::Output(line));
        if let Err(error) = self.output.write(format!("{line}\n").as_bytes()) {
            (self.listener)(Progress::Note(&format!("the workload's output is no longer logged: {error}")));
        }
    }

    fn note(&mut self, note: &str) {
        (self.listener)(Progress::Note(note));
    }

    fn beat(&mut self, now: Instant) -> Option<Instant> {
        self.presence.notifier.beat(now);
        self.presence.notifier.deadline()
    }
}

type Inherited = BTreeMap<i32, OwnedFd>;
