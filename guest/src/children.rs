//! Starts programs of the verified root and tells how they ended.
//!
//! PID 1 reaps every process, so nobody else may wait for a child: whoever starts one registers it here first, and is told.
//! Programs get an empty environment but for what is given, no input, and an unblocked signal mask; what they print goes
//! where the caller says and never to the console, which is the host's.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

/// How much of what a tool prints is kept.
const MAX_TOLD: u64 = 64 << 10;

/// How much of its end is told, in bytes: a failure's reason has room for it.
const MAX_WORDS: usize = 500;

/// A program with its arguments: an absolute path and what follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) words: Vec<String>,
    /// What it gets besides the environment of every program, `NAME=VALUE`.
    pub(crate) environment: Vec<String>,
}

impl Program {
    pub(crate) fn new<S: Into<String>>(words: impl IntoIterator<Item = S>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), environment: Vec::new() }
    }
}

/// The environment of every program.
const ENVIRONMENT: [&str; 3] = ["PATH=/usr/sbin:/usr/bin", "HOME=/root", "LANG=C.UTF-8"];

/// The children that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Children {
    /// Process number to exit code, once there is one.
    awaited: Mutex<BTreeMap<i32, Option<u8>>>,
    ended: Condvar,
}

/// A tool that did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// It could not be started.
    #[error("starting {program}: {error}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// It failed.
    #[error("{program} ended with exit code {code}: {told}")]
    Failed {
        /// The program.
        program: String,
        /// Its exit code.
        code: u8,
        /// The end of what it printed.
        told: String,
    },
}

impl Children {
    /// Starts a program whose standard output and error are `output`, and registers it.
    pub(crate) fn start(&self, program: &Program, output: &OwnedFd) -> Result<Pid, ToolError> {
        self.register(program, &Place::Output(output))
    }

    /// The same with a terminal of its own, from which it also reads.
    pub(crate) fn start_on(&self, terminal: &str, program: &Program) -> Result<Pid, ToolError> {
        self.register(program, &Place::Terminal(terminal))
    }

    fn register(&self, program: &Program, place: &Place<'_>) -> Result<Pid, ToolError> {
        let name = || program.words.first().cloned().unwrap_or_default();
        let start = |error: io::Error| ToolError::Start { program: name(), error };
        let strings = |texts: &[String]| -> Result<Vec<CString>, ToolError> {
            let strings = texts.iter().map(|text| CString::new(text.as_str())).collect::<Result<_, _>>();
            strings.map_err(|error| start(error.into()))
        };
        let (words, environment) = (strings(&program.words)?, strings(&program.environment)?);
        // Held from before the start: a child that ends at once is reaped only when it is registered.
        let mut awaited = self.lock();
        let pid = spawn(&name(), &words, environment, place).map_err(|error| start(error.into()))?;
        awaited.insert(pid.as_raw(), None);
        Ok(pid)
    }

    /// Waits for a child that `start` returned.
    pub(crate) fn wait(&self, pid: Pid) -> u8 {
        let mut awaited = self.lock();
        loop {
            match awaited.get(&pid.as_raw()) {
                Some(Some(code)) => {
                    let code = *code;
                    awaited.remove(&pid.as_raw());
                    return code;
                }
                Some(None) => awaited = self.ended.wait(awaited).unwrap_or_else(PoisonError::into_inner),
                None => return u8::MAX,
            }
        }
    }

    /// Runs a tool to its end. Its last words are the error where it fails.
    pub(crate) fn run(&self, program: &Program) -> Result<(), ToolError> {
        self.ask(program).map(drop)
    }

    /// The same, and what it printed: its first `MAX_TOLD` bytes, standard output and error together.
    pub(crate) fn ask(&self, program: &Program) -> Result<String, ToolError> {
        let name = program.words.first().cloned().unwrap_or_default();
        let start = |error: Errno| ToolError::Start { program: name.clone(), error: error.into() };
        let (told, output) = pipe2(OFlag::O_CLOEXEC).map_err(start)?;
        let pid = self.start(program, &output)?;
        drop(output);
        let told = read_bounded(told);
        match self.wait(pid) {
            0 => Ok(told),
            code => Err(ToolError::Failed {
                program: program.words.iter().take(2).cloned().collect::<Vec<_>>().join(" "),
                code,
                told: last_words(&told),
            }),
        }
    }

