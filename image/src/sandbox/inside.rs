//! The first process inside: makes the root and the names, runs the script as its child, sends what it left.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::prctl::{set_no_new_privs, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::sethostname;

use super::run::describe;
use super::{BUILD, Plan, SCRIPT, SandboxError, deliver, root};

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
    root::change(plan)?;
    sethostname(HOST_NAME).map_err(SandboxError::Namespaces)?;
    rustix::system::setdomainname(b"(none)")
        .map_err(SandboxError::inside("naming the domain of", Path::new(HOST_NAME)))?;
    set_no_new_privs().map_err(SandboxError::Namespaces)?;
    umask(Mode::from_bits_truncate(0o022));
    let sh = Path::new("/bin/sh");
    let say = || io::stderr().as_fd().try_clone_to_owned().map(Stdio::from);
    let status = Command::new(sh)
        .arg(Path::new(BUILD).join(SCRIPT))
        .env_clear()
        .envs(ENVIRONMENT)
        .env("JOBS", plan.jobs.to_string())
        .current_dir(BUILD)
        .stdin(Stdio::null())
        // Standard output carries the result.
        .stdout(say().map_err(SandboxError::inside("starting", sh))?)
        .stderr(say().map_err(SandboxError::inside("starting", sh))?)
        .status()
        .map_err(SandboxError::inside("starting", sh))?;
    let mut out = io::stdout().lock();
    let sent = match status.success() {
        true => deliver::send(&Path::new(BUILD).join("out"), &plan.outputs, &mut out),
        false => deliver::send_failure(&describe(status), &mut out),
    };
    sent.and_then(|()| out.flush()).map_err(SandboxError::inside("sending the result of", Path::new(BUILD)))
}
