//! Outside: starting the program again, in namespaces of its own, and receiving what the script has made.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getgid, getuid};

use super::{ENTER, INSIDE, Plan, SandboxError, deliver};

/// How many bytes of what the script says are kept for an error.
const KEPT_LOG: usize = 8 << 10;

/// Runs a plan and returns its outputs by name. `again` starts this program so that it calls `started_again` with the words
/// that are added to it; `say` gets each line that the script prints.
pub fn run(plan: &Plan, mut again: Command, say: &dyn Fn(&str)) -> Result<BTreeMap<String, Vec<u8>>, SandboxError> {
    let program = again.get_program().to_owned().into();
    again.arg(ENTER).args(plan.to_words()).env_clear().current_dir("/");
    again.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = again.spawn().map_err(|source| SandboxError::Start { program, source })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (received, log) = std::thread::scope(|scope| {
        let receiver =
            scope.spawn(|| stdout.map_or(Err(SandboxError::Cut), |stdout| deliver::receive(BufReader::new(stdout))));
        let log = stderr.map(|stderr| read_log(stderr, say)).unwrap_or_default();
        (receiver.join().unwrap_or(Err(SandboxError::Cut)), log)
    });
    let status = child.wait().map_err(SandboxError::inside("waiting for", Path::new("it")))?;
    match received {
        Ok(deliver::Received::Outputs(outputs)) if status.success() => Ok(outputs),
        Ok(deliver::Received::Failed(status)) => Err(SandboxError::Script { status, log }),
        Ok(deliver::Received::NoOutput(name)) => Err(SandboxError::NoOutput(name)),
        Ok(deliver::Received::Nothing) => Err(SandboxError::NotSetUp(first_reason(&log, status))),
        Ok(deliver::Received::Outputs(_)) | Err(_) => Err(SandboxError::Cut),
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
    while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
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
    let (uid, gid) = (getuid(), getgid());
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .map_err(SandboxError::Namespaces)?;
    // One user and one group: whoever builds is root inside, and nobody else exists (user_namespaces(7)).
    let maps = [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))];
    for (name, text) in maps {
        let path = Path::new("/proc/self").join(name);
        fs::write(&path, text).map_err(SandboxError::inside("writing", &path))?;
    }
    // The program, whatever its name is by now: the link is read by the child.
    let program = Path::new("/proc/self/exe");
    let own: Vec<_> = std::env::args_os().skip(1).take_while(|word| word != ENTER).collect();
    let status = Command::new(program)
        .args(own)
        .arg(INSIDE)
        .args(plan.to_words())
        .env_clear()
        .status()
        .map_err(|source| SandboxError::Start { program: program.to_owned(), source })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