    /// Collects every child that has ended, own or orphaned, and tells those who wait.
    pub(crate) fn reap(&self) {
        let mut awaited = self.lock();
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, by_signal(signal)),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => continue,
            };
            if let Some(slot) = awaited.get_mut(&pid.as_raw()) {
                *slot = Some(code);
                self.ended.notify_all();
            }
        }
    }

    /// Sends a signal to every child that somebody waits for; false where there is none.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let awaited = self.lock();
        let alive: Vec<i32> = awaited.iter().filter(|(_, code)| code.is_none()).map(|(pid, _)| *pid).collect();
        for pid in &alive {
            // One that ends right now needs no signal.
            let _ = kill(Pid::from_raw(*pid), signal);
        }
        !alive.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Option<u8>>> {
        // A panic ends the guest, so a poisoned lock is seen by nobody who could act on it.
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As shells tell it: 128 and the signal's number.
fn by_signal(signal: Signal) -> u8 {
    u8::try_from(signal as i32).map_or(u8::MAX, |number| number.saturating_add(128))
}

/// What a program reads from and writes to.
enum Place<'a> {
    /// It reads nothing.
    Output(&'a OwnedFd),
    Terminal(&'a str),
}

fn spawn(path: &str, words: &[CString], more: Vec<CString>, place: &Place<'_>) -> nix::Result<Pid> {
    let fixed: Vec<CString> = ENVIRONMENT.iter().filter_map(|pair| CString::new(*pair).ok()).collect();
    let name = |pair: &CString| pair.to_bytes().split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    // What every program gets cannot be given otherwise.
    let more = more.into_iter().filter(|pair| !fixed.iter().any(|other| name(other) == name(pair)));
    let environment: Vec<CString> = fixed.iter().cloned().chain(more).collect();
    let mut actions = PosixSpawnFileActions::init()?;
    let mut flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
    let output = match place {
        Place::Output(output) => {
            actions.add_open(0, "/dev/null", OFlag::O_RDONLY, Mode::empty())?;
            output.as_raw_fd()
        }
        Place::Terminal(terminal) => {
            // A session's leader that opens a terminal has it for its own (tty(4), credentials(7)): keys make signals there.
            flags |= PosixSpawnFlags::from_bits_retain(nix::libc::POSIX_SPAWN_SETSID.into());
            actions.add_open(0, *terminal, OFlag::O_RDWR, Mode::empty())?;
            0
        }
    };
    actions.add_dup2(output, 1)?;
    actions.add_dup2(output, 2)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(flags)?;
    // This process holds SIGCHLD back; a child that inherited that could wait for its own children for ever.
    attributes.set_sigmask(&SigSet::empty())?;
    posix_spawn(path, &actions, &attributes, words, &environment)
}

/// The first bytes that a tool prints; the rest is read, so that it never blocks.
fn read_bounded(output: OwnedFd) -> String {
    let mut file = File::from(output);
    let mut kept = Vec::new();
    let _ = (&mut file).take(MAX_TOLD).read_to_end(&mut kept);
    let _ = io::copy(&mut file, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

/// The end of what a tool printed.
fn last_words(told: &str) -> String {
    let text = told.trim();
    match text.get(text.floor_char_boundary(text.len().saturating_sub(MAX_WORDS))..) {
        None | Some("") => "it printed nothing".to_owned(),
        Some(end) => end.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Reaps like PID 1 does, for as long as `body` runs.
    fn reaped<T>(children: &Children, body: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    children.reap();
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
            let result = body();
            done.store(true, Ordering::SeqCst);
            result
        })
    }

    /// Who reaps every child takes other tests' children away: this test has a process of its own.
    #[test]
    fn a_tool_is_judged_by_its_exit_code_and_heard_when_it_fails() {
        let own = std::env::current_exe().unwrap();
        let name = "children::tests::in_a_process_of_its_own";
        let output = std::process::Command::new(own).args(["--exact", "--ignored", name]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "run by the test above"]
    fn in_a_process_of_its_own() {
        let children = Children::default();
        let shell = |script: &str| Program::new(["/bin/sh", "-c", script]);
        reaped(&children, || {
            children.run(&shell("echo quiet; exit 0")).unwrap();
            let error = children.run(&shell("echo first; echo 'no space left' >&2; exit 3")).unwrap_err();
            assert_eq!(error.to_string(), "/bin/sh -c ended with exit code 3: first\nno space left");
            assert!(matches!(children.run(&shell("kill -9 $$")), Err(ToolError::Failed { code: 137, .. })));
            assert!(matches!(children.run(&Program::new(["/absent"])), Err(ToolError::Start { .. })));
            let named =
                Program { environment: vec!["A=b c".to_owned(), "HOME=/tmp".to_owned()], ..shell("echo $A $HOME") };
            assert_eq!(children.ask(&named).unwrap(), "b c /root\n", "what is fixed stays as it is");
            // More than a pipe holds: it ends all the same.
            children.run(&shell("head -c 300000 /dev/zero")).unwrap();
            // Nothing of this process's environment or signal mask gets through.
            children.run(&shell("test -z \"$CARGO_MANIFEST_DIR\" && test \"$HOME\" = /root")).unwrap();
            children.run(&shell("grep -q '^SigBlk:.0*$' /proc/self/status")).unwrap();
        });
        assert!(children.lock().is_empty());
        assert!(!children.signal(Signal::SIGTERM), "nobody is left");
    }
}
