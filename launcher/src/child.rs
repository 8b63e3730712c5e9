//! Starting a process that cannot outlive this one, and noticing its end without a signal handler.
//!
//! The kernel kills the child when the thread that started it ends, by SIGKILL or otherwise (prctl(2),
//! PR_SET_PDEATHSIG), so the thread that calls `spawn` must be the one that supervises. The child is the leader of its
//! own process group: Ctrl-C in the terminal reaches the supervisor alone, which then stops the guest in its own way.
//!
//! A program that is a wrapper script is killed with all that it has started, because it is the group that is killed.
//! One case remains: when the supervisor itself is killed by SIGKILL, the kernel kills the wrapper only, and a QEMU that
//! the wrapper did not `exec` goes on without a supervisor. So a wrapper has to end in `exec`.
#![allow(unsafe_code, reason = "PR_SET_PDEATHSIG has to be set between fork and exec, and pre_exec is unsafe by type")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpid, getppid};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::confine::{Confinement, Entered, Entrance};

/// A child that is killed and reaped when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    /// The child, or where that is confined the one that waits for it.
    process: std::process::Child,
    /// The number of the child itself.
    id: u32,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

/// Starts `argv` with exactly the environment `env` and, besides the standard three, exactly the descriptors `fds`
/// (number in the child, descriptor). Standard input and output are `/dev/null`, standard error is a pipe.
pub(crate) fn spawn(argv: &[String], env: &BTreeMap<String, String>, fds: Vec<(i32, OwnedFd)>) -> io::Result<Child> {
    spawn_in(argv, env, fds, Place::default())
}

/// Where a child runs.
#[derive(Debug, Default)]
pub(crate) struct Place<'a> {
    /// Its confinement, whose root is mounted over an empty directory.
    pub(crate) confinement: Option<(&'a Confinement, &'a Path)>,
    /// `cgroup.procs` of its control group.
    pub(crate) group: Option<File>,
}

/// The same in a place.
pub(crate) fn spawn_in(
    argv: &[String],
    env: &BTreeMap<String, String>,
    fds: Vec<(i32, OwnedFd)>,
    Place { confinement, group }: Place<'_>,
) -> io::Result<Child> {
    let (program, arguments) = argv.split_first().ok_or_else(|| io::Error::other("the command line is empty"))?;
    let mappings = fds.into_iter().map(|(child_fd, parent_fd)| FdMapping { parent_fd, child_fd }).collect();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(env).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let parent = getpid();
    // SAFETY: the closure runs in the forked child and makes four async-signal-safe system calls, without allocating.
    unsafe {
        command.pre_exec(move || {
            die_with(parent)?;
            // `0` is whoever writes it. With it moves what it starts, and so QEMU in a namespace of its own.
            group.as_ref().map_or(Ok(0), |group| nix::unistd::write(group, b"0"))?;
            keep_descriptors_to_ourselves()
        });
    }
    let entered = confinement.map(|(confinement, directory)| Entrance::new(confinement, directory)).transpose()?;
    let entered = entered.map(|(entrance, entered)| {
        // SAFETY: the process has one thread; `Entrance::enter` says why it may allocate.
        unsafe { command.pre_exec(move || entrance.enter()) };
        entered
    });
    // After the closures above: these are the ones that stay open.
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    let (mut process, id) = started(command.spawn(), entered)?;
    let pidfd = i32::try_from(process.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or_else(|| io::Error::other("a process id of zero"))
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
    match pidfd {
        Ok(pidfd) => Ok(Child { process, id, pidfd, status: None }),
        Err(error) => {
            let _ = process.kill().and_then(|()| process.wait());
            Err(error)
        }
    }
}

/// A process that was started, and the number of the child. An error says at which step of its confinement it came up.
fn started(
    spawned: io::Result<std::process::Child>,
    entered: Option<Entered>,
) -> io::Result<(std::process::Child, u32)> {
    match (spawned, entered) {
        (Ok(process), None) => {
            let id = process.id();
            Ok((process, id))
        }
        (Ok(process), Some(mut entered)) => {
            let id = entered.process().unwrap_or(process.id());
            Ok((process, id))
        }
        (Err(error), None) => Err(error),
        (Err(error), Some(mut entered)) => match entered.failed_step() {
            step if step.is_empty() => Err(error),
            step => Err(io::Error::new(error.kind(), format!("confining it failed at {step}: {error}"))),
        },
    }
}

fn die_with(parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before the line above took effect.
    if getppid() == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(nix::errno::Errno::ESRCH as i32)) }
}

