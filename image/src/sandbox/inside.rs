//! The first process inside: makes the root and the names, runs the script as its child, sends what it left.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_dumpable, set_no_new_privs, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, sethostname};

use super::run::describe;
use super::{BUILD, Plan, SCRIPT, SandboxError, deliver, rights, root};

/// The host name inside.
const HOST_NAME: &str = "bullion";

/// Everything that the script has in its environment, but `JOBS`.
const ENVIRONMENT: [(&str, &str); 10] = [
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/build/home"),
    ("CARGO_HOME", "/build/cargo"),
    ("TMPDIR", "/tmp"),
    ("USER", "root"),
    ("LOGNAME", "root"),
    ("SHELL", "/bin/sh"),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
    ("SOURCE_DATE_EPOCH", "0"),
];

pub(super) fn run(plan: &Plan) -> Result<(), SandboxError> {
    set_pdeathsig(Signal::SIGKILL).map_err(SandboxError::Namespaces)?;
    let user = rights::of_root();
    root::change(plan, user)?;
    sethostname(HOST_NAME).map_err(SandboxError::Namespaces)?;
    rustix::system::setdomainname(b"(none)")
        .map_err(SandboxError::inside("naming the domain of", Path::new(HOST_NAME)))?;
    if let Some(user) = user {
        rights::become_user(user)?;
        unshare(CloneFlags::CLONE_NEWUSER).map_err(SandboxError::Namespaces)?;
        rights::map_user(0, user, user)?;
        // Changing the user has cleared it (prctl(2)).
        set_pdeathsig(Signal::SIGKILL).map_err(SandboxError::Namespaces)?;
    }
    // The result goes over a file of this process: nobody else may open that in /proc.
    set_dumpable(false).map_err(SandboxError::Namespaces)?;
    set_no_new_privs().map_err(SandboxError::Namespaces)?;
    umask(Mode::from_bits_truncate(0o022));
    let mut out = io::stdout().lock();
    let sending = || SandboxError::inside("sending the result of", Path::new(BUILD));
    deliver::send_begin(&mut out).and_then(|()| out.flush()).map_err(sending())?;
    let status = script(plan.jobs)?;
    // What it left running may change nothing while the result is read.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    let sent = match status.success() {
        true => deliver::send(&Path::new(BUILD).join("out"), &plan.outputs, &mut out),
        false => deliver::send_failure(&describe(status), &mut out),
    };
    sent.and_then(|()| out.flush()).map_err(sending())
}

/// Runs the script to its end, from a thread that has given up all rights.
fn script(jobs: usize) -> Result<ExitStatus, SandboxError> {
    let sh = Path::new("/bin/sh");
    let starting = || SandboxError::inside::<io::Error>("starting", sh);
    let run = || {
        rights::drop_capabilities()?;
        let say = || io::stderr().as_fd().try_clone_to_owned().map(Stdio::from);
        Command::new(sh)
            .arg(Path::new(BUILD).join(SCRIPT))
            .env_clear()
            .envs(ENVIRONMENT)
            .env("JOBS", jobs.to_string())
            .current_dir(BUILD)
            .stdin(Stdio::null())
            // Standard output carries the result.
            .stdout(say().map_err(starting())?)
            .stderr(say().map_err(starting())?)
            .status()
            .map_err(starting())
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|_| Err(starting()(io::ErrorKind::Other.into())))
}
