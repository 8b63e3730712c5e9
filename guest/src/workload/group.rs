//! Several containers: pods of a Kubernetes YAML, or services of a compose file.
//!
//! Podman makes all of them before any is started, so that what it has against the text is told from what containers print.
//! What follows when one ends stands in the text (`restartPolicy`, `restart`) and is podman's to do; this module watches until
//! none of them will run again. The whole has ended then, with the highest of their exit codes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use spec::agent;
use spec::workload::{Output, Workload};

use super::output::Reading;
use super::podman::{self, Log, Member};
use super::{Report, Work};
use crate::children::Program;
use crate::failure::{Failure, OrFail as _, Stage};
use crate::writable;

/// Where the texts are that podman reads.
const DIRECTORY: &str = "/run/bullion/workload";
/// Between two looks at containers of which one may be on its way to another start.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs what a Kubernetes YAML describes.
pub(super) fn run_pods(work: &Work, workload: &Workload, text: &str) -> Result<(), Failure> {
    let yaml = write("pods.yaml", text)?;
    let environment = write("environment.yaml", &podman::config_map(&work.config.environment))?;
    run(work, workload, |log| podman::play(&yaml, &environment, log))
}

/// Runs what a compose file describes.
pub(super) fn run_compose(work: &Work, workload: &Workload, text: &str) -> Result<(), Failure> {
    if !Path::new(podman::COMPOSE).exists() {
        let reason = format_args!("the image has no {}: it runs no compose files", podman::COMPOSE);
        return Err(Failure::new(Stage::Workload, reason));
    }
    let yaml = write("compose.yaml", text)?;
    run(work, workload, |log| podman::compose(&yaml, &work.config.environment, log))
}

fn run(work: &Work, workload: &Workload, make: impl FnOnce(Log<'_>) -> Program) -> Result<(), Failure> {
    let pipe = format!("{DIRECTORY}/output");
    let reading = match workload.output {
        Output::ToHost => Some(Reading::of_logs(&pipe, work.teller.clone())?),
        Output::None => None,
    };
    let log = if reading.is_some() { Log::File(&pipe) } else { Log::Nowhere };
    work.children.run(&make(log)).or_fail(Stage::Workload)?;
    work.under_way();
    work.children.run(&podman::start_pods()).or_fail(Stage::Workload)?;
    let members = watch(work)?;
    if work.stopping.asked() {
        // What cannot be stopped is ended by power-off.
        let _ = work.children.run(&podman::stop_all(work.grace));
    }
    reading.into_iter().for_each(Reading::finish);
    let exit_code = members.iter().map(|member| member.exit_code).max().unwrap_or_default();
    work.teller.tell(Report::State(agent::Workload::Ended { exit_code, restarts: restarts(&members) }));
    Ok(())
}

/// Waits until no container will run again, or the workload is to end.
fn watch(work: &Work) -> Result<Vec<Member>, Failure> {
    let mut told = None;
    loop {
        let members = match members(work) {
            // The question was ended together with the workload.
            Err(_) if work.stopping.asked() => return Ok(Vec::new()),
            members => members?,
        };
        if told != Some(restarts(&members)) {
            told = Some(restarts(&members));
            work.teller.tell(Report::State(agent::Workload::Running { restarts: restarts(&members) }));
        }
        if work.stopping.asked() || members.iter().all(Member::has_ended) {
            return Ok(members);
        }
        // Its exit code is no verdict: a container may be gone by the time that podman looks.
        let _ = work.children.run(&podman::wait(&members));
        work.stopping.pause(PAUSE);
    }
}

fn members(work: &Work) -> Result<Vec<Member>, Failure> {
    let told = work.children.ask(&podman::list()).or_fail(Stage::Workload)?;
    let all: Vec<&str> = told.lines().filter(|line| podman::is_id(line)).collect();
    if all.is_empty() {
        return Err(Failure::new(Stage::Workload, "podman made no container: the text describes none"));
    }
    let told = work.children.ask(&podman::inspect(&all)).or_fail(Stage::Workload)?;
    let members = podman::members(&told);
    if members.len() > all.len() || members.is_empty() {
        let reason = format_args!("podman tells {} containers of {}", members.len(), all.len());
        return Err(Failure::new(Stage::Workload, reason));
    }
    Ok(members)
}

fn restarts(members: &[Member]) -> u32 {
    members.iter().fold(0, |sum, member| sum.saturating_add(member.restarts))
}

fn write(name: &str, text: &str) -> Result<String, Failure> {
    writable::make(DIRECTORY)?;
    let path = format!("{DIRECTORY}/{name}");
    fs::write(&path, text).or_fail_doing(Stage::Workload, format_args!("writing {path}"))?;
    Ok(path)
}
