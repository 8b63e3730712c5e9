//! What containers print: cut into lines of bounded length, and passed on where the configuration gives it to the host.
//!
//! One container writes into a pipe of podman's. Several write into a named pipe, as their log: there nothing is kept in the
//! guest, one that is started again finds it again, and what podman itself says stays apart from what containers say.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use spec::agent::MAX_OUTPUT_LINE;

use super::{Report, Teller};
use crate::failure::{Failure, OrFail as _, Stage};

/// How long the end of the output may come after the end of the workload.
const GRACE: Duration = Duration::from_secs(2);
/// The longest line of a log: conmon cuts what is printed at 8 KiB and puts time, stream and a tag before it.
const MAX_LOG_LINE: usize = 16 << 10;

/// Output that somebody reads to its end.
#[derive(Debug)]
pub(super) struct Reading {
    done: Receiver<()>,
    /// Keeps the named pipe from ending as long as there may be another container.
    _open: Option<File>,
}

impl Reading {
    /// Reads what is printed into a pipe; nobody gets it where there is no teller.
    pub(super) fn of_pipe(printed: OwnedFd, teller: Option<Teller>) -> Self {
        let (sender, done) = mpsc::channel();
        thread::spawn(move || {
            lines(File::from(printed), MAX_OUTPUT_LINE, |line| say(teller.as_ref(), line));
            let _ = sender.send(());
        });
        Self { done, _open: None }
    }

    /// Makes the named pipe `path` for logs of podman's driver `k8s-file` and reads what is printed.
    pub(super) fn of_logs(path: &str, teller: Teller) -> Result<Self, Failure> {
        let doing = || format!("making {path}");
        nix::unistd::mkfifo(Path::new(path), Mode::from_bits_truncate(0o600))
            .or_fail_doing(Stage::Workload, doing())?;
        // Nobody writes yet, and opening must not wait for it; reading must.
        let reader = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let reader = reader.or_fail_doing(Stage::Workload, doing())?;
        let open = OpenOptions::new().write(true).open(path).or_fail_doing(Stage::Workload, doing())?;
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty())).or_fail_doing(Stage::Workload, doing())?;
        let (sender, done) = mpsc::channel();
        thread::spawn(move || {
            lines(reader, MAX_LOG_LINE, |line| cut(text(line)).for_each(|piece| say(Some(&teller), piece)));
            let _ = sender.send(());
        });
        Ok(Self { done, _open: Some(open) })
    }

    /// Waits for the end of the output, not for long: whoever still writes has outlived the workload.
    pub(super) fn finish(self) {
        let Self { done, _open } = self;
        drop(_open);
        let _ = done.recv_timeout(GRACE);
    }
}

fn say(teller: Option<&Teller>, line: &[u8]) {
    if let Some(teller) = teller {
        teller.tell(Report::Line(String::from_utf8_lossy(line).into_owned()));
    }
}

/// What a container printed in a line of a log: `TIME STREAM TAG TEXT` (conmon `src/ctr_logging.c`).
fn text(line: &[u8]) -> &[u8] {
    line.splitn(4, |byte| *byte == b' ').nth(3).unwrap_or(line)
}

/// Pieces of at most `MAX_OUTPUT_LINE` bytes; one where there is nothing.
fn cut(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let empty = line.is_empty().then_some(line);
    line.chunks(MAX_OUTPUT_LINE).chain(empty)
}

/// Gives each line, without its end, and cut where it is longer than `longest` bytes.
fn lines(mut source: impl Read, longest: usize, mut each: impl FnMut(&[u8])) {
    let mut buffer = [0; MAX_OUTPUT_LINE];
    let mut line: Vec<u8> = Vec::new();
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        for byte in buffer.iter().take(count) {
            if *byte != b'\n' {
                line.push(*byte);
            }
            if *byte == b'\n' || line.len() == longest {
                each(&line);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        each(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_into_lines_of_bounded_length() {
        let long = "x".repeat(MAX_OUTPUT_LINE + 3);
        let printed = format!("a\n\n{long}\nb\u{e9}");
        let mut found = Vec::new();
        lines(printed.as_bytes(), MAX_OUTPUT_LINE, |line| found.push(line.to_vec()));
        assert_eq!(found[..2], [b"a".to_vec(), vec![]]);
        assert_eq!(found[2].len(), MAX_OUTPUT_LINE);
        assert_eq!(found[3..], [b"xxx".to_vec(), "b\u{e9}".as_bytes().to_vec()]);
    }

    #[test]
    fn a_line_of_a_log_is_what_the_container_printed() {
        // As conmon 2.1.12 wrote them.
        assert_eq!(text(b"2026-11-25T23:42:51.920113265+00:00 stdout F pre says hello"), b"pre says hello");
        assert_eq!(text(b"2026-11-25T23:42:51.920113265+00:00 stderr P "), b"");
        assert_eq!(text(b"other"), b"other");
        assert_eq!(cut(b"").count(), 1);
        assert_eq!(cut(&[b'x'; MAX_OUTPUT_LINE + 1]).map(<[u8]>::len).collect::<Vec<_>>(), [MAX_OUTPUT_LINE, 1]);
    }
}
