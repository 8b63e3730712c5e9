//! A VM as others see it while it is launched: the record in the run directory, the lock on its name, what the service manager
//! and the caller hear.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use spec::agent::{Identity, Measurements, Workload};
use spec::{Diagnostic as _, Outcome};

use super::{LaunchError, Listener, Request};
use crate::ending::{Ending, Report};
use crate::log::Log;
use crate::notify::Notifier;
use crate::qemu::Accelerator;
use crate::state::directories::create_private_directory;
use crate::state::{Directories, Exit, Lock, Phase, ProcessId, Record, StateError, now, sweep};
use crate::supervise::{Outcome as RunOutcome, Progress, Signals, Witness};

/// How often is looked whether work is done.
const WORK_LOOK: Duration = Duration::from_millis(200);

/// A VM as others see it, from the moment its name is taken. Whatever way this ends, nothing is left in the run directory.
pub(super) struct Presence<'a> {
    pub(super) directories: &'a Directories,
    pub(super) record: Record,
    notifier: Notifier,
    _lock: Lock,
}

impl<'a> Presence<'a> {
    pub(super) fn begin(request: &Request<'a>) -> Result<Self, StateError> {
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
            class: Some(request.image.manifest.class),
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

    pub(super) fn save(&self) -> Result<(), StateError> {
        self.record.save_running(&self.directories.running(&self.record.name))
    }

    /// It has ended, and will be started again. A record that cannot be written is noticed with the next start.
    pub(super) fn wait(&mut self, outcome: &RunOutcome) {
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
    pub(super) fn pause(&self, signals: &Signals, pause: Duration) -> io::Result<Option<&'static str>> {
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

    /// Has `work` done by a thread of its own, and gives the service manager signs of life meanwhile. Returns the signal that came first,
    /// too: `work` is not cut short by it.
    pub(super) fn pause_during<T: Send>(
        &self,
        signals: &Signals,
        work: impl FnOnce() -> T + Send,
    ) -> io::Result<(Option<&'static str>, T)> {
        thread::scope(|scope| {
            // It inherits that signals are blocked.
            let worker = thread::Builder::new().spawn_scoped(scope, work)?;
            let mut signal = None;
            while !worker.is_finished() {
                signal = signal.or(self.pause(signals, WORK_LOOK)?);
            }
            let done = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((signal, done))
        })
    }

    /// Keeps the reason for which it was not started again. What never ran has left nothing to keep.
    pub(super) fn fail(&mut self, error: &LaunchError) {
        if self.record.restarts > 0 {
            self.notifier.stopping(&error.to_string());
            let code = error.outcome().code();
            let summary = format!("it was not started again: {error}");
            self.record.phase = Phase::Exited;
            self.record.exit = Some(Exit { code, summary, last_words: Vec::new(), ended_at: now() });
            let _ = self.record.save_last(&self.directories.kept(&self.record.name));
        }
    }

    pub(super) fn end(mut self, ending: Ending, last_words: Vec<String>, accelerator: Accelerator) -> Report {
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
pub(super) struct Informer<'a, 'b> {
    pub(super) presence: &'a mut Presence<'b>,
    pub(super) listener: Listener<'a>,
    pub(super) output: &'a mut Log,
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