/// Marks every descriptor but the standard three to be closed by exec: whoever started us may have left some open.
fn keep_descriptors_to_ourselves() -> io::Result<()> {
    let flags = i32::try_from(nix::libc::CLOSE_RANGE_CLOEXEC).unwrap_or(0);
    // SAFETY: the call takes three integers and changes nothing but flags of descriptors.
    let result = unsafe { nix::libc::close_range(3, u32::MAX, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Child {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Its standard error, once.
    pub(crate) fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.process.stderr.take()
    }

    /// How it ended, if it has. What it has started and left behind in its process group ends then as well.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() && self.is_dead()? {
            self.kill();
            self.status = self.process.try_wait()?;
        }
        Ok(self.status)
    }

    /// Whether it has ended. It is not reaped: until it is, its number belongs to no other process and no other group.
    fn is_dead(&self) -> io::Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        Ok(waitid(Id::PIDFd(self.pidfd.as_fd()), flags)? != WaitStatus::StillAlive)
    }

    /// SIGKILL to the child and all that it has started in its process group. The end is then noticed like any other.
    pub(crate) fn kill(&mut self) {
        // Once it is reaped the number may be another's.
        if let (None, Ok(group)) = (self.status, i32::try_from(self.process.id())) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// Readable when the child has ended.
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill();
            let _ = self.process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    fn output(mut child: Child) -> String {
        let mut text = String::new();
        child.take_stderr().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_child_gets_its_environment_its_descriptors_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        // Duplicated without close-on-exec, as a careless parent leaves descriptors open.
        let leaked = nix::unistd::dup(File::open("/dev/null").unwrap()).unwrap();
        let env = BTreeMap::from([("ONLY".to_owned(), "this".to_owned())]);
        let script = "echo hello >&9; grep SigBlk /proc/self/status >&2; exec /bin/ls /proc/self/fd >&2";
        // SIGINT is blocked here, as it is in the supervisor: the child must not inherit that.
        let mut mask = nix::sys::signal::SigSet::empty();
        mask.add(Signal::SIGINT);
        mask.thread_block().unwrap();
        let text = output(spawn(&shell(script), &env, vec![(9, writer.into())]).unwrap());
        mask.thread_unblock().unwrap();
        drop(leaked);
        // 3 is the directory that ls reads.
        assert_eq!(text, "SigBlk:\t0000000000000000\n0\n1\n2\n3\n9\n");
        let mut hello = String::new();
        File::from(OwnedFd::from(reader)).read_to_string(&mut hello).unwrap();
        assert_eq!(hello, "hello\n");
        let environment = shell("exec env >&2");
        let environment = output(spawn(&environment, &env, vec![]).unwrap());
        assert!(environment.lines().all(|line| line == "ONLY=this" || line.starts_with("PWD=")), "{environment}");
    }

    #[test]
    fn a_dropped_child_is_dead_and_reaped() {
        let child = spawn(&shell("exec sleep 100"), &BTreeMap::new(), vec![]).unwrap();
        let id = child.id();
        drop(child);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    /// A wrapper that does not `exec`, and the number of what it has started.
    fn wrapped(then: &str) -> (Child, i32) {
        let script = format!("sleep 100 2>/dev/null & echo $! >&2; exec 2>/dev/null; {then}");
        let mut child = spawn(&shell(&script), &BTreeMap::new(), vec![]).unwrap();
        let mut text = String::new();
        child.take_stderr().unwrap().read_to_string(&mut text).unwrap();
        (child, text.trim().parse().unwrap())
    }

    fn ends(pid: i32) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let lives = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() {
            assert!(std::time::Instant::now() < deadline, "process {pid} outlives its wrapper");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn what_a_wrapper_has_started_ends_with_it() {
        let (mut child, inner) = wrapped("wait");
        assert_eq!(child.ended().unwrap(), None);
        child.kill();
        ends(inner);
        let (child, inner) = wrapped("wait");
        drop(child);
        ends(inner);
        let (mut child, inner) = wrapped("exit 3");
        let mut poll = [nix::poll::PollFd::new(child.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut poll, 5000_u16).unwrap(), 1);
        assert_eq!(child.ended().unwrap().unwrap().code(), Some(3));
        ends(inner);
        child.kill();
        assert_eq!(child.ended().unwrap().unwrap().code(), Some(3), "an end is an end");
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let (send, receive) = std::sync::mpsc::channel();
        let starter = std::thread::spawn(move || {
            send.send(spawn(&shell("exec sleep 100"), &BTreeMap::new(), vec![]).unwrap()).unwrap();
        });
        let mut child = receive.recv().unwrap();
        starter.join().unwrap();
        let mut poll = [nix::poll::PollFd::new(child.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut poll, 5000_u16).unwrap(), 1);
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.ended().unwrap().unwrap().signal(), Some(9));
    }
}
