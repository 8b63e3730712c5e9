//! How the result leaves the sandbox: over a pipe, so that inside and outside share no file.
//!
//! `output NAME SIZE` and the bytes for each file, then `done`; or `failed STATUS`; or `missing NAME`. The script cannot
//! write to that pipe, but it decides what the files hold.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, BufRead, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

use super::SandboxError;

/// The largest output in bytes.
const MAX_BYTES: u64 = 1 << 30;

pub(super) enum Received {
    Outputs(BTreeMap<String, Vec<u8>>),
    Failed(String),
    NoOutput(String),
    /// The other side ended before the script began.
    Nothing,
}

pub(super) fn send(directory: &Path, names: &[String], to: &mut impl Write) -> io::Result<()> {
    for name in names {
        let path = directory.join(name);
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path);
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

pub(super) fn receive(mut from: impl BufRead) -> Result<Received, SandboxError> {
    let mut outputs = BTreeMap::new();
    loop {
        let mut line = String::new();
        (&mut from).take(4096).read_line(&mut line).map_err(|_| SandboxError::Cut)?;
        if line.is_empty() && outputs.is_empty() {
            return Ok(Received::Nothing);
        }
        let line = line.strip_suffix('\n').ok_or(SandboxError::Cut)?;
        match line.split_once(' ') {
            None if line == "done" => return Ok(Received::Outputs(outputs)),
            Some(("failed", status)) => return Ok(Received::Failed(status.to_owned())),
            Some(("missing", name)) => return Ok(Received::NoOutput(name.to_owned())),
            Some(("output", rest)) => {
                let (name, size) = rest.rsplit_once(' ').ok_or(SandboxError::Cut)?;
                let size: u64 = size.parse().ok().filter(|size| *size <= MAX_BYTES).ok_or(SandboxError::Cut)?;
                let mut bytes = Vec::new();
                (&mut from).take(size).read_to_end(&mut bytes).map_err(|_| SandboxError::Cut)?;
                if bytes.len() as u64 != size {
                    return Err(SandboxError::Cut);
                }
                outputs.insert(name.to_owned(), bytes);
            }
            _ => return Err(SandboxError::Cut),
        }
    }
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
        let transfer = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let mut pipe = Vec::new();
            send(out.path(), &names, &mut pipe).unwrap();
            receive(pipe.as_slice()).unwrap()
        };
        let Received::Outputs(outputs) = transfer(&["a", "b"]) else { panic!() };
        assert_eq!(outputs["a"], b"output b 3\ndone\n");
        assert!(outputs["b"].is_empty());
        for bad in ["link", "directory", "c"] {
            assert!(matches!(transfer(&["a", bad]), Received::NoOutput(name) if name == bad));
        }
    }

    proptest! {
        #[test]
        fn what_comes_out_never_panics(bytes in any::<Vec<u8>>(), text in "(output [a-z]{1,2} [0-9]{1,3}\n|done\n|failed x\n|.{0,20}){0,5}") {
            let _ = receive(bytes.as_slice());
            let _ = receive(text.as_bytes());
        }
    }
}
