//! How the result leaves the sandbox: over a pipe, so that inside and outside share no file.
//!
//! `begun`; then `output NAME SIZE` and the bytes for each file, and `done`; or `failed STATUS`; or `missing NAME`. The script
//! cannot write to that pipe (`rights`). If it could, no other name would be taken for it than those that were asked for.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

use super::SandboxError;

/// The largest size of all outputs together, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// The longest line, in bytes.
const LONGEST_LINE: u64 = 64 << 10;

pub(super) enum Received {
    Outputs(BTreeMap<String, Vec<u8>>),
    Failed(String),
    NoOutput(String),
    /// The other side ended before the script did.
    NoEnd,
    /// The other side ended before the script began.
    Nothing,
}

pub(super) fn send_begin(to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "begun")
}

pub(super) fn send(directory: &Path, names: &[String], to: &mut impl Write) -> io::Result<()> {
    for name in names {
        let path = directory.join(name);
        // Opening a pipe would wait for who writes to it.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path);
        let Some(file) = opened.ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file())) else {
            return writeln!(to, "missing {name}");
        };
        let size = file.metadata()?.len();
        writeln!(to, "output {name} {size}")?;
        if io::copy(&mut file.take(size), to)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    writeln!(to, "done")
}

pub(super) fn send_failure(status: &str, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "failed {status}")
}

/// Takes the files with these names, in this order, and nothing else.
pub(super) fn receive(mut from: impl BufRead, expected: &[String]) -> Result<Received, SandboxError> {
    match line(&mut from)?.as_deref() {
        None => return Ok(Received::Nothing),
        Some("begun") => {}
        Some(_) => return Err(SandboxError::Cut),
    }
    let mut outputs = BTreeMap::new();
    let mut room = MAX_BYTES;
    for name in expected {
        let Some(line) = line(&mut from)? else {
            return if outputs.is_empty() { Ok(Received::NoEnd) } else { Err(SandboxError::Cut) };
        };
        if let Some(status) = line.strip_prefix("failed ").filter(|_| outputs.is_empty()) {
            return Ok(Received::Failed(status.to_owned()));
        }
        if line.strip_prefix("missing ") == Some(name) {
            return Ok(Received::NoOutput(name.clone()));
        }
        let (found, size) =
            line.strip_prefix("output ").and_then(|rest| rest.rsplit_once(' ')).ok_or(SandboxError::Cut)?;
        let size: u64 = size.parse().ok().filter(|_| found == name).ok_or(SandboxError::Cut)?;
        room = room.checked_sub(size).ok_or_else(|| SandboxError::TooLarge(name.clone()))?;
        let mut bytes = Vec::new();
        (&mut from).take(size).read_to_end(&mut bytes).map_err(|_| SandboxError::Cut)?;
        if bytes.len() as u64 != size {
            return Err(SandboxError::Cut);
        }
        outputs.insert(name.clone(), bytes);
    }
    match (line(&mut from)?.as_deref(), line(&mut from)?) {
        (Some("done"), None) => Ok(Received::Outputs(outputs)),
        _ => Err(SandboxError::Cut),
    }
}

/// A line, without its end; `None` where nothing comes any more.
fn line(from: &mut impl BufRead) -> Result<Option<String>, SandboxError> {
    let mut line = String::new();
    from.take(LONGEST_LINE).read_line(&mut line).map_err(|_| SandboxError::Cut)?;
    if line.is_empty() {
        return Ok(None);
    }
    line.strip_suffix('\n').map(|line| Some(line.to_owned())).ok_or(SandboxError::Cut)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn outputs_arrive_as_they_were_left_and_only_files_count() {
        let out = tempfile::tempdir().unwrap();
        std::fs::write(out.path().join("a"), b"output b 3\ndone\n").unwrap();
        std::fs::write(out.path().join("b"), b"").unwrap();
        std::os::unix::fs::symlink("a", out.path().join("link")).unwrap();
        std::fs::create_dir(out.path().join("directory")).unwrap();
        nix::unistd::mkfifo(&out.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let transfer = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let mut pipe = Vec::new();
            send_begin(&mut pipe).unwrap();
            send(out.path(), &names, &mut pipe).unwrap();
            receive(pipe.as_slice(), &names).unwrap()
        };
        let Received::Outputs(outputs) = transfer(&["a", "b"]) else { panic!() };
        assert_eq!(outputs["a"], b"output b 3\ndone\n");
        assert!(outputs["b"].is_empty());
        for bad in ["link", "directory", "pipe", "c"] {
            assert!(matches!(transfer(&["a", bad]), Received::NoOutput(name) if name == bad));
        }
    }

    #[test]
    fn only_the_expected_names_are_taken_in_their_order_and_once() {
        let expected = ["a".to_owned(), "b".to_owned()];
        let receive = |text: &str| receive(text.as_bytes(), &expected);
        let whole = "begun\noutput a 1\nxoutput b 0\ndone\n";
        assert!(matches!(receive(whole), Ok(Received::Outputs(outputs)) if outputs.len() == 2));
        assert!(matches!(receive(""), Ok(Received::Nothing)));
        assert!(matches!(receive("begun\n"), Ok(Received::NoEnd)));
        assert!(
            matches!(receive("begun\nfailed exit code 3\n"), Ok(Received::Failed(status)) if status == "exit code 3")
        );
        for refused in [
            "output a 1\nxoutput b 0\ndone\n",
            "begun\noutput ../a 1\nxoutput b 0\ndone\n",
            "begun\noutput /a 1\nxoutput b 0\ndone\n",
            "begun\noutput b 1\nxoutput a 0\ndone\n",
            "begun\noutput a 1\nxoutput a 0\ndone\n",
            "begun\noutput a 1\nxdone\n",
            "begun\noutput a 1\nxoutput b 0\noutput ../c 0\ndone\n",
            "begun\noutput a 1\nxoutput b 0\ndone\nx",
            "begun\noutput a 1\nxfailed exit code 3\n",
            "begun\nmissing b\n",
            "begun\noutput a 9\nx",
        ] {
            assert!(matches!(receive(refused), Err(SandboxError::Cut)), "{refused:?}");
        }
        let large = format!("begun\noutput a 1\nxoutput b {MAX_BYTES}\n");
        assert!(matches!(receive(&large), Err(SandboxError::TooLarge(name)) if name == "b"));
        let long = "begun\noutput ".to_owned() + &"a".repeat(1 << 20);
        assert!(matches!(receive(&long), Err(SandboxError::Cut)));
    }

    proptest! {
        #[test]
        fn what_comes_out_never_panics(bytes in any::<Vec<u8>>(), text in "begun\n(output [a-b]{1,2} [0-9]{1,3}\n|done\n|failed x\n|.{0,20}){0,5}") {
            let expected = ["a".to_owned(), "b".to_owned()];
            let _ = receive(bytes.as_slice(), &expected);
            let _ = receive(text.as_bytes(), &expected);
        }
    }
}
