//! How QEMU itself is started: from a tree of Debian packages by the tree's own loader, or a program the user names.
//!
//! The tree is newer than the host's C library, so neither the host's loader nor its libraries may take part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use spec::{Diagnostic, Outcome};

/// Where the loader can be in a tree, and where libraries are.
const LOADERS: [&str; 3] =
    ["usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"];
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
/// passt, and the one for processors with AVX2, which it looks for beside the loader that runs it, and does not find.
const PASST: [&str; 2] = ["usr/bin/passt", "usr/bin/passt.avx2"];
const MODULES: &str = "usr/lib/x86_64-linux-gnu/qemu";
/// Where Debian's packages put what QEMU loads by name: `qemu-system-data` and `seabios`.
const DATA: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// A QEMU that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// A file is missing.
    #[error("QEMU cannot be run from {place}: there is no {missing}")]
    Missing {
        /// The tree or the program.
        place: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// A path is not UTF-8.
    #[error("QEMU cannot be run from {0}: the path is not UTF-8")]
    NotText(PathBuf),
}

impl Diagnostic for ProgramError {
    fn outcome(&self) -> Outcome {
        Outcome::HostCannot
    }
    fn hint(&self) -> Option<String> {
        Some("name a QEMU of this host with `--qemu PATH`, or let the pinned one be unpacked again".to_owned())
    }
}

/// How to run a QEMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuProgram {
    /// What stands before QEMU's own arguments: the program, or the loader and the program.
    pub(crate) command: Vec<String>,
    /// Directories that QEMU looks for its files in (`-L`).
    pub(crate) data: Vec<String>,
    /// Its environment. Nothing else is passed on.
    pub(crate) env: BTreeMap<String, String>,
    /// The file that is QEMU, by which what is known about it is remembered.
    pub(crate) binary: PathBuf,
    /// Whether the first word of the command is a loader that takes `--preload`.
    pub(crate) by_loader: bool,
    /// The tree that holds all its files, where they are known.
    pub(crate) tree: Option<PathBuf>,
    /// How the passt of the same tree is started, where it has one.
    pub(crate) passt: Option<Vec<String>>,
}

impl QemuProgram {
    /// The QEMU of a tree of unpacked packages.
    pub fn from_tree(root: &Path) -> Result<Self, ProgramError> {
        let find = |candidates: &[&str]| {
            let found = candidates.iter().map(|candidate| root.join(candidate)).find(|path| path.exists());
            let missing = || candidates.first().copied().unwrap_or_default().to_owned();
            found.ok_or_else(|| ProgramError::Missing { place: root.to_owned(), missing: missing() })
        };
        let existing = |candidates: &[&str]| -> Result<Vec<String>, ProgramError> {
            candidates.iter().map(|candidate| root.join(candidate)).filter(|path| path.exists()).map(text).collect()
        };
        let binary = find(&[PROGRAM])?;
        let loader = text(find(&LOADERS)?)?;
        let by_loader = vec![loader, "--library-path".to_owned(), existing(&LIBRARIES)?.join(":")];
        let run = |program: PathBuf| Ok([by_loader.clone(), vec![text(program)?]].concat());
        let [passt, with_avx2] = PASST.map(|name| root.join(name));
        let passt = if std::is_x86_feature_detected!("avx2") && with_avx2.exists() { with_avx2 } else { passt };
        Ok(Self {
            command: run(binary.clone())?,
            passt: passt.exists().then_some(passt).map(run).transpose()?,
            data: existing(&DATA)?,
            env: BTreeMap::from([("QEMU_MODULE_DIR".to_owned(), text(root.join(MODULES))?)]),
            binary,
            by_loader: true,
            tree: Some(root.to_owned()),
        })
    }

    /// A QEMU that the user names.
    pub fn at(path: &Path) -> Result<Self, ProgramError> {
        let missing = |_| ProgramError::Missing { place: path.to_owned(), missing: "such program".to_owned() };
        let binary = path.canonicalize().map_err(missing)?;
        // A wrapper script needs to find its shell's programs.
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())]);
        Ok(Self {
            command: vec![text(binary.clone())?],
            data: Vec::new(),
            env,
            binary,
            by_loader: false,
            tree: None,
            passt: None,
        })
    }

    /// The same QEMU with a library loaded before all others. Where QEMU was named by the user it must be the program
    /// itself: the library reaches a wrapper script, but not what that starts.
    pub(crate) fn with_preload(mut self, library: &str) -> Self {
        if self.by_loader {
            self.command.splice(1..1, ["--preload".to_owned(), library.to_owned()]);
        } else {
            self.env.insert("LD_PRELOAD".to_owned(), library.to_owned());
        }
        self
    }

    /// The whole command with QEMU's `arguments`.
    pub(crate) fn argv(&self, arguments: Vec<String>) -> Vec<String> {
        let data = self.data.iter().flat_map(|directory| ["-L".to_owned(), directory.clone()]);
        self.command.iter().cloned().chain(data).chain(arguments).collect()
    }
}

fn text(path: PathBuf) -> Result<String, ProgramError> {
    path.into_os_string().into_string().map_err(|path| ProgramError::NotText(path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_runs_by_its_own_loader() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(QemuProgram::from_tree(root.path()), Err(ProgramError::Missing { .. })));
        for file in [PROGRAM, LOADERS[0], "usr/share/qemu/x", "usr/share/seabios/x"] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let root = root.path().to_str().unwrap();
        let qemu = QemuProgram::from_tree(Path::new(root)).unwrap().with_preload("/sim.so");
        let argv = qemu.argv(vec!["-S".to_owned()]).join(" ").replace(root, "R");
        assert_eq!(
            argv,
            "R/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --preload /sim.so --library-path R/usr/lib/x86_64-linux-gnu \
             R/usr/bin/qemu-system-x86_64 -L R/usr/share/qemu -L R/usr/share/seabios -S"
        );
        assert!(qemu.env["QEMU_MODULE_DIR"].ends_with("/usr/lib/x86_64-linux-gnu/qemu"));
    }

    #[test]
    fn a_named_program_takes_the_environment() {
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(QemuProgram::at(&empty.path().join("qemu")), Err(ProgramError::Missing { .. })));
        let qemu = QemuProgram::at(Path::new("/bin/sh")).unwrap().with_preload("/sim.so");
        assert_eq!(qemu.env["LD_PRELOAD"], "/sim.so");
        assert_eq!(qemu.argv(vec![]).len(), 1);
    }
}
