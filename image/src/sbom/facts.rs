//! What a bill of materials says of a package that the lock does not: taken out of the decoded package, so that the package
//! itself need not be kept.

use crate::deb::{Control, EntryKind, Package};

/// What is kept of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The package's name.
    pub name: String,
    /// The control file.
    pub control: Control,
    /// The text of the copyright file (Debian Policy 12.5).
    pub copyright: Option<String>,
    /// The package that the documentation directory is a link to.
    pub documented_by: Option<String>,
    /// Whether the kernel is in it.
    pub has_kernel: bool,
    /// Whether kernel modules are in it.
    pub has_modules: bool,
}

impl Facts {
    /// The facts of a package.
    pub fn of(package: &Package) -> Self {
        let directory = format!("usr/share/doc/{}", package.name);
        let file = format!("{directory}/copyright");
        let mut facts = Self { name: package.name.clone(), control: package.control.clone(), ..Self::default() };
        for entry in &package.entries {
            match &entry.kind {
                EntryKind::File(content) if entry.path == file => {
                    facts.copyright = Some(String::from_utf8_lossy(content.bytes()).into_owned());
                }
                EntryKind::Symlink(target) if entry.path == directory => {
                    facts.documented_by = Some(target.clone());
                }
                EntryKind::Symlink(target) if entry.path == file => {
                    facts.documented_by = owner_of_link(target);
                }
                EntryKind::File(_) => {
                    let name = entry.path.rsplit('/').next().unwrap_or_default();
                    facts.has_kernel |= name == "vmlinuz" || entry.path.starts_with("boot/vmlinuz-");
                    facts.has_modules |= [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|end| name.ends_with(end));
                }
                _ => {}
            }
        }
        facts
    }

    /// The first line of a field of the control file.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.control.field(name)
    }
}

/// `../gcc-14-base/copyright` to `gcc-14-base`.
fn owner_of_link(target: &str) -> Option<String> {
    target.strip_suffix("/copyright")?.rsplit('/').next().map(str::to_owned)
}
