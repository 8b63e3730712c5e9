//! One attempt: the descriptors of a plan made real, QEMU started with them, its guest let run, and supervised to its end.
//!
//! QEMU waits twice until it is told to go on: before it makes a machine (`-preconfig`), for what it reads to be what the manifest says,
//! and before its guest runs (`-S`), for every file that the guest uses to be, and for what the TEE should measure to be known.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::{Informer, Inherited, LaunchError, Listener, Logs, Presence, Trial};
use crate::agent::Agent;
use crate::attach::visitors::Visitors;
use crate::cgroup::Group;
use crate::child::{self, Place};
use crate::console::Console;
use crate::ending::Ending;
use crate::life::{Life, Terms};
use crate::network::{self, NetworkError, Passt, Speaker};
use crate::pinning;
use crate::plan::{Expected, Plan, Role};
use crate::qemu::Accelerator;
use crate::qmp::Qmp;
use crate::screen::Screen;
use crate::sealed_memory::sealed_memory;
use crate::simulation::{self, SimulationReport};
use crate::state::directories::create_private_directory;
use crate::state::{StateError, create_private};
use crate::supervise::{Outcome, Progress, Signals, Stderr, Supervision};

/// Ends `-preconfig` (QEMU documentation, "QEMU QMP Reference Manual").
const MAKE_THE_MACHINE: &str = "x-exit-preconfig";

/// Where the console is shown, and typed on.
pub(super) struct Screens<'a> {
    /// Where the VM was launched.
    pub(super) own: Option<&'a mut Screen>,
    /// Elsewhere.
    pub(super) visitors: Option<&'a mut Visitors>,
}

impl Trial<'_> {
    /// Makes the image's files such that QEMU can open those of `plan`. Before they are looked at.
    pub(super) fn share_files(&mut self, plan: &Plan) -> Result<(), LaunchError> {
        for planned in &plan.descriptors {
            if let Role::Artifact(name) = planned.role {
                self.artifacts.share(name, self.request.image)?;
            }
        }
        Ok(())
    }

    /// Runs `plan` to its end.
    pub(super) fn run(
        &mut self,
        plan: &Plan,
        signals: &Signals,
        screens: Screens<'_>,
        presence: &mut Presence<'_>,
        logs: &mut Logs,
        listener: Listener<'_>,
    ) -> Result<Outcome, LaunchError> {
        let kept = presence.directories.kept(&plan.name);
        let report = kept.join("simulation.json");
        let qemu_log = kept.join("qemu.log");
        let qemu_log = create_private(&qemu_log).map_err(StateError::io("create", &qemu_log))?;
        let _ = fs::remove_file(&report);
        let _ = fs::remove_dir_all(simulation::fw_cfg(&report));

        let making = LaunchError::system("make the channels to QEMU");
        let (mut qmp, qmp_end) = Qmp::pair().map_err(&making)?;
        let (agent, agent_end) = Agent::pair().map_err(&making)?;
        let (console, console_end) = Console::pair(&mut logs.console).map_err(&making)?;
        if !self.may_start_early(plan) {
            self.agree()?;
        }
        let mut inherited = self.open(plan)?;
        for (role, end) in [(Role::Qmp, qmp_end), (Role::Console, console_end), (Role::Agent, agent_end)] {
            inherited.extend(
                plan.descriptors.iter().find(|planned| planned.role == role).map(|planned| (planned.number, end)),
            );
        }
        qmp.execute("qmp_capabilities", None);

        let starting = |source| LaunchError::Start { program: plan.argv.first().cloned().unwrap_or_default(), source };
        let inside = presence.directories.running(&plan.name).join("root");
        create_private_directory(&inside)?;
        let speakers = self.speakers(plan, &inside, &qemu_log, &mut inherited)?;
        let confinement = plan.confinement.as_ref().map(|confinement| (confinement, inside.as_path()));
        let group = self.entrance()?;
        let inherited = inherited.into_iter().collect();
        let place = Place { confinement, group };
        let mut child = child::spawn_in(&plan.argv, &plan.env, inherited, place).map_err(starting)?;
        let stderr = child.take_stderr().map(|pipe| Stderr::new(pipe, qemu_log)).transpose().map_err(&making)?;
        let pid = child.id();
        presence.record.qemu_pid = Some(pid);
        presence.record.accelerator = Some(plan.accelerator);
        presence.save()?;
        self.artifacts.verify_what_qemu_reads(self.request.image)?;
        qmp.execute(MAKE_THE_MACHINE, None);
        if !plan.pinned.is_empty() {
            qmp.execute(pinning::QUESTION, None);
        }
        let expected = Expected { measurements: self.agree()?, ..plan.expected.clone() };
        qmp.execute("cont", None);
        if !speakers.is_empty() {
            // passt sends to the address that it has seen frames from, and a guest that only serves sends none by itself. Again and again
            // for some minutes, at ever longer intervals: of a frame nobody says whether it was heard.
            let often = json!({ "initial": 50, "max": 10_000, "rounds": 60, "step": 500 });
            qmp.execute("announce-self", Some(often));
        }
        let released = Instant::now();
        presence.record.prepared_ms = u64::try_from((released - self.begun).as_millis()).ok();
        presence.save()?;
        listener(Progress::Started { pid, accelerator: plan.accelerator, after: released - self.begun });
        let terms = Terms {
            expected: expected.clone(),
            guest_runs: plan.simulation.as_ref().is_none_or(|simulation| !simulation.keep_running),
            until_ready: self.request.options.until_ready,
            under_kvm: plan.accelerator == Accelerator::Kvm,
            ready_timeout: plan.ready_timeout,
            stop_timeout: plan.stop_timeout,
            watchdog: plan.watchdog,
            hang_timeout: plan.hang_timeout,
        };
        let supervision = Supervision {
            child,
            qmp: Some(qmp),
            agent: Some(agent),
            console,
            stderr,
            speakers,
            pinned: &plan.pinned,
            signals,
            screen: screens.own,
            visitors: screens.visitors,
            life: Life::new(terms, released),
            witness: &mut Informer { presence, listener, output: &mut logs.workload },
            started: released,
        };
        let outcome = supervision.run().map_err(LaunchError::system("supervise QEMU"))?;
        Ok(match &plan.simulation {
            Some(simulation) => Outcome {
                ending: simulated(&outcome, &report, simulation.keep_running, &expected.measurements),
                ..outcome
            },
            None => outcome,
        })
    }

    /// Whether QEMU may be started while the image's files are still looked at. Shut in, it can do nothing with them but read them; a
    /// passed function would be reset for nothing.
    fn may_start_early(&self, plan: &Plan) -> bool {
        plan.confinement.is_some() && self.request.vm.host.pci.is_empty()
    }

    /// QEMU's control group, with all that works for it.
    fn entrance(&self) -> Result<Option<File>, LaunchError> {
        let group = self.group.as_ref().map(Group::entrance).transpose();
        group.map_err(LaunchError::system("open QEMU's control group"))
    }

    /// Starts those who speak for NICs; QEMU's descriptors are added to what it inherits.
    fn speakers(
        &self,
        plan: &Plan,
        inside: &Path,
        log: &File,
        inherited: &mut Inherited,
    ) -> Result<Vec<Speaker>, LaunchError> {
        let mut speakers = Vec::new();
        for planned in &plan.descriptors {
            let Role::Passt(passt) = &planned.role else { continue };
            let (socket, speaker) = self.speaker(passt, inside, log)?;
            inherited.insert(planned.number, socket);
            speakers.push(speaker);
        }
        Ok(speakers)
    }

    /// Starts the passt of a NIC: QEMU's descriptor, and the process.
    fn speaker(&self, passt: &Passt, inside: &Path, log: &File) -> Result<(OwnedFd, Speaker), LaunchError> {
        let failed = |source| NetworkError::Passt {
            nic: passt.nic,
            program: passt.argv.first().cloned().unwrap_or_default(),
            source,
        };
        let (socket, child) = passt.start(inside, self.entrance()?).map_err(failed)?;
        Ok((socket, Speaker::new(passt.nic, child, log.try_clone().map_err(failed)?).map_err(failed)?))
    }

    /// The descriptors of the plan that are not channels, and are there before anything runs.
    fn open(&self, plan: &Plan) -> Result<Inherited, LaunchError> {
        let mut inherited = Inherited::new();
        for planned in &plan.descriptors {
            let file = match &planned.role {
                Role::Qmp | Role::Console | Role::Agent | Role::Passt(_) => continue,
                Role::Vsock(cid) => network::claim(*cid)?,
                Role::Tap(tap) => tap.create()?,
                role => self.open_file(role, plan).map_err(LaunchError::system("open what QEMU is given"))?,
            };
            inherited.insert(planned.number, file);
        }
        Ok(inherited)
    }

    fn open_file(&self, role: &Role, plan: &Plan) -> io::Result<OwnedFd> {
        Ok(match role {
            Role::Configuration => sealed_memory(&plan.configuration_disk)?,
            Role::Volume(name) => match self.volumes.get(name) {
                Some(disk) => disk.try_clone()?.into(),
                None => return Err(io::Error::other(format!("there is no volume \"{name}\""))),
            },
            Role::Device(path) => fs::OpenOptions::new().read(true).write(true).open(path)?.into(),
            Role::Artifact(name) => match self.artifacts.open.get(*name) {
                Some(file) => file.try_clone()?.into(),
                None => return Err(io::Error::other(format!("the image has no artifact \"{name}\""))),
            },
            other => return Err(io::Error::other(format!("{other} is no file"))),
        })
    }
}

