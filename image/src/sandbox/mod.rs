//! A place to compile in that shows nothing of the host: user, mount, PID, network, UTS, IPC and cgroup namespaces of its own,
//! a root made of a locked tree (read-only), fixed names, numbers, environment and times, and no way out.
//!
//! What remains of the machine are its kernel's version, its processor, its clock and its random numbers. Three processes:
//! the caller (`run`), one that makes the namespaces (`enter`), and the first process inside (`inside`). The last two are
//! the same program started again, because namespaces are for processes of one thread; nothing is shared by forking.

mod deliver;
mod error;
mod inside;
mod root;
mod run;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

pub use error::SandboxError;
pub use run::run;

/// The version of what the sandbox shows to a script, a part of every component's key.
pub const VERSION: u32 = 1;

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
/// to exit with. Must be called before any thread is started.
pub fn started_again(words: &[OsString]) -> Result<u8, SandboxError> {
    let (stage, rest) = words.split_first().ok_or(SandboxError::Words)?;
    let plan = Plan::from_words(rest).ok_or(SandboxError::Words)?;
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
    fn a_plan_is_read_back_from_its_words() {
        let plan = Plan {
            tree: "/a b/root".into(),
            inputs: "inputs".into(),
            root: "/r".into(),
            jobs: 3,
            outputs: vec!["x".to_owned(), "--y".to_owned()],
        };
        assert_eq!(Plan::from_words(&plan.to_words()), Some(plan));
        assert_eq!(Plan::from_words(&["1".into(), "/a".into()]), None);
    }
}
