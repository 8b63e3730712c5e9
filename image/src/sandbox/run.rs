//! Outside: starting the program again, in namespaces of its own, and receiving what the script has made.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getgid, getuid};

use super::{ENTER, INSIDE, Plan, SandboxError, deliver, rights};

/// How many bytes of what the script says are kept for an error.
const KEPT_LOG: usize = 8 << 10;

/// The longest line that the script says, in bytes; a longer one is broken here.
const LONGEST_LINE: u64 = 64 << 10;

/// Runs a plan and returns its outputs by name. `again` starts this program so that it calls `started_again` with the words
/// that are added to it; `say` gets each line that the script prints.
pub fn run(plan: &Plan, mut again: Command, say: &dyn Fn(&str)) -> Result<BTreeMap<String, Vec<u8>>, SandboxError> {
    let program = again.get_program().to_owned().into();
    again.arg(ENTER).env_clear().current_dir("/");
    again.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = again.spawn().map_err(|source| SandboxError::Start { program, source })?;
    tell(&mut child, plan);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (received, log) = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            stdout.map_or(Err(SandboxError::Cut), |stdout| deliver::receive(BufReader::new(stdout), &plan.outputs))
        });
        let log = stderr.map(|stderr| read_log(stderr, say)).unwrap_or_default();
        (receiver.join().unwrap_or(Err(SandboxError::Cut)), log)
    });
    let status = child.wait().map_err(SandboxError::inside("waiting for", Path::new("it")))?;
    match received {
        Ok(deliver::Received::Outputs(outputs)) if status.success() => Ok(outputs),
        Ok(deliver::Received::Failed(status)) => Err(SandboxError::Script { status, log }),
        Ok(deliver::Received::NoOutput(name)) => Err(SandboxError::NoOutput(name)),
        Ok(deliver::Received::NoEnd) => {
            Err(SandboxError::Script { status: format!("{} of its sandbox", describe(status)), log })
        }
        Ok(deliver::Received::Nothing) => Err(SandboxError::NotSetUp(first_reason(&log, status))),
        Ok(deliver::Received::Outputs(_)) => Err(SandboxError::Cut),
        Err(error) => Err(error),
    }
}

/// Writes the plan to the process. One that ended before it read it says why elsewhere.
fn tell(child: &mut Child, plan: &Plan) {
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(&plan.to_bytes());
    }
}

/// What a process that ended before the script began said of it.
fn first_reason(log: &str, status: ExitStatus) -> String {
    let line = log.lines().rev().find_map(|line| line.strip_prefix("error: "));
    line.map_or_else(|| describe(status), str::to_owned)
}

fn read_log(stderr: impl Read, say: &dyn Fn(&str)) -> String {
    let mut kept = Vec::new();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while matches!((&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line), Ok(read) if read > 0) {
        say(String::from_utf8_lossy(&line).trim_end());
        kept.append(&mut line);
        if kept.len() > 2 * KEPT_LOG {
            kept.drain(..kept.len() - KEPT_LOG);
        }
    }
    let begin = kept.len().saturating_sub(KEPT_LOG);
    String::from_utf8_lossy(kept.get(begin..).unwrap_or_default()).trim_end().to_owned()
}

/// How a process ended, in words.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "neither exit code nor signal".to_owned(),
    }
}

/// The process between: makes the namespaces, then starts the first process inside and ends with it.
pub(super) fn enter(plan: &Plan) -> Result<u8, SandboxError> {
    // Nothing may go on running when the caller is killed; the first process inside ends with this one in the same way, and
    // with it the kernel ends everything in its PID namespace.
    set_pdeathsig(Signal::SIGKILL).map_err(SandboxError::Namespaces)?;
    let others = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    // Root's user namespace is made inside, when all that only root can read is in place.
    if rights::of_root().is_some() {
        unshare(others).map_err(SandboxError::Namespaces)?;
    } else {
        let (uid, gid) = (getuid(), getgid());
        unshare(others | CloneFlags::CLONE_NEWUSER).map_err(SandboxError::Namespaces)?;
        rights::map_user(0, uid.as_raw(), gid.as_raw())?;
    }
    // The program, whatever its name is by now: the link is read by the child.
    let program = Path::new("/proc/self/exe");
    let start = |source| SandboxError::Start { program: program.to_owned(), source };
    let own: Vec<_> = std::env::args_os().skip(1).take_while(|word| word != ENTER).collect();
    let mut child =
        Command::new(program).args(own).arg(INSIDE).env_clear().stdin(Stdio::piped()).spawn().map_err(start)?;
    tell(&mut child, plan);
    let status = child.wait().map_err(start)?;
    let killed = status.signal().and_then(|signal| u8::try_from(signal).ok()).map(|signal| 128 | signal);
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).or(killed).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_end_is_broken() {
        let longest = std::cell::Cell::new(0);
        let log = read_log(std::io::repeat(b'x').take(3 * LONGEST_LINE + 5), &|line| {
            longest.set(longest.get().max(line.len()))
        });
        assert_eq!((longest.get() as u64, log.len()), (LONGEST_LINE, KEPT_LOG));
    }
}
