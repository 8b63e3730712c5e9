//! Entering the place: between fork and exec, in the order in which each step still may be done.
//!
//! The forked process has one thread and the memory of its supervisor. It allocates, which glibc and musl allow after a fork
//! (their locks are taken over it). What goes wrong is told over a pipe, because an error between fork and exec is a number.
#![allow(unsafe_code, reason = "fork is unsafe by type, and the pipe is named by its number across it")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, close, fork, pipe2, sethostname, write};

use super::{Confinement, rights, root, wait};

/// How a process of its own enters.
pub(crate) struct Entrance {
    confinement: Confinement,
    mount_point: PathBuf,
    user: (u32, u32),
    other_user: bool,
    told: RawFd,
}

/// What the supervisor keeps of it: what is told from there.
pub(crate) struct Entered {
    listening: File,
    // Open until the process was forked.
    telling: Option<OwnedFd>,
}

impl Entrance {
    /// Prepares an entrance. Over `mount_point`, an empty directory, the new root is mounted, in QEMU's mount namespace only.
    pub(crate) fn new(confinement: &Confinement, mount_point: &Path) -> io::Result<(Self, Entered)> {
        let (listening, telling) = pipe2(OFlag::O_CLOEXEC)?;
        let entrance = Self {
            other_user: confinement.other_user && rights::can_change_user(),
            confinement: confinement.clone(),
            mount_point: mount_point.to_owned(),
            user: rights::this_user(),
            told: telling.as_raw_fd(),
        };
        Ok((entrance, Entered { listening: listening.into(), telling: Some(telling) }))
    }

    /// Enters. Returns in the process that is to execute QEMU.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let entered = self.enter_or_say_where();
        entered.map_err(|(what, error)| {
            self.tell(format!("E{what}").as_bytes());
            // Only numbers pass from here to the supervisor.
            match error.raw_os_error() {
                Some(_) => error,
                None => io::Error::from_raw_os_error(Errno::EINVAL as i32),
            }
        })
    }

    fn enter_or_say_where(&self) -> Result<(), (&'static str, io::Error)> {
        let at = |what: &'static str| move |error: Errno| (what, io::Error::from(error));
        rights::limit(&self.confinement).map_err(at("setting limits"))?;
        self.unshare()?;
        let (alive, parent_end) = pipe2(OFlag::O_CLOEXEC).map_err(at("making a pipe"))?;
        // SAFETY: this process has one thread, and both sides go on in code that is made for it.
        match unsafe { fork() }.map_err(at("making a process"))? {
            ForkResult::Parent { child } => {
                self.tell(&[b"P", child.as_raw().to_ne_bytes().as_slice()].concat());
                wait::and_end_like(child, &parent_end)
            }
            ForkResult::Child => drop(parent_end),
        }
        umask(Mode::from_bits_truncate(0o022));
        // A unit with ProtectHostname forbids it: then QEMU sees the host's name.
        let _ = sethostname("bullion");
        root::change(&self.confinement, &self.mount_point, self.other_user)
            .map_err(|error| ("making its file system", error))?;
        rights::give_up(self.other_user, &self.confinement.groups).map_err(at("giving up rights"))?;
        // Changing the user clears it (prctl(2)).
        set_pdeathsig(Signal::SIGKILL).map_err(at("tying it to its supervisor"))?;
        let mut ended = [PollFd::new(alive.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ended, PollTimeout::ZERO).map_err(at("looking at its supervisor"))? {
            0 => Ok(()),
            // The one that waits has ended before the line above took effect.
            _ => Err(("finding its supervisor", Errno::ESRCH.into())),
        }
    }

    fn unshare(&self) -> Result<(), (&'static str, io::Error)> {
        let at = |what: &'static str| move |error: Errno| (what, io::Error::from(error));
        let mut flags =
            CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        flags.set(CloneFlags::CLONE_NEWNET, !self.confinement.host_network);
        match unshare(flags) {
            Err(Errno::EPERM) if !self.other_user => {}
            done => return done.map_err(at("making namespaces")),
        }
        unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(at("making a user namespace"))?;
        rights::map_self(self.user).map_err(|error| ("mapping this user", error))
    }

    fn tell(&self, what: &[u8]) {
        // SAFETY: the supervisor keeps the pipe open until it has forked, and nothing else in this process closes it.
        let told = unsafe { BorrowedFd::borrow_raw(self.told) };
        let _ = write(told, what);
        let _ = close(self.told);
    }
}

impl Entered {
    /// After the fork: the number that QEMU has here; none where it did not come so far.
    pub(crate) fn process(&mut self) -> Option<u32> {
        let heard = self.heard();
        let place = heard.iter().position(|byte| *byte == b'P')?;
        u32::try_from(i32::from_ne_bytes(*heard.get(place + 1..)?.first_chunk()?)).ok()
    }

    /// After an error: the step that failed.
    pub(crate) fn failed_step(&mut self) -> String {
        let heard = self.heard();
        // A step is small letters and blanks, and what comes after it is not.
        let words = heard.rsplit(|byte| *byte == b'E').next().unwrap_or_default();
        let words = words.iter().take_while(|byte| byte.is_ascii_lowercase() || **byte == b' ');
        words.map(|byte| char::from(*byte)).collect()
    }

    fn heard(&mut self) -> Vec<u8> {
        self.telling = None;
        let mut bytes = Vec::new();
        // Ends where all who could tell have closed the pipe: by exec, or by ending.
        let _ = self.listening.read_to_end(&mut bytes);
        bytes
    }
}
