//! A program that is told another date than there is: so the second build is started, to see that nothing in it depends on one.
//!
//! The program is traced (ptrace(2)), and what the kernel answers to `clock_gettime`, `gettimeofday` and `time` is changed on its
//! way back. The vDSO, whose code reads the clock without the kernel, is hidden from it (getauxval(3), `AT_SYSINFO_EHDR`). Clocks that
//! have no date, and the times of files, are left alone. Where tracing is not permitted, the program runs with the true date,
//! and the caller hears of it.
#![allow(
    unsafe_code,
    reason = "ptrace(2) takes pointers or numbers, as its request says, and pre_exec is unsafe by type"
)]

use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc::{self, c_long, c_uint, user_regs_struct};
use nix::sys::signal::{Signal, kill};
use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;

/// A program that has ended.
pub(super) struct Ended {
    /// Its exit status; `None` where a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    /// Whether it was told another date.
    pub(super) other_date: bool,
}

/// Runs a program with all threads and children to its end, in which every date is so many seconds later. Children that it leaves behind
/// are killed.
pub(super) fn run(mut command: Command, seconds: i64) -> io::Result<Ended> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: one system call, which touches no memory. Where it is not permitted, the program is simply not traced.
    unsafe { command.pre_exec(|| request(libc::PTRACE_TRACEME, Pid::from_raw(0), 0).or(Ok(()))) };
    let mut child = command.spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let (stdout, stderr) = (scope.spawn(|| read_all(stdout)), scope.spawn(|| read_all(stderr)));
        // The same thread that has started it: no other may trace it.
        let program = i32::try_from(child.id()).map_err(io::Error::other)?;
        let followed =
            Tracer { program: Pid::from_raw(program), seconds, known: BTreeSet::new(), born: BTreeSet::new() }.follow();
        if followed.is_err() {
            let _ = child.kill();
        }
        let read = |thread: std::thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let (stdout, stderr) = (read(stdout)?, read(stderr)?);
        let (code, other_date) = followed?;
        Ok(Ended { code, stdout, stderr, other_date })
    })
}

fn read_all(pipe: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes))?;
    Ok(bytes)
}

struct Tracer {
    program: Pid,
    seconds: i64,
    /// The processes and threads that have stopped for the first time. The program is among them once it is traced.
    known: BTreeSet<Pid>,
    /// Those that have been born, and may not have stopped yet.
    born: BTreeSet<Pid>,
}

impl Tracer {
    /// Follows the program to its end; returns its exit status, and whether it was traced. Whatever it has left behind is killed: nobody
    /// would let it go on any more, and it may hold the pipes that are read.
    fn follow(mut self) -> io::Result<(Option<i32>, bool)> {
        let ended = self.follow_all();
        for left in self.known.into_iter().chain(self.born) {
            let _ = kill(left, Signal::SIGKILL);
        }
        ended
    }

    fn follow_all(&mut self) -> io::Result<(Option<i32>, bool)> {
        const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;
        loop {
            let (pid, status) = wait()?;
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                let was_traced = self.known.remove(&pid);
                self.born.remove(&pid);
                if pid == self.program {
                    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                    return Ok((code, was_traced));
                }
                continue;
            }
            // What stopped it, and the event that is above the signal (ptrace(2)).
            match (libc::WSTOPSIG(status), status >> 16) {
                (SYSCALL_STOP, _) => go_on(pid, change_date(pid, self.seconds), 0)?,
                (_, libc::PTRACE_EVENT_EXEC) => go_on(pid, hide_vdso(pid), 0)?,
                (signal, 0) => self.stopped(pid, signal)?,
                _ => {
                    self.born.extend(newborn(pid));
                    go_on(pid, Ok(()), 0)?;
                }
            }
        }
    }

    /// A signal came. The first SIGTRAP of the program says that it has been executed, the first SIGSTOP of any other that it is new:
    /// both are the tracer's own, all others are passed on.
    fn stopped(&mut self, pid: Pid, signal: i32) -> io::Result<()> {
        const OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        let own = if pid == self.program { libc::SIGTRAP } else { libc::SIGSTOP };
        if signal != own || !self.known.insert(pid) {
            return go_on(pid, Ok(()), signal);
        }
        if pid != self.program {
            return go_on(pid, Ok(()), 0);
        }
        request(libc::PTRACE_SETOPTIONS, pid, i64::from(OPTIONS))?;
        go_on(pid, hide_vdso(pid), 0)
    }
}

