//! The workload: volumes opened, images given to podman, containers run to their end.
//!
//! All of it happens in a thread of its own, so that the agent answers meanwhile; what there is to say comes to the
//! supervisor as reports. Nothing here listens to the host: the measured configuration says what to do.

mod container;
mod group;
mod output;
mod podman;
mod stopping;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use spec::agent;
use spec::guest_config::GuestConfig;
use spec::volume::{Carrier, GuestVolume, Purpose};
use spec::workload::{Runs, Workload};

use crate::admission::Drive;
use crate::children::Children;
use crate::disks::Disk;
use crate::failure::{Failure, OrFail as _, Stage};
use crate::{admission, archive, disks, modules, network, nvidia, scratch, writable};
use stopping::Stopping;

/// How many reports may wait for the supervisor before who makes them waits too.
const REPORTS: usize = 64;
/// How long a workload may take to stop where the configuration says nothing.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What the thread has to say.
#[derive(Debug)]
pub(crate) enum Report {
    /// The workload has come to another state.
    State(agent::Workload),
    /// It printed a line that is for the host.
    Line(String),
    /// The guest cannot go on.
    Failed(Failure),
}

impl Report {
    /// Whether nothing comes after it.
    fn is_end(&self) -> bool {
        matches!(self, Self::State(agent::Workload::Ended { .. }) | Self::Failed(_))
    }
}

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Runner {
    children: Arc<Children>,
    reports: Receiver<Report>,
    wake: Arc<EventFd>,
    stopping: Arc<Stopping>,
    under_way: Arc<AtomicBool>,
    grace: Duration,
}

/// The thread's end.
#[derive(Clone, Debug)]
struct Teller {
    reports: SyncSender<Report>,
    wake: Arc<EventFd>,
}

impl Teller {
    fn tell(&self, report: Report) {
        // A supervisor that is gone has ended the guest.
        let _ = self.reports.send(report);
        let _ = self.wake.write(1);
    }
}

impl Runner {
    /// Begins with what `config` asks for; `None` where it asks for nothing.
    pub(crate) fn begin(
        config: &GuestConfig,
        drives: &[Drive],
        children: &Arc<Children>,
    ) -> Result<Option<Self>, Failure> {
        if !config.asks_for_something() {
            return Ok(None);
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).or_fail_doing(Stage::Workload, "eventfd")?);
        let (sender, reports) = mpsc::sync_channel(REPORTS);
        let (stopping, under_way) = (Arc::new(Stopping::default()), Arc::new(AtomicBool::new(false)));
        let grace = config.workload.as_ref().and_then(|workload| workload.stop_grace_s);
        let grace = grace.map_or(STOP_GRACE, |seconds| Duration::from_secs(seconds.into()));
        let runner = Self {
            children: Arc::clone(children),
            reports,
            wake: Arc::clone(&wake),
            stopping: Arc::clone(&stopping),
            under_way: Arc::clone(&under_way),
            grace,
        };
        let work = Work {
            config: config.clone(),
            drives: drives.to_vec(),
            children: Arc::clone(children),
            teller: Teller { reports: sender, wake },
            stopping,
            under_way,
            grace,
        };
        thread::Builder::new()
            .name("workload".to_owned())
            .spawn(move || {
                if let Err(failure) = work.run() {
                    work.teller.tell(Report::Failed(failure));
                }
            })
            .or_fail_doing(Stage::Workload, "starting a thread")?;
        Ok(Some(runner))
    }

    /// What the supervisor waits for: readable when there are reports.
    pub(crate) fn wake(&self) -> &EventFd {
        &self.wake
    }

    /// The reports that are there.
    pub(crate) fn reports(&self) -> impl Iterator<Item = Report> + '_ {
        let _ = self.wake.read();
        // No more than there can be at once: a workload that never stops writing must not keep the agent from answering.
        self.reports.try_iter().take(REPORTS)
    }

    /// Asks the workload to end, and waits for it no longer than the configuration allows; `meanwhile` is done again and again.
    pub(crate) fn stop(&self, mut meanwhile: impl FnMut()) {
        self.stopping.ask();
        let deadline = Instant::now() + self.grace;
        let mut running = self.children.signal(Signal::SIGTERM) || self.under_way.load(Ordering::SeqCst);
        while running && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            meanwhile();
            self.children.reap();
            running = !self.reports.try_iter().any(|report| report.is_end());
        }
    }
}