/// A QEMU that left by itself, and left a report of the whole launch or of its refusal, has done what was asked; one that
/// was stopped before has not.
fn simulated(outcome: &Outcome, report: &Path, keep_running: bool, expected: &[(String, String)]) -> Ending {
    match (&outcome.ending, SimulationReport::read(report)) {
        (Ending::QemuDied { .. }, Ok(report)) if outcome.exited_well || report.failed().is_some() => {
            report.ending(expected)
        }
        (Ending::Stopped { .. }, _) if !keep_running => {
            let reason = "SIMULATED: it was stopped before it was complete".to_owned();
            Ending::GuestFailed { stage: "launch".to_owned(), reason }
        }
        (ending, _) => ending.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ending::StopHow;

    #[test]
    fn a_simulation_counts_only_when_it_is_complete() {
        let root = tempfile::tempdir().unwrap();
        let report = root.path().join("simulation.json");
        let died = || Ending::QemuDied { status: "exit status: 0".to_owned(), stderr: vec![] };
        let stopped = || Ending::Stopped { by: "SIGTERM", how: StopHow::Quit };
        let after = |ending: Ending, exited_well, keep_running| {
            let outcome = Outcome { ending, kvm_cannot_run: false, last_words: vec![], exited_well };
            simulated(&outcome, &report, keep_running, &[("MRTD".to_owned(), "aa".to_owned())])
        };
        assert_eq!(after(died(), true, false), died(), "there is no report");
        fs::write(&report, r#"{"mrtd": "aa"}"#).unwrap();
        assert_eq!(after(died(), true, false).outcome(), None);
        assert_eq!(after(died(), false, false), died(), "the report may be of half a launch");
        assert!(matches!(after(stopped(), true, false), Ending::GuestFailed { .. }));
        assert_eq!(after(stopped(), true, true), stopped());
    }
}
