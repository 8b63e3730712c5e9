//! Carrying out a plan: lock the name, start QEMU, check the inputs, let the guest run, record how it ended, leave nothing.

mod artifacts;
mod attempt;
mod error;
pub mod gpus;
mod later;
mod presence;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use spec::manifest::artifact;
use spec::pins::Pins;
use spec::time::Timestamp;
use spec::vm::Vm;

use crate::attach::admits_typing;
use crate::attach::visitors::Visitors;
use crate::cgroup::Group;
use crate::ending::{Ending, Report, StopHow};
use crate::gpu::sysfs::{PROCFS, SYSFS};
use crate::host::HostFacts;
use crate::log::Log;
use crate::plan::{Inputs, Options, Plan, PlanError, plan};
use crate::qemu::{Accelerator, Features, QemuProgram};
use crate::restart::{Next, Restarts};
use crate::screen::Screen;
use crate::state::{Directories, StateError};
use crate::supervise::{Outcome as RunOutcome, Progress, Signals};
use crate::verdict::{Verdict, Verdicts};
use crate::volume::{self, Volume, VolumeError};
use artifacts::Artifacts;
use attempt::Screens;
pub use error::LaunchError;
pub use later::{Later, Refusal};
use presence::{Informer, Presence};
use sign::VerifiedRelease;
use store::Image;

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
    /// What the time is, where that is known: a release is asked again before a guest is started again.
    pub clock: fn() -> Option<Timestamp>,
    /// What is found out while QEMU is started.
    pub later: &'a dyn Later,
}

/// What is told while a launch goes on.
pub type Listener<'a> = &'a mut dyn FnMut(Progress<'_>);

/// Plans a launch as `launch` would, on a host of which these are the facts, without doing anything.
pub fn plan_only(request: &Request<'_>, facts: &HostFacts) -> Result<Plan, LaunchError> {
    let features = Features::of(request.program, request.cache)?;
    Ok(plan_with(request, facts, &features)?)
}

/// Launches a VM on a host of which these are the facts, and supervises it until it ends. Call it from the thread that lives as long as the VM shall, before
/// others are started: QEMU is killed when that thread ends, and signals are blocked in it.
pub fn launch(
    request: &Request<'_>,
    facts: HostFacts,
    mut screen: Option<Screen>,
    listener: Listener<'_>,
) -> Result<Report, LaunchError> {
    let begun = Instant::now();
    let signals = Signals::block().map_err(LaunchError::system("block signals"))?;
    let mut presence = Presence::begin(request)?;
    let ended = Trial::begin(request, facts, begun, listener).and_then(|mut trial| {
        let ended = attempts(&mut trial, &mut presence, &signals, screen.as_mut(), listener);
        trial.artifacts.said_first(request.image, ended)
    });
    match ended {
        Ok((outcome, accelerator)) => Ok(presence.end(outcome.ending, outcome.last_words, accelerator)),
        Err(error) => {
            presence.fail(&error);
            Err(error)
        }
    }
}

/// Starts the VM until it stays ended.
fn attempts(
    trial: &mut Trial<'_>,
    presence: &mut Presence<'_>,
    signals: &Signals,
    mut screen: Option<&mut Screen>,
    listener: Listener<'_>,
) -> Result<(RunOutcome, Accelerator), LaunchError> {
    let request = trial.request;
    let mut told = BTreeSet::new();
    let mut logs = Logs::begin(request)?;
    let mut visitors = expect_visitors(request, listener);
    let mut restarts = None;
    // The devices are this guest's until it has ended.
    let mut claims = Vec::new();
    loop {
        let mut plan = plan_with(request, &trial.facts, &trial.features)?;
        for note in &plan.notes {
            if told.insert(note.clone()) {
                listener(Progress::Note(note));
            }
        }
        trial.share_files(&plan)?;
        if let Some(preparation) = &plan.gpus {
            presence.record.gpus = preparation.members.iter().map(|member| member.address).collect();
            presence.record.gpu_mode = Some(preparation.mode);
            // No GPU is touched for a guest that will not run.
            trial.agree()?;
            let roots = (Path::new(SYSFS), Path::new(PROCFS));
            gpus::prepare(preparation, &mut claims, roots, request.directories, listener)?;
            if !preparation.resizes.is_empty() {
                // Their driver has them anew, and their device nodes may have other numbers.
                let is_prepared =
                    |address: &str| preparation.members.iter().any(|member| member.address.to_string() == address);
                let anew = HostFacts::probe().devices;
                for device in trial.facts.devices.iter_mut().filter(|device| is_prepared(&device.address)) {
                    // Of the others nothing else may be known than when these were chosen.
                    if let Some(found) = anew.iter().find(|found| found.address == device.address) {
                        device.clone_from(found);
                    }
                }
                plan = plan_with(request, &trial.facts, &trial.features)?;
            }
        }
        let screens = Screens { own: screen.as_deref_mut(), visitors: visitors.as_mut() };
        let mut outcome = trial.run(&plan, signals, screens, presence, &mut logs, listener)?;
        if outcome.kvm_cannot_run && plan.may_fall_back {
            trial.remember(Verdict::Stops, listener);
            trial.give_up_on_kvm();
            continue;
        }
        if let Some(note) = trial.group.as_mut().and_then(Group::ran_out) {
            listener(Progress::Note(&note));
            // In a unit nobody hears notes, and the record is what is left.
            outcome.last_words.push(note);
        }
        let ready_ms = presence.record.ready_ms;
        if ready_ms.is_some() && plan.may_fall_back {
            trial.remember(Verdict::Runs, listener);
        }
        let until_ready = ready_ms.zip(presence.record.prepared_ms).map(|(ready, prepared)| ready + prepared);
        let ready_for =
            until_ready.map_or(Duration::ZERO, |ms| trial.begun.elapsed().saturating_sub(Duration::from_millis(ms)));
        match restarts.get_or_insert_with(|| Restarts::new(plan.restart)).after(&outcome.ending, ready_for) {
            Next::End => return Ok((outcome, plan.accelerator)),
            Next::Enough(times) => {
                listener(Progress::Note(&format!("it was started again {times} times in a row: that is enough")));
                return Ok((outcome, plan.accelerator));
            }
            Next::Again(pause) => {
                presence.wait(&outcome);
                let mark = logs.mark(presence.record.restarts);
                visitors.iter_mut().for_each(|visitors| visitors.show(mark.as_bytes()));
                let restarts = presence.record.restarts;
                listener(Progress::Restarting { ending: &outcome.ending, restarts, after: pause });
                if let Some(by) = presence.pause(signals, pause).map_err(LaunchError::system("wait for signals"))? {
                    outcome.ending = Ending::Stopped { by, how: StopHow::Waiting };
                    return Ok((outcome, plan.accelerator));
                }
                visitors.iter_mut().for_each(Visitors::begin);
                trial.begun = Instant::now();
                if let Some(by) = trial.check_again(presence, signals)? {
                    outcome.ending = Ending::Stopped { by, how: StopHow::Waiting };
                    return Ok((outcome, plan.accelerator));
                }
            }
        }
    }
}

/// Who may type to the guest from elsewhere: nobody to a release's, nobody where no guest runs.
fn expect_visitors(request: &Request<'_>, listener: Listener<'_>) -> Option<Visitors> {
    if !admits_typing(request.image.manifest.class) || request.options.simulate.is_some() {
        return None;
    }
    match Visitors::expect(&request.directories.running(&request.vm.name)) {
        Ok(visitors) => Some(visitors),
        Err(error) => {
            listener(Progress::Note(&format!("nobody can type to the guest from elsewhere: {error}")));
            None
        }
    }
}

/// The control group that keeps `[host.limits]`. Without one QEMU runs all the same: they protect others of this host, not the guest.
fn make_group(request: &Request<'_>, listener: Listener<'_>) -> Option<Group> {
    let limits = request.vm.host.limits.as_ref()?;
    match Group::make(limits, &request.vm.name) {
        Ok(group) => Some(group),
        Err(error) => {
            let way = "`bullion vm install`, or `systemd-run --scope -p Delegate=yes bullion launch`, gives QEMU one of its own";
            listener(Progress::Note(&format!("[host.limits] is NOT kept: {error}; {way}")));
            None
        }
    }
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
    fn mark(&mut self, restarts: u32) -> String {
        let mark = format!("\n[bullion: started again, restart {restarts}]\n");
        let _ = self.console.write(mark.as_bytes());
        mark
    }
}

/// What stays the same between the attempts of one launch.
struct Trial<'a> {
    request: &'a Request<'a>,
    facts: HostFacts,
    features: Features,
    artifacts: Artifacts,
    /// The volumes by name, open and locked.
    volumes: BTreeMap<String, Flock<File>>,
    /// QEMU's control group, where it has one.
    group: Option<Group>,
    begun: Instant,
}

