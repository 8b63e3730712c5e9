//! A log that goes from file to file: bounded on disk, with nothing lost between two of its files.
//!
//! `NAME.log` is written. When it is full it becomes `NAME.log.N`, with a number that only grows, and a new `NAME.log` is begun; of
//! the oldest, as many are removed as there are too many. `state::logs` follows from one to the next by these numbers. A new
//! launch begins a new log: what the one before wrote last is kept as `NAME.previous.log`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use spec::vm::LogTerms;

use crate::state::create_private;

/// The log that is written.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// None once it could not be written: the guest's life does not hang on a full disk.
    file: Option<File>,
    written: u64,
    number: u64,
    terms: LogTerms,
}

impl Log {
    /// Begins the log at `path`.
    pub(crate) fn begin(path: &Path, terms: LogTerms) -> io::Result<Self> {
        match fs::rename(path, previous(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for (_, rotated) in rotated(path)? {
            fs::remove_file(rotated)?;
        }
        Ok(Self { path: path.to_owned(), file: Some(create_private(path)?), written: 0, number: 1, terms })
    }

    /// Writes all of `bytes`. After an error nothing more is written, and nothing more is an error.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let result = self.write_all(bytes);
        if result.is_err() {
            self.file = None;
        }
        result
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.written >= self.terms.size.bytes {
                self.rotate()?;
            }
            let Some(file) = &mut self.file else { return Ok(()) };
            let room = usize::try_from(self.terms.size.bytes - self.written).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            file.write_all(now)?;
            self.written += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        fs::rename(&self.path, numbered(&self.path, self.number))?;
        self.number += 1;
        self.file = Some(create_private(&self.path)?);
        self.written = 0;
        let all = rotated(&self.path)?;
        let kept = usize::try_from(self.terms.files.saturating_sub(1)).unwrap_or(usize::MAX);
        let surplus = all.len().saturating_sub(kept);
        all.iter().take(surplus).try_for_each(|(_, oldest)| fs::remove_file(oldest))
    }
}

/// The full files of the log at `path` that are still there, by number, the oldest first.
pub(crate) fn rotated(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let number =
            entry.file_name().to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        all.extend(number.map(|number: u64| (number, entry.path())));
    }
    all.sort();
    Ok(all)
}

/// Where the last file of an earlier launch is kept.
pub(crate) fn previous(path: &Path) -> PathBuf {
    path.with_extension("previous.log")
}

fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use spec::size::Size;

    use super::*;

    #[test]
    fn a_log_keeps_its_last_files_whole_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let terms = LogTerms { size: Size { bytes: 10 }, files: 3 };
        let mut log = Log::begin(&path, terms).unwrap();
        let text: Vec<u8> = (0..47).map(|index| b'a' + index % 26).collect();
        text.chunks(7).for_each(|chunk| log.write(chunk).unwrap());
        let names = |path: &Path| rotated(path).unwrap().into_iter().map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(names(&path), [3, 4]);
        let kept: Vec<u8> = rotated(&path).unwrap().iter().flat_map(|(_, path)| fs::read(path).unwrap()).collect();
        assert_eq!([kept, fs::read(&path).unwrap()].concat(), text[20..]);
        // A file that is full is not left before there is more.
        log.write(b"xyz").unwrap();
        assert_eq!((names(&path).len(), fs::read(&path).unwrap().len()), (2, 10));

        let last = fs::read(&path).unwrap();
        let log = Log::begin(&path, terms).unwrap();
        assert_eq!((names(&path), fs::read(&path).unwrap()), (vec![], vec![]));
        assert_eq!(fs::read(directory.path().join("console.previous.log")).unwrap(), last);
        drop(log);
    }

    #[test]
    fn a_log_that_cannot_be_written_is_given_up_once() {
        let mut log = Log {
            path: PathBuf::from("/dev/full"),
            file: Some(File::options().write(true).open("/dev/full").unwrap()),
            written: 0,
            number: 1,
            terms: LogTerms::default(),
        };
        assert_eq!(log.write(b"x").unwrap_err().kind(), ErrorKind::StorageFull);
        log.write(b"x").unwrap();
    }
}
