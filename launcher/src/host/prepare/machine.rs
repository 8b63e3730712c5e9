//! The host's files, modules and device nodes as preparing and restoring read and change them.
//!
//! A trait, so that the order of changes and their undoing run in tests against a kernel in memory that stops at any point.
//! Paths are relative to the root, without a leading slash.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::OFlag;
use nix::kmod::{DeleteModuleFlags, delete_module};
use nix::unistd::{Gid, chown};
use serde::{Deserialize, Serialize};

/// Who may open a file: its group and its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// The group's number.
    pub group: u32,
    /// The twelve bits of its mode.
    pub mode: u32,
}

/// The host.
pub trait Machine {
    /// What a file holds.
    fn read(&self, path: &str) -> io::Result<String>;

    /// The text of a file, without the white space around it.
    fn text(&self, path: &str) -> io::Result<String> {
        Ok(self.read(path)?.trim().to_owned())
    }

    /// Writes a text to a file that is there, by one call, as the kernel's attributes want it.
    fn write(&mut self, path: &str, text: &str) -> io::Result<()>;

    /// Writes a whole file, so that it is there with this content or as it was before.
    fn put(&mut self, path: &str, content: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&mut self, path: &str) -> io::Result<()>;

    /// The last part of what a symbolic link leads to; none where there is no link.
    fn link(&self, path: &str) -> Option<String>;

    /// The names in a directory, sorted; none where it cannot be read.
    fn names(&self, path: &str) -> Vec<String>;

    /// Who may open a file.
    fn rights(&self, path: &str) -> io::Result<Rights>;

    /// Changes who may open it: the group first.
    fn set_rights(&mut self, path: &str, rights: Rights) -> io::Result<()>;

    /// Loads a module with what it depends on, as `modprobe` does.
    fn load(&mut self, module: &str, parameters: &[String]) -> io::Result<()>;

    /// Unloads a module that nobody uses, and nothing else.
    fn unload(&mut self, module: &str) -> io::Result<()>;

    /// Whether the host uses a block device for itself: it is mounted, a part of another, or somebody has it alone.
    fn is_claimed(&self, disk: &str) -> bool;

    /// A process that has a file open whose path `wanted` accepts, with its name.
    fn process_with(&self, wanted: &dyn Fn(&Path) -> bool) -> Option<String>;

    /// The journal; none where nothing is to be undone.
    fn journal(&self) -> io::Result<Option<String>>;

    /// Replaces the journal, and returns when it is on the disk. None removes it.
    fn keep_journal(&mut self, text: Option<&str>) -> io::Result<()>;
}

/// This host, or a tree of files that stands for one.
#[derive(Debug)]
pub struct LocalMachine {
    root: PathBuf,
    journal: PathBuf,
}

impl LocalMachine {
    /// The host whose files lie below `root`, with its journal at `journal`.
    pub fn new(root: &Path, journal: &Path) -> Self {
        Self { root: root.to_owned(), journal: journal.to_owned() }
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

impl Machine for LocalMachine {
    fn read(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.place(path))?).into_owned())
    }

    fn write(&mut self, path: &str, text: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.place(path))?.write_all(text.as_bytes())
    }

    fn put(&mut self, path: &str, content: &str) -> io::Result<()> {
        let path = self.place(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        store::write_atomically(&path, content.as_bytes()).map_err(io::Error::other)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        fs::remove_file(self.place(path))
    }

    fn link(&self, path: &str) -> Option<String> {
        Some(fs::read_link(self.place(path)).ok()?.file_name()?.to_string_lossy().into_owned())
    }

    fn names(&self, path: &str) -> Vec<String> {
        crate::host::names(&self.place(path))
    }

    fn rights(&self, path: &str) -> io::Result<Rights> {
        let found = fs::symlink_metadata(self.place(path))?;
        Ok(Rights { group: found.gid(), mode: found.mode() & 0o7777 })
    }

    fn set_rights(&mut self, path: &str, rights: Rights) -> io::Result<()> {
        let path = self.place(path);
        chown(&path, None, Some(Gid::from_raw(rights.group)))?;
        fs::set_permissions(&path, Permissions::from_mode(rights.mode))
    }

    fn load(&mut self, module: &str, parameters: &[String]) -> io::Result<()> {
        // modprobe knows compressed modules, and the options and aliases that this host's administrator has set.
        let output = Command::new("modprobe").arg("--").arg(module).args(parameters).output().map_err(|error| {
            io::Error::new(error.kind(), format!("modprobe, of the package kmod, cannot be run: {error}"))
        })?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }

    fn unload(&mut self, module: &str) -> io::Result<()> {
        let name = std::ffi::CString::new(module)?;
        Ok(delete_module(&name, DeleteModuleFlags::O_NONBLOCK)?)
    }

    fn is_claimed(&self, disk: &str) -> bool {
        let exclusive = (OFlag::O_EXCL | OFlag::O_NONBLOCK).bits();
        let opened = OpenOptions::new().read(true).custom_flags(exclusive).open(self.place("dev").join(disk));
        opened.is_err_and(|error| error.raw_os_error() == Some(nix::errno::Errno::EBUSY as i32))
    }

    fn process_with(&self, wanted: &dyn Fn(&Path) -> bool) -> Option<String> {
        let processes = self.place("proc");
        let process = crate::gpu::sysfs::process_with_open(&processes, wanted)?;
        let name = self.text(&format!("proc/{process}/comm")).unwrap_or_default();
        Some(format!("process {process} ({name})"))
    }

    fn journal(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(&self.journal) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn keep_journal(&mut self, text: Option<&str>) -> io::Result<()> {
        match text {
            Some(text) => store::write_atomically(&self.journal, text.as_bytes()).map_err(io::Error::other),
            None => match fs::remove_file(&self.journal) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => fs::File::open(self.journal.parent().unwrap_or(Path::new("/")))?.sync_all(),
            },
        }
    }
}