impl<'a> Trial<'a> {
    fn begin(
        request: &'a Request<'a>,
        facts: HostFacts,
        begun: Instant,
        listener: Listener<'_>,
    ) -> Result<Self, LaunchError> {
        let dangerously_skip = request.options.dangerously_skip_artifact_verification;
        let mut artifacts = Artifacts::open(request.image, request.vm, dangerously_skip)?;
        let asked = || Ok((Features::of(request.program, request.cache)?, open_volumes(request)?));
        let (features, volumes) = artifacts.said_first(request.image, asked())?;
        Ok(Self { request, facts, features, artifacts, volumes, group: make_group(request, listener), begun })
    }
}

impl Trial<'_> {
    /// Returns what the TEE should measure, when the image is what its manifest says.
    fn agree(&mut self) -> Result<Vec<(String, String)>, LaunchError> {
        let Request { image, options, later, .. } = self.request;
        self.artifacts.verify(image)?;
        let mut expected = options.expected_measurements.clone();
        if options.more_is_expected {
            expected.push(later.find_out()?);
        }
        Ok(expected)
    }

    /// Whether the guest may be started again: by the bytes that were accepted, and as long as their release holds. Returns the
    /// signal that asked for an end meanwhile.
    fn check_again(&self, presence: &Presence<'_>, signals: &Signals) -> Result<Option<&'static str>, LaunchError> {
        let Request { image, options, release, clock, .. } = self.request;
        if !options.dangerously_skip_artifact_verification {
            // The rest of what this has is not for two threads.
            let artifacts = &self.artifacts;
            let verify = || artifacts.compare(image, |_| true, false);
            let (by, verified) =
                presence.pause_during(signals, verify).map_err(LaunchError::system("hash the files"))?;
            if by.is_some() {
                return Ok(by);
            }
            verified?;
        }
        let Some(release) = release else { return Ok(None) };
        let unknown = || io::Error::other("it is not between 1970 and 9999");
        let now = clock().ok_or_else(unknown).map_err(LaunchError::system("read the clock"))?;
        release.check_expiry(now)?;
        Ok(None)
    }

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

type Inherited = BTreeMap<i32, OwnedFd>;