/// Waits for any thread that this one traces. The status is the kernel's own: nix has no word for real-time signals.
fn wait() -> io::Result<(Pid, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one int.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        match Errno::result(pid) {
            Err(Errno::EINTR) => {}
            result => return Ok((Pid::from_raw(result?), status)),
        }
    }
}

/// Who a thread that has stopped for it has started.
fn newborn(parent: Pid) -> Option<Pid> {
    let mut born: c_long = 0;
    request(libc::PTRACE_GETEVENTMSG, parent, (&raw mut born).expose_provenance().cast_signed() as i64).ok()?;
    i32::try_from(born).ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}

/// Lets a thread run to its next system call, or out of one, with a signal, or 0. That it was killed meanwhile is no failure.
fn go_on(pid: Pid, done: io::Result<()>, signal: i32) -> io::Result<()> {
    match done.and_then(|()| request(libc::PTRACE_SYSCALL, pid, signal.into())) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

/// Changes what a system call has answered, if it is a date. At a call's entrance its result is still -ENOSYS.
fn change_date(pid: Pid, seconds: i64) -> io::Result<()> {
    const DATES: [u64; 3] = [libc::CLOCK_REALTIME as u64, libc::CLOCK_REALTIME_COARSE as u64, libc::CLOCK_TAI as u64];
    let mut registers = registers(pid)?;
    // The first word of a timespec, of a timeval and of a time_t is the seconds.
    let later = |address: u64| match address {
        0 => Ok(()),
        address => write_word(pid, address, read_word(pid, address)?.wrapping_add_signed(seconds)),
    };
    match (registers.orig_rax.cast_signed(), registers.rax.cast_signed()) {
        (libc::SYS_clock_gettime, 0) if DATES.contains(&registers.rdi) => later(registers.rsi),
        (libc::SYS_gettimeofday, 0) => later(registers.rdi),
        (libc::SYS_time, now) if now >= 0 => {
            later(registers.rdi)?;
            registers.rax = registers.rax.wrapping_add_signed(seconds);
            request(libc::PTRACE_SETREGS, pid, (&raw const registers).expose_provenance().cast_signed() as i64)
        }
        _ => Ok(()),
    }
}

/// Makes a program that has just been executed ask the kernel for the time. Its stack holds, from its pointer on: the number of
/// arguments, the arguments, 0, the environment, 0, the auxiliary vector (System V ABI for AMD64, 3.4.1).
fn hide_vdso(pid: Pid) -> io::Result<()> {
    const AT_NULL: u64 = libc::AT_NULL;
    let mut at = registers(pid)?.rsp;
    at += 8 * (read_word(pid, at)? + 2);
    while read_word(pid, at)? != 0 {
        at += 8;
    }
    at += 8;
    loop {
        match read_word(pid, at)? {
            AT_NULL => return Ok(()),
            libc::AT_SYSINFO_EHDR => return write_word(pid, at, libc::AT_IGNORE),
            _ => at += 16,
        }
    }
}

fn read_word(pid: Pid, address: u64) -> io::Result<u64> {
    let mut word = [0; 8];
    let there = RemoteIoVec { base: usize::try_from(address).map_err(io::Error::other)?, len: word.len() };
    process_vm_readv(pid, &mut [IoSliceMut::new(&mut word)], &[there])?;
    Ok(u64::from_ne_bytes(word))
}

fn write_word(pid: Pid, address: u64, word: u64) -> io::Result<()> {
    let there = RemoteIoVec { base: usize::try_from(address).map_err(io::Error::other)?, len: 8 };
    process_vm_writev(pid, &[IoSlice::new(&word.to_ne_bytes())], &[there])?;
    Ok(())
}

fn registers(pid: Pid) -> io::Result<user_regs_struct> {
    // SAFETY: a structure of plain numbers, for which zeros are values.
    let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
    request(libc::PTRACE_GETREGS, pid, (&raw mut registers).expose_provenance().cast_signed() as i64)?;
    Ok(registers)
}

/// One request with `data`, which is a number, or the address of registers that outlive the call.
fn request(request: c_uint, pid: Pid, data: c_long) -> io::Result<()> {
    // SAFETY: of the requests made here, GETREGS and GETEVENTMSG alone write to memory of this process, and their callers give them room.
    let result = unsafe { libc::ptrace(request, pid.as_raw(), 0_usize, data) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    const DAYS: i64 = 1000 * 86_400;

    fn now() -> i64 {
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
    }

    /// What a shell prints as numbers.
    fn numbers(script: &str) -> (Vec<i64>, Ended) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let ended = run(command, DAYS).unwrap();
        let text = String::from_utf8_lossy(&ended.stdout).into_owned();
        (text.split_whitespace().map(|word| word.parse().unwrap()).collect(), ended)
    }

    #[test]
    fn a_program_and_its_children_are_told_another_date() {
        let before = now();
        let (dates, ended) = numbers("date +%s; (date +%s; exec date +%s) & wait; echo left >&2; exit 3");
        if !ended.other_date {
            eprintln!("skipped: ptrace is not permitted here");
            return;
        }
        assert_eq!(dates.len(), 3);
        assert!(dates.iter().all(|date| (before + DAYS..=now() + DAYS).contains(date)), "{dates:?} from {before}");
        assert_eq!((ended.code, ended.stderr.as_slice()), (Some(3), b"left\n".as_slice()));
    }

    #[test]
    fn threads_are_told_another_date_and_clocks_without_one_are_left_alone() {
        if Command::new("python3").arg("--version").output().is_err() {
            eprintln!("skipped: there is no python3");
            return;
        }
        let script = "python3 -c 'import sys, threading, time\n\
                      ask = lambda: sys.stdout.write(\"%d %d\\n\" % (time.time(), time.monotonic()))\n\
                      threads = [threading.Thread(target=ask) for _ in range(8)]\n\
                      [t.start() for t in threads]; [t.join() for t in threads]; ask()'";
        let uptime =
            || std::fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse::<i64>().unwrap();
        let (before, up) = (now(), uptime());
        let (answers, ended) = numbers(script);
        assert_eq!((ended.code, answers.len()), (Some(0), 18), "{}", String::from_utf8_lossy(&ended.stderr));
        if ended.other_date {
            for pair in answers.chunks(2) {
                assert!((before + DAYS..=now() + DAYS).contains(&pair[0]), "{pair:?}");
                assert!((up - 1..=uptime() + 1).contains(&pair[1]), "{pair:?}");
            }
        }
    }

    #[test]
    fn whoever_asks_in_another_way_and_whoever_is_left_behind() {
        if Command::new("perl").arg("-v").output().is_err() {
            eprintln!("skipped: there is no perl");
            return;
        }
        // time(2) is 201 and gettimeofday(2) 96; 34 is the first real-time signal that glibc leaves to programs.
        let script = "perl -e '$SIG{RTMIN} = sub {}; kill RTMIN => $$; my $two = pack(\"q2\", 0, 0); \
                      syscall(96, $two, 0); printf \"%d %d\\n\", syscall(201, 0), (unpack(\"q2\", $two))[0]'; sleep 1000 &";
        let before = now();
        let (dates, ended) = numbers(script);
        assert_eq!((ended.code, dates.len()), (Some(0), 2), "{}", String::from_utf8_lossy(&ended.stderr));
        if ended.other_date {
            assert!(dates.iter().all(|date| (before + DAYS..=now() + DAYS).contains(date)), "{dates:?} from {before}");
        }
    }

    #[test]
    fn signals_reach_the_program_and_its_death_is_told() {
        let (caught, ended) = numbers("trap 'echo 7; trap - TERM; kill -TERM $$' TERM; kill -TERM $$");
        assert_eq!((caught, ended.code), (vec![7], None));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        assert!(run(Command::new("/nonexistent/program"), DAYS).is_err());
    }
}
