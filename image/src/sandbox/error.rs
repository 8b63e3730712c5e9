//! Why nothing could be run in a sandbox, or why what ran there failed; and which setting of the host is in the way.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spec::{Diagnostic, Outcome};

/// A run in a sandbox that failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program was not started by `run`.
    #[error("these are not the words that a sandbox is started with")]
    Words,
    /// The kernel refused namespaces.
    #[error("making the namespaces of a sandbox: {0}")]
    Namespaces(nix::Error),
    /// The kernel refused something else, inside.
    #[error("{doing} {} in a sandbox: {source}", path.display())]
    Inside {
        /// What was being done, as a gerund.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The sandbox was not set up; the words are those of the process that tried.
    #[error("no sandbox could be set up: {0}")]
    NotSetUp(String),
    /// The script failed.
    #[error("the script of the component ended with {status}; the end of what it said:\n{log}")]
    Script {
        /// `exit code N`, or the signal.
        status: String,
        /// The last lines.
        log: String,
    },
    /// The script was content, but its result is not there.
    #[error("the script left no file /build/out/{0}")]
    NoOutput(String),
    /// More than is taken.
    #[error("the files in /build/out are larger than 1 GiB together, with {0}")]
    TooLarge(String),
    /// What came out of the sandbox is not what it should send.
    #[error("the sandbox ended in the middle of its result, or sent what is none")]
    Cut,
    /// The program could not be started again.
    #[error("starting {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SandboxError {
    /// Wraps an I/O error of `doing` something to `path`, for use in `map_err`.
    pub(super) fn inside<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Inside { doing, path: path.to_owned(), source: source.into() }
    }
}

impl Diagnostic for SandboxError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Words => Outcome::Usage,
            Self::Script { .. } | Self::NoOutput(_) | Self::TooLarge(_) => Outcome::InputMismatch,
            Self::Cut => Outcome::Internal,
            Self::Namespaces(_) | Self::Inside { .. } | Self::NotSetUp(_) | Self::Start { .. } => Outcome::HostCannot,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotSetUp(_) => Some(setting_in_the_way(Path::new("/proc/sys"))),
            Self::Script { .. } | Self::NoOutput(_) => {
                Some("the recipe's script and its packages do not fit together, or memory ran out".to_owned())
            }
            _ => None,
        }
    }
}

/// What forbids a user namespace on this host: the usual settings, each with its value that allows one.
fn setting_in_the_way(sysctl: &Path) -> String {
    let value = |name: &str| fs::read_to_string(sysctl.join(name)).ok().map(|text| text.trim().to_owned());
    let is = |name: &str, wanted: &str| value(name).as_deref() == Some(wanted);
    if is("user/max_user_namespaces", "0") {
        return "this host allows no user namespaces: sysctl user.max_user_namespaces=10000".to_owned();
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return "this host allows user namespaces to root only: sysctl kernel.unprivileged_userns_clone=1".to_owned();
    }
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "AppArmor takes the rights from user namespaces here: sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile for this program that allows userns".to_owned();
    }
    "a sandbox needs user namespaces and a /proc without masked parts: it cannot be made in a chroot, nor in most containers".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_in_the_way_is_named() {
        let sysctl = tempfile::tempdir().unwrap();
        for directory in ["user", "kernel"] {
            fs::create_dir(sysctl.path().join(directory)).unwrap();
        }
        assert!(setting_in_the_way(sysctl.path()).contains("chroot"));
        for (name, value) in [
            ("kernel/apparmor_restrict_unprivileged_userns", "1\n"),
            ("kernel/unprivileged_userns_clone", "0\n"),
            ("user/max_user_namespaces", "0\n"),
        ] {
            fs::write(sysctl.path().join(name), value).unwrap();
            let hint = setting_in_the_way(sysctl.path());
            assert!(hint.contains(&name.replace('/', ".")), "{hint}");
        }
    }
}
