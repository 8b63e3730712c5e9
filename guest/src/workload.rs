//! The workload: volumes opened, images given to podman, the container run to its end.
//!
//! All of it happens in a thread of its own, so that the agent answers meanwhile; what there is to say comes to the
//! supervisor as reports. Nothing here listens to the host: the measured configuration says what to do.

mod podman;

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use spec::agent::{self, MAX_OUTPUT_LINE};
use spec::guest_config::GuestConfig;
use spec::volume::{GuestVolume, Purpose};
use spec::workload::{Output, Restart, Workload};

use crate::children::{Children, Program};
use crate::failure::{Failure, OrFail as _, Stage};
use crate::{archive, disks, loopback, modules, scratch, writable};

/// How many reports may wait for the supervisor before who makes them waits too.
const REPORTS: usize = 64;
/// How long a workload may take to stop where the configuration says nothing.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long the end of the output may come after the end of the workload.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);
/// The pauses between restarts double up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

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
    stopping: Arc<AtomicBool>,
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
    pub(crate) fn begin(config: &GuestConfig, children: &Arc<Children>) -> Result<Option<Self>, Failure> {
        if config.workload.is_none() && config.volumes.is_empty() {
            return Ok(None);
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).or_fail_doing(Stage::Workload, "eventfd")?);
        let (sender, reports) = mpsc::sync_channel(REPORTS);
        let stopping = Arc::new(AtomicBool::new(false));
        let grace = config.workload.as_ref().and_then(|workload| workload.stop_grace_s);
        let runner = Self {
            children: Arc::clone(children),
            reports,
            wake: Arc::clone(&wake),
            stopping: Arc::clone(&stopping),
            grace: grace.map_or(STOP_GRACE, |seconds| Duration::from_secs(seconds.into())),
        };
        let work = Work {
            config: config.clone(),
            children: Arc::clone(children),
            teller: Teller { reports: sender, wake },
            stopping,
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

    /// Asks the workload to end, and waits for it no longer than the configuration allows.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + self.grace;
        let mut running = self.children.signal(Signal::SIGTERM);
        while running && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
            self.children.reap();
            running = !self.reports.try_iter().any(|report| report.is_end());
        }
    }
}

struct Work {
    config: GuestConfig,
    children: Arc<Children>,
    teller: Teller,
    stopping: Arc<AtomicBool>,
}

impl Work {
    fn run(&self) -> Result<(), Failure> {
        self.teller.tell(Report::State(agent::Workload::Preparing));
        if self.config.workload.is_some() && !Path::new(podman::PROGRAM).exists() {
            let reason = format_args!("the image has no {}: it runs no workloads", podman::PROGRAM);
            return Err(Failure::new(Stage::Workload, reason));
        }
        modules::load_from_root()?;
        writable::prepare()?;
        loopback::up().or_fail_doing(Stage::Workload, "bringing the loopback interface up")?;
        self.open_volumes()?;
        modules::load_no_more()?;
        self.config.workload.as_ref().map_or(Ok(()), |workload| self.run_workload(workload))
    }

    /// Scratch first: archives may be unpacked there.
    fn open_volumes(&self) -> Result<(), Failure> {
        for volume in &self.config.volumes {
            if let (Purpose::Scratch, Some(mount)) = (volume.purpose, &volume.mount) {
                scratch::open(volume, mount, &self.children)?;
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

    fn run_workload(&self, workload: &Workload) -> Result<(), Failure> {
        self.children.run(&podman::create(workload, &self.config.environment)).or_fail(Stage::Workload)?;
        let program = podman::start();
        let mut pause = Duration::from_secs(1);
        for restarts in 0.. {
            let exit_code = self.run_once(&program, workload.output, restarts)?;
            let again = exit_code != 0 && workload.restart == Restart::OnFailure;
            if !again || self.stopping.load(Ordering::SeqCst) {
                self.teller.tell(Report::State(agent::Workload::Ended { exit_code, restarts }));
                return Ok(());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    fn run_once(&self, program: &Program, output: Output, restarts: u32) -> Result<u8, Failure> {
        let (printed, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).or_fail_doing(Stage::Workload, "pipe")?;
        let pid = self.children.start(program, &theirs).or_fail(Stage::Workload)?;
        drop(theirs);
        self.teller.tell(Report::State(agent::Workload::Running { restarts }));
        let (done, is_done) = mpsc::channel();
        let teller = (output == Output::ToHost).then(|| self.teller.clone());
        thread::spawn(move || {
            pass_on(printed, |line| {
                if let Some(teller) = &teller {
                    teller.tell(Report::Line(line));
                }
            });
            let _ = done.send(());
        });
        let code = self.children.wait(pid);
        let _ = is_done.recv_timeout(OUTPUT_GRACE);
        Ok(code)
    }
}

/// Cuts what is printed into lines of at most `MAX_OUTPUT_LINE` bytes.
fn pass_on(printed: OwnedFd, mut each: impl FnMut(String)) {
    let mut file = File::from(printed);
    let mut buffer = [0; MAX_OUTPUT_LINE];
    let mut line: Vec<u8> = Vec::new();
    let mut say = |line: &mut Vec<u8>| each(String::from_utf8_lossy(&std::mem::take(line)).into_owned());
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        for byte in buffer.iter().take(count) {
            match byte {
                b'\n' => say(&mut line),
                byte => {
                    line.push(*byte);
                    if line.len() == MAX_OUTPUT_LINE {
                        say(&mut line);
                    }
                }
            }
        }
    }
    if !line.is_empty() {
        say(&mut line);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn output_is_cut_into_lines_of_bounded_length() {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let writer = thread::spawn(move || {
            let long = "x".repeat(MAX_OUTPUT_LINE + 3);
            File::from(write).write_all(format!("a\n\n{long}\nb\u{e9}").as_bytes()).unwrap();
        });
        let mut lines = Vec::new();
        pass_on(read, |line| lines.push(line));
        writer.join().unwrap();
        assert_eq!(lines[..2], ["a", ""]);
        assert_eq!(lines[2].len(), MAX_OUTPUT_LINE);
        assert_eq!(lines[3..], ["xxx", "b\u{e9}"]);
    }
}
