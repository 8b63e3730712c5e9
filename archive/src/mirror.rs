//! Where packages come from: a Debian mirror named by the caller, by the environment or by the host's apt configuration.
//! No host name is ever written down in Bullion, nor in a lock.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spec::{Diagnostic, Outcome};

use crate::apt_sources::{AptSource, choose, choose_security, parse_deb822, parse_one_line};
use crate::transport;

/// The environment variable that names a mirror.
pub const VARIABLE: &str = "BULLION_MIRROR";
/// The environment variable that names a mirror of the security archive.
pub(crate) const SECURITY_VARIABLE: &str = "BULLION_SECURITY_MIRROR";
/// Where apt's configuration is.
pub const APT_DIRECTORY: &str = "/etc/apt";

/// A mirror of Debian's archive.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub(crate) base: String,
    /// The mirror of the security archive, whose layout is that of an archive of its own.
    pub(crate) security: String,
    pub(crate) keyring: Option<PathBuf>,
    /// Whose keys sign the security archive's suites, where it is not the main one's.
    pub(crate) security_keyring: Option<PathBuf>,
    pub(crate) patience: Patience,
    pub(crate) agent: ureq::Agent,
}

/// How often a transfer that fails for a passing reason is tried, and how long to wait in between.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How many times in all, at least once.
    pub attempts: u32,
    /// The pause after the first failure; each further one is twice as long.
    pub first_pause: Duration,
    /// How long the mirror may be silent.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 4, first_pause: Duration::from_millis(500), silence: Duration::from_secs(30) }
    }
}

/// No mirror, or one that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The address has a scheme we do not speak.
    #[error("\"{0}\" is not the address of a mirror: it must start with http://, https:// or file:///")]
    Scheme(String),
    /// Nothing names a Debian mirror.
    #[error("no Debian mirror is known: none was named, and none of the sources in {} is one of Debian's main archive", apt.display())]
    None {
        /// The apt configuration that was searched.
        apt: PathBuf,
    },
    /// apt's configuration cannot be read.
    #[error("reading {}", path.display())]
    Apt {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Diagnostic for MirrorError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Scheme(_) => Outcome::Usage,
            Self::None { .. } | Self::Apt { .. } => Outcome::HostCannot,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Scheme(_) => {
                Some(format!("--mirror, {VARIABLE} or {SECURITY_VARIABLE} names it, or apt's configuration"))
            }
            Self::None { .. } | Self::Apt { .. } => Some(format!(
                "name a mirror of Debian's archive with --mirror URL or {VARIABLE}=URL (on Ubuntu that is always needed: its own archive is not Debian's), or a local copy with file:///PATH"
            )),
        }
    }
}

impl Mirror {
    /// The mirror at `address`: `http://`, `https://` or `file:///` (the path is taken as it stands).
    pub fn new(address: &str) -> Result<Self, MirrorError> {
        let base = address.trim_end_matches('/').to_owned();
        if !["http://", "https://", "file:///"].iter().any(|scheme| base.starts_with(scheme)) {
            return Err(MirrorError::Scheme(address.to_owned()));
        }
        let patience = Patience::default();
        // Mirrors of both have them side by side.
        let security = if base.ends_with("/debian") { format!("{base}-security") } else { base.clone() };
        let agent = transport::agent([&base, &security], patience);
        Ok(Self { base, security, keyring: None, security_keyring: None, patience, agent })
    }

    /// The same mirror, with the security archive from `address`.
    pub fn with_security(self, address: &str) -> Result<Self, MirrorError> {
        let security = Self::new(address)?.base;
        let agent = transport::agent([&self.base, &security], self.patience);
        Ok(Self { security, agent, ..self })
    }

    /// The mirror named by `option`, else by `BULLION_MIRROR`, else by the host's apt configuration.
    pub fn find(option: Option<&str>) -> Result<Self, MirrorError> {
        let variable = std::env::var(VARIABLE).ok();
        let mirror = Self::find_in(option, variable.as_deref(), Path::new(APT_DIRECTORY))?;
        match std::env::var(SECURITY_VARIABLE).ok().filter(|address| !address.is_empty()) {
            Some(address) => mirror.with_security(&address),
            None => Ok(mirror),
        }
    }

    /// As `find`, with the environment and the apt directory given by the caller.
    pub fn find_in(option: Option<&str>, variable: Option<&str>, apt: &Path) -> Result<Self, MirrorError> {
        if let Some(address) = option.or(variable).filter(|address| !address.is_empty()) {
            return Self::new(address);
        }
        let mut sources = Vec::new();
        for path in source_files(apt)? {
            let text = fs::read(&path).map_err(|source| MirrorError::Apt { path: path.clone(), source })?;
            let text = String::from_utf8_lossy(&text);
            let deb822 = path.extension().is_some_and(|extension| extension == "sources");
            sources.extend(if deb822 { parse_deb822(&text) } else { parse_one_line(&text) });
        }
        let source = choose(&sources).ok_or_else(|| MirrorError::None { apt: apt.to_owned() })?;
        let mirror = Self { keyring: source.signed_by.clone(), ..Self::new(&address_of(source))? };
        match choose_security(&sources) {
            Some(security) => {
                let mirror = mirror.with_security(&address_of(security))?;
                Ok(Self { security_keyring: security.signed_by.clone(), ..mirror })
            }
            None => Ok(mirror),
        }
    }

    /// The same mirror with other retries and time limits.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        let agent = transport::agent([&self.base, &self.security], patience);
        Self { patience, agent, ..self }
    }

    /// The mirror's address, for messages only.
    pub fn address(&self) -> &str {
        &self.base
    }
}

/// apt takes file:/path as well as file:///path.
fn address_of(source: &AptSource) -> String {
    match source.uri.strip_prefix("file:/") {
        Some(path) => format!("file:///{}", path.trim_start_matches('/')),
        None => source.uri.clone(),
    }
}

/// apt's source files in apt's order: `sources.list`, then `sources.list.d` by name.
fn source_files(apt: &Path) -> Result<Vec<PathBuf>, MirrorError> {
    let directory = apt.join("sources.list.d");
    let mut files: Vec<PathBuf> = match fs::read_dir(&directory) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(MirrorError::Apt { path: directory, source }),
    };
    files.retain(|path| path.extension().is_some_and(|extension| extension == "list" || extension == "sources"));
    files.sort();
    let main = apt.join("sources.list");
    if main.is_file() {
        files.insert(0, main);
    }
    Ok(files)
}
