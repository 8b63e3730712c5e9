//! One container: made once, started until it ends for good.

use std::time::Duration;

use nix::fcntl::OFlag;
use spec::agent;
use spec::workload::{Output, Restart, Workload};

use super::output::Reading;
use super::{Report, Work, podman};
use crate::children::Program;
use crate::failure::{Failure, OrFail as _, Stage};

/// The pauses between restarts double up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Runs the container of `image`, again and again where the configuration says so.
pub(super) fn run(work: &Work, workload: &Workload, image: &str, gpus: bool) -> Result<(), Failure> {
    let network = work.config.network.is_some();
    let given = podman::Given { network, gpus };
    let create = podman::create(workload, image, &work.config.environment, given);
    work.children.run(&create).or_fail(Stage::Workload)?;
    let program = podman::start();
    let mut pause = Duration::from_secs(1);
    for restarts in 0.. {
        let exit_code = run_once(work, &program, workload.output, restarts)?;
        let again = exit_code != 0 && workload.restart == Restart::OnFailure && !work.stopping.asked();
        if !again || work.stopping.pause(pause) {
            work.teller.tell(Report::State(agent::Workload::Ended { exit_code, restarts }));
            return Ok(());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

fn run_once(work: &Work, program: &Program, output: Output, restarts: u32) -> Result<u8, Failure> {
    let (printed, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).or_fail_doing(Stage::Workload, "pipe")?;
    let pid = work.children.start(program, &theirs).or_fail(Stage::Workload)?;
    drop(theirs);
    work.teller.tell(Report::State(agent::Workload::Running { restarts }));
    let reading = Reading::of_pipe(printed, (output == Output::ToHost).then(|| work.teller.clone()));
    let code = work.children.wait(pid);
    reading.finish();
    Ok(code)
}
