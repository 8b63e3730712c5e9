//! A place to compile in that shows nothing of the host: user, mount, PID, network, UTS, IPC and cgroup namespaces of its own,
//! a root made of a locked tree (read-only), fixed names, numbers, environment and times, and no way out.
//!
//! What remains of the machine are its kernel's version, its processor, its clock and its random numbers. Three processes:
//! the caller (`run`), one that makes the namespaces (`enter`), and the first process inside (`inside`). The last two are
//! the same program started again, because namespaces are for processes of one thread; nothing is shared by forking. They
//! get the plan on standard input, so that no command line shows it. The script has no capability (`rights`).

mod deliver;
mod error;
mod inside;
mod rights;
mod root;
mod run;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

pub use error::SandboxError;
pub use rights::map_user;
pub use run::run;

/// The version of what the sandbox shows to a script, a part of every component's key.
pub const VERSION: u32 = 2;

/// Where the script finds its inputs and leaves its outputs.
pub const BUILD: &str = "/build";

/// The name of the script among the inputs.
pub const SCRIPT: &str = "script";

/// What is run inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The root of an unpacked tree. Its directories are what the script sees of `/`, read-only.
    pub tree: PathBuf,
    /// A directory that is copied to `/build`; `script` in it is what `/bin/sh` runs.
    pub inputs: PathBuf,
    /// An empty directory, where the new root is mounted.
    pub root: PathBuf,
    /// How many jobs the script is told to run at once, in `JOBS`.
    pub jobs: usize,
    /// The files in `/build/out` that are the result.
    pub outputs: Vec<String>,
}

impl Plan {
    fn to_words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.jobs.to_string().into()];
        words.extend([&self.tree, &self.inputs, &self.root].map(|path| path.clone().into_os_string()));
        words.extend(self.outputs.iter().map(OsString::from));
        words
    }

    /// The plan as it is written to standard input: words that end with NUL, which is in no path.
    fn to_bytes(&self) -> Vec<u8> {
        self.to_words().iter().flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let words = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
        Self::from_words(&words.map(|word| OsString::from_vec(word.to_vec())).collect::<Vec<_>>())
    }

    fn from_words(words: &[OsString]) -> Option<Self> {
        let [jobs, tree, inputs, root, outputs @ ..] = words else { return None };
        let outputs = outputs.iter().map(|name| name.to_str().map(str::to_owned)).collect::<Option<_>>()?;
        Some(Self {
            jobs: jobs.to_str()?.parse().ok()?,
            tree: tree.into(),
            inputs: inputs.into(),
            root: root.into(),
            outputs,
        })
    }
}

/// The first word of a process that makes the namespaces, and of the first one inside.
const ENTER: &str = "enter";
const INSIDE: &str = "inside";

/// What the program does when `run` has started it again: `words` are what follows its own first words. Returns the code
/// to exit with. Must be called before any thread is started, and while the program has no file open but the usual three.
pub fn started_again(words: &[OsString]) -> Result<u8, SandboxError> {
    let [stage] = words else { return Err(SandboxError::Words) };
    rights::close_inherited()?;
    let mut bytes = Vec::new();
    let plan = Path::new("standard input");
    io::stdin().lock().read_to_end(&mut bytes).map_err(SandboxError::inside("reading the plan from", plan))?;
    let plan = Plan::from_bytes(&bytes).ok_or(SandboxError::Words)?;
    match stage.as_os_str() {
        stage if stage == OsStr::new(ENTER) => run::enter(&plan),
        stage if stage == OsStr::new(INSIDE) => inside::run(&plan).map(|()| 0),
        _ => Err(SandboxError::Words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_back() {
        let plan = Plan {
            tree: "/a b/root".into(),
            inputs: "inputs".into(),
            root: "/r".into(),
            jobs: 3,
            outputs: vec!["x".to_owned(), "--y".to_owned()],
        };
        assert_eq!(Plan::from_bytes(&plan.to_bytes()), Some(plan));
        for bad in [&b""[..], b"1\0/a\0", b"1\0/a\0/b\0/c\0x"] {
            assert_eq!(Plan::from_bytes(bad), None);
        }
    }
}
