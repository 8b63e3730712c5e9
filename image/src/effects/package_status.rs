//! `/var/lib/dpkg/status`: what scanners read to know which versions are in an image. As dpkg writes it for packages that
//! are installed and configured (deb-control(5) fields in dpkg's order).

use md5::{Digest as _, Md5};

use super::add_file;
use crate::deb::{EntryKind, Package};
use crate::tree::Tree;

/// The order in which dpkg writes fields (lib/dpkg/parse.c, fieldinfos); others follow, as the package has them.
const ORDER: [&str; 25] = [
    "Package",
    "Essential",
    "Protected",
    "Status",
    "Priority",
    "Section",
    "Installed-Size",
    "Origin",
    "Maintainer",
    "Bugs",
    "Architecture",
    "Multi-Arch",
    "Source",
    "Version",
    "Config-Version",
    "Replaces",
    "Provides",
    "Depends",
    "Pre-Depends",
    "Recommends",
    "Suggests",
    "Breaks",
    "Conflicts",
    "Enhances",
    CONFFILES,
];
const CONFFILES: &str = "Conffiles";
const DESCRIPTION: &str = "Description";

pub(super) fn apply(tree: &mut Tree, packages: &[Package]) {
    let mut packages: Vec<&Package> = packages.iter().collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let text: String =
        packages.iter().map(|package| stanza(&package.control.paragraph, &conffiles(package)) + "\n").collect();
    if !text.is_empty() {
        add_file(tree, "var/lib/dpkg/status", 0o644, text.into_bytes(), "the package-status effect");
    }
}

/// A line for each configuration file, with the MD5 of what the package has there: dpkg tells by it what was changed.
fn conffiles(package: &Package) -> String {
    let content = |path: &str| {
        let entry = package.entries.iter().find(|entry| Some(entry.path.as_str()) == path.strip_prefix('/'))?;
        match &entry.kind {
            EntryKind::File(content) => Some(content),
            _ => None,
        }
    };
    let line = |path: &String| {
        let digest = Md5::digest(content(path)?.bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("\n {path} {digest}"))
    };
    package.control.conffiles.iter().filter_map(line).collect()
}

fn stanza(paragraph: &str, conffiles: &str) -> String {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in paragraph.lines() {
        match (line.starts_with([' ', '\t']), line.split_once(':'), fields.last_mut()) {
            (true, _, Some((_, value))) => *value += &format!("\n{line}"),
            (false, Some((name, value)), _) => fields.push((name, value.trim().to_owned())),
            _ => {}
        }
    }
    fields.push(("Status", "install ok installed".to_owned()));
    if !conffiles.is_empty() {
        fields.push((CONFFILES, conffiles.to_owned()));
    }
    let last = ORDER.len() + 1;
    let rank = |name: &str| match ORDER.iter().position(|known| known.eq_ignore_ascii_case(name)) {
        Some(rank) => rank,
        None if name.eq_ignore_ascii_case(DESCRIPTION) => ORDER.len(),
        None => last,
    };
    // Stable: what is not in the list keeps its place after it.
    fields.sort_by_key(|(name, _)| rank(name));
    fields
        .iter()
        .map(|(name, value)| format!("{name}:{}{value}\n", if value.starts_with('\n') { "" } else { " " }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_dpkgs_order_with_the_status_among_them() {
        let text =
            "Package: a\nVersion: 1\nArchitecture: amd64\nHomepage: x\nDescription: one\n two\nPriority: optional\n";
        let expected = "Package: a\nStatus: install ok installed\nPriority: optional\nArchitecture: amd64\nVersion: 1\nConffiles:\n /etc/a 0\nDescription: one\n two\nHomepage: x\n";
        assert_eq!(stanza(text, "\n /etc/a 0"), expected);
    }
}
