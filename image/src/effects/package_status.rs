//! `/var/lib/dpkg/status`: what scanners read to know which versions are in an image. As dpkg writes it for packages that
//! are installed and configured (deb-control(5) fields in dpkg's order), without `Conffiles`.

use super::add_file;
use crate::deb::Package;
use crate::tree::Tree;

/// The order in which dpkg writes fields (lib/dpkg/parse.c, fieldinfos); others follow, as the package has them.
const ORDER: [&str; 24] = [
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
];
const DESCRIPTION: &str = "Description";

pub(super) fn apply(tree: &mut Tree, packages: &[Package]) {
    let mut packages: Vec<&Package> = packages.iter().collect();
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    let text: String = packages.iter().map(|package| stanza(&package.control.paragraph) + "\n").collect();
    if !text.is_empty() {
        add_file(tree, "var/lib/dpkg/status", 0o644, text.into_bytes(), "the package-status effect");
    }
}

fn stanza(paragraph: &str) -> String {
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in paragraph.lines() {
        match (line.starts_with([' ', '\t']), line.split_once(':'), fields.last_mut()) {
            (true, _, Some((_, value))) => *value += &format!("\n{line}"),
            (false, Some((name, value)), _) => fields.push((name, value.trim().to_owned())),
            _ => {}
        }
    }
    fields.push(("Status", "install ok installed".to_owned()));
    let last = ORDER.len() + 1;
    let rank = |name: &str| match ORDER.iter().position(|known| known.eq_ignore_ascii_case(name)) {
        Some(rank) => rank,
        None if name.eq_ignore_ascii_case(DESCRIPTION) => ORDER.len(),
        None => last,
    };
    // Stable: what is not in the list keeps its place after it.
    fields.sort_by_key(|(name, _)| rank(name));
    fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_dpkgs_order_with_the_status_among_them() {
        let text =
            "Package: a\nVersion: 1\nArchitecture: amd64\nHomepage: x\nDescription: one\n two\nPriority: optional\n";
        let expected = "Package: a\nStatus: install ok installed\nPriority: optional\nArchitecture: amd64\nVersion: 1\nDescription: one\n two\nHomepage: x\n";
        assert_eq!(stanza(text), expected);
    }
}
