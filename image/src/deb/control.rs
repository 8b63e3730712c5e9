//! The control archive: the control file, and the maintainer scripts, which are read and never run (Debian Policy 5.3, 6.1).

use std::collections::BTreeMap;
use std::io::Read as _;

use super::error::DebError;

/// What a package says about itself beside its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// The control file, one paragraph.
    pub paragraph: String,
    /// The maintainer scripts, `config` and `triggers`, by name. Bytes that are no UTF-8 are replaced.
    pub scripts: BTreeMap<String, String>,
    /// The files that dpkg takes for configuration, with a leading `/`, in the package's order (deb-conffiles(5)). Those
    /// that it would only remove are not among them.
    pub conffiles: Vec<String>,
}

/// The scripts that dpkg, debconf and triggers run or act on (deb-preinst(5) and its siblings, debconf-devel(7),
/// deb-triggers(5)).
pub const SCRIPTS: [&str; 6] = ["preinst", "postinst", "prerm", "postrm", "config", "triggers"];

/// A control file larger than this is no control file, and a script no script.
const MAX_FILE: u64 = 1 << 20;

impl Control {
    /// Reads the decoded control archive.
    pub(super) fn read(archive: &[u8]) -> Result<Self, DebError> {
        let mut control = Self::default();
        let mut found = false;
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries().map_err(DebError::Tar)? {
            let entry = entry.map_err(DebError::Tar)?;
            let path = entry.path_bytes().into_owned();
            let name = path.strip_prefix(b"./").unwrap_or(&path);
            let script = SCRIPTS.iter().find(|script| script.as_bytes() == name);
            let is_conffiles = name == b"conffiles";
            if name != b"control" && !is_conffiles && script.is_none() {
                continue;
            }
            let twice = || DebError::entry(&path, "comes twice in the control archive");
            if entry.size() > MAX_FILE {
                return Err(DebError::entry(&path, "of the control archive is too large"));
            }
            let mut bytes = Vec::new();
            entry.take(MAX_FILE).read_to_end(&mut bytes).map_err(DebError::Tar)?;
            match script {
                None if is_conffiles => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if !control.conffiles.is_empty() {
                        return Err(twice());
                    }
                    control.conffiles = text.lines().filter(|line| line.starts_with('/')).map(str::to_owned).collect();
                }
                Some(script) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    if control.scripts.insert((*script).to_owned(), text).is_some() {
                        return Err(twice());
                    }
                }
                None if found => return Err(twice()),
                None => {
                    found = true;
                    control.paragraph = String::from_utf8(bytes).map_err(|_| DebError::Control("Package"))?;
                }
            }
        }
        Ok(control)
    }

    /// The first line of a field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.paragraph
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// A field that every package has.
    pub(super) fn required(&self, name: &'static str) -> Result<String, DebError> {
        self.field(name).map(str::to_owned).ok_or(DebError::Control(name))
    }
}