/// The disk of a volume that is on the next NVMe drive.
fn next_namespace<'a>(drives: &mut impl Iterator<Item = &'a Drive>, volume: &GuestVolume) -> Result<Disk, Failure> {
    let none = || Failure::new(Stage::Volume, format_args!("no NVMe drive is left for volume \"{}\"", volume.name));
    let drive = drives.next().ok_or_else(none)?;
    drive.wait_for_namespace().or_fail(Stage::Volume)
}

struct Work {
    config: GuestConfig,
    /// The NVMe drives of its volumes, in the order of the volumes that are on one.
    drives: Vec<Drive>,
    children: Arc<Children>,
    teller: Teller,
    stopping: Arc<Stopping>,
    /// Whether containers may run although no child of this program does.
    under_way: Arc<AtomicBool>,
    grace: Duration,
}

impl Work {
    fn run(&self) -> Result<(), Failure> {
        self.teller.tell(Report::State(agent::Workload::Preparing));
        if self.config.workload.is_some() && !Path::new(podman::PROGRAM).exists() {
            let reason = format_args!("the image has no {}: it runs no workloads", podman::PROGRAM);
            return Err(Failure::new(Stage::Workload, reason));
        }
        modules::load_from_root(self.config.gpus.is_some())?;
        if self.config.network.is_some() {
            admission::bind_network()?;
        }
        writable::prepare()?;
        let gpus = self.config.gpus.as_ref().map_or(Ok(false), |gpus| nvidia::begin(gpus.count, &self.children))?;
        network::bring_loopback_up().or_fail_doing(Stage::Network, "bringing the loopback interface up")?;
        let resolver = "/etc/resolv.conf";
        std::fs::write(resolver, network::resolver(self.config.network.as_ref()))
            .or_fail_doing(Stage::Network, resolver)?;
        if let Some(network) = &self.config.network {
            network::configure(network, &self.children)?;
        }
        self.open_volumes()?;
        modules::load_no_more()?;
        self.config.workload.as_ref().map_or(Ok(()), |workload| self.run_workload(workload, gpus))
    }

    /// Scratch first: archives may be unpacked there.
    fn open_volumes(&self) -> Result<(), Failure> {
        let mut drives = self.drives.iter();
        for volume in &self.config.volumes {
            if let (Purpose::Scratch, Some(mount)) = (volume.purpose, &volume.mount) {
                let disk = match volume.on {
                    Carrier::Virtio => disks::wait_for(&volume.serial()).or_fail(Stage::Volume)?,
                    Carrier::Nvme => next_namespace(&mut drives, volume)?,
                };
                scratch::open(volume, &disk, mount, &self.children)?;
            }
        }
        // Podman copies on its way here (`image_copy_tmp_dir`), and expects the place to be there.
        writable::make(podman::TEMPORARY)?;
        let mut archives = self.config.volumes.iter().filter(|volume| volume.purpose == Purpose::Archive);
        archives.try_for_each(|volume| self.take_archive(volume))
    }

    /// Copies the archive, and lets podman see the copy once it is known to be the one that was meant.
    fn take_archive(&self, volume: &GuestVolume) -> Result<(), Failure> {
        let (Some(sha256), Some(size_bytes)) = (volume.sha256, volume.size_bytes) else { return Ok(()) };
        let disk = disks::wait_for(&volume.serial()).or_fail(Stage::Volume)?;
        let copy = format!("{}/{}.tar", writable::CONTAINERS, volume.name);
        let wanted = archive::Wanted { name: &volume.name, sha256, size_bytes };
        archive::copy(&wanted, &disk.node(), Path::new(&copy)).or_fail(Stage::Volume)?;
        self.children.run(&podman::load(&copy)).or_fail(Stage::Workload)?;
        std::fs::remove_file(&copy).or_fail_doing(Stage::Workload, &copy)
    }

    /// `gpus`: whether there are GPUs for containers. Pods and compose files ask for them themselves.
    fn run_workload(&self, workload: &Workload, gpus: bool) -> Result<(), Failure> {
        match workload.runs() {
            Some(Runs::Container(image)) => container::run(self, workload, image, gpus),
            Some(Runs::Pods(text)) => group::run_pods(self, workload, text),
            Some(Runs::Compose(text)) => group::run_compose(self, workload, text),
            // `GuestConfig::fault` refuses it before.
            None => Ok(()),
        }
    }

    /// Says that there is something to stop from now on.
    fn under_way(&self) {
        self.under_way.store(true, Ordering::SeqCst);
    }
}
