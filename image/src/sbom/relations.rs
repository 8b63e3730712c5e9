//! How the parts of an image hang together: which packages need which, and which artifact comes from which package.

use std::collections::{BTreeMap, BTreeSet};

use spec::lock::Use;
use spec::manifest::{Manifest, artifact};

use super::Facts;

/// The relations, as names of packages and artifacts.
pub(super) struct Relations<'a> {
    /// The packages of the image that a package depends on.
    pub(super) needs: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// The packages whose files are in an artifact as they are.
    pub(super) contains: BTreeMap<&'a str, Vec<&'a str>>,
    /// The packages that an artifact was made from.
    pub(super) made_from: BTreeMap<&'a str, Vec<&'a str>>,
    /// The artifacts that are in an artifact.
    pub(super) holds: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Relations<'a> {
    pub(super) fn of(manifest: &'a Manifest, facts: &'a BTreeMap<String, Facts>) -> Self {
        let mut relations = Self {
            needs: needs(facts),
            contains: BTreeMap::new(),
            made_from: made_from(manifest, facts),
            holds: BTreeMap::new(),
        };
        relations.contains.insert(artifact::ROOTFS, used(manifest, Use::Tree));
        if manifest.artifacts.contains_key(artifact::UKI) {
            relations.holds.insert(artifact::UKI, vec![artifact::KERNEL, artifact::INITRD, artifact::COMMAND_LINE]);
        }
        if manifest.artifacts.contains_key(artifact::DISK) {
            relations.holds.insert(artifact::DISK, vec![artifact::UKI, artifact::ROOTFS]);
        }
        relations
    }
}

fn used(manifest: &Manifest, wanted: Use) -> Vec<&str> {
    let packages = manifest.inputs.iter().filter(|package| package.uses.contains(&wanted));
    packages.map(|package| package.name.as_str()).collect()
}

fn made_from<'a>(manifest: &'a Manifest, facts: &'a BTreeMap<String, Facts>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let having = |has: fn(&Facts) -> bool| {
        let kernel = used(manifest, Use::Kernel).into_iter();
        kernel.filter(|name| facts.get(*name).is_some_and(has)).collect::<Vec<_>>()
    };
    let mut made = BTreeMap::from([
        (artifact::KERNEL, having(|facts| facts.has_kernel)),
        (artifact::INITRD, having(|facts| facts.has_modules)),
    ]);
    let Some(image) = &manifest.recipe.image else { return made };
    if !image.root_modules.is_empty() {
        made.insert(artifact::ROOTFS, having(|facts| facts.has_modules));
    }
    let firmware = [(artifact::FIRMWARE_SNP, &image.firmware.snp), (artifact::FIRMWARE_TDX, &image.firmware.tdx)];
    for (name, source) in firmware {
        if let Some(source) = source {
            made.insert(name, vec![source.package.name.as_str()]);
        }
    }
    if let Some(uki) = &image.uki {
        made.insert(artifact::UKI, vec![uki.package.name.as_str()]);
    }
    made
}

/// `Depends` and `Pre-Depends` (Debian Policy 7.2): of alternatives the first that is in the image, by its name or by what
/// another package provides. Versions were the resolver's business.
fn needs(facts: &BTreeMap<String, Facts>) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut providers: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, of) in facts {
        for provided in names(of.field("Provides").unwrap_or_default()).flatten() {
            providers.entry(provided).or_insert(name);
        }
    }
    let find = |wanted: &str| {
        let own = facts.get_key_value(wanted).map(|(name, _)| name.as_str());
        own.or_else(|| providers.get(wanted).copied())
    };
    let needs_of = |of: &Facts| -> BTreeSet<&str> {
        let fields = ["Pre-Depends", "Depends"].into_iter().filter_map(|field| of.field(field));
        // The names borrow from `facts`, not from the field.
        fields.flat_map(|field| names(field).filter_map(|mut any| any.find_map(find)).collect::<Vec<_>>()).collect()
    };
    let mut needs: BTreeMap<&str, BTreeSet<&str>> =
        facts.iter().map(|(name, of)| (name.as_str(), needs_of(of))).collect();
    for (name, needed) in &mut needs {
        needed.remove(name);
    }
    needs
}

/// The alternatives of each relation in a field, without versions, architectures and profiles.
fn names(field: &str) -> impl Iterator<Item = impl Iterator<Item = &str>> {
    let name = |relation| {
        let relation = str::trim(relation);
        relation.split([' ', '(', ':', '[', '<']).next().filter(|name| !name.is_empty())
    };
    field.split(',').map(move |any| any.split('|').filter_map(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::Control;

    #[test]
    fn the_first_alternative_that_is_there_is_needed() {
        let facts = |paragraph: &str| Facts {
            control: Control { paragraph: paragraph.to_owned(), ..Control::default() },
            ..Facts::default()
        };
        let all = BTreeMap::from([
            (
                "a".to_owned(),
                facts("Depends: absent | mawk:any (>= 1), awk, c [amd64] <!x>, a, gone\nPre-Depends: d(=2)\n"),
            ),
            ("c".to_owned(), facts("")),
            ("d".to_owned(), facts("Depends: c")),
            ("mawk".to_owned(), facts("Provides: awk (= 1), other\n")),
        ]);
        let needs = needs(&all);
        assert_eq!(needs["a"], BTreeSet::from(["c", "d", "mawk"]));
        assert_eq!(needs["d"], BTreeSet::from(["c"]));
        assert!(needs["c"].is_empty());
    }
}
