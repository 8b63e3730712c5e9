//! The links by which systemd's units are enabled: those that `systemctl preset-all` makes on a new system (systemd.preset(5),
//! systemd.unit(5), "[Install] Section Options"), for the system's units and for those of users.
//!
//! Debian's scripts enable the units that a package brings one by one; presets say the same for a whole tree, and a recipe can
//! add its own. Images without systemd have no use for any of it. What a package enabled is disabled where presets say so; links of the
//! recipe stay, whatever they do.

mod install;
mod pattern;
mod preset;

use std::collections::{BTreeMap, BTreeSet};

use super::{EffectError, add_link};
use crate::tree::{Kind, OF_RECIPE, Tree, name};
use install::Install;
use preset::{Answer, Presets};

const EFFECT: &str = "the units effect";
/// The manager, whose units these are.
const MANAGER: &str = "usr/lib/systemd/systemd";
/// Where units are, from the least to the first in rank (systemd.unit(5), "Unit File Load Path").
const ABOVE: [&str; 3] = ["usr/lib", "usr/local/lib", "etc"];
/// systemd.unit(5): what a unit's name can end in.
const KINDS: [&str; 11] = [
    ".service",
    ".socket",
    ".device",
    ".mount",
    ".automount",
    ".swap",
    ".target",
    ".path",
    ".timer",
    ".slice",
    ".scope",
];

/// The units of one manager by name, each with the path of its file; masked ones and other names of units are left out.
type Units = BTreeMap<String, String>;

pub(super) fn apply(tree: &mut Tree, is_left_out: impl Fn(&str) -> bool) -> Result<(), EffectError> {
    if tree.get(MANAGER).is_none() {
        return Ok(());
    }
    for (of, presets) in [("system", "systemd/system-preset"), ("user", "systemd/user-preset")] {
        let presets = Presets::of(tree, presets)?;
        let disabled = disabled(tree, of, &presets)?;
        tree.retain(|path| !disabled.contains(path));
        for (path, target) in links(tree, of, &presets)? {
            if !is_left_out(&path) {
                add_link(tree, &path, &target, EFFECT);
            }
        }
    }
    Ok(())
}

/// The links of packages that enable what presets disable: to a unit, or under its name or that of its template.
fn disabled(tree: &Tree, of: &str, presets: &Presets) -> Result<BTreeSet<String>, EffectError> {
    let units = units(tree, of);
    let mut waiting: Vec<String> =
        units.keys().filter(|unit| *presets.answer(unit) == Answer::Disable).cloned().collect();
    let mut marked = BTreeSet::new();
    while let Some(unit) = waiting.pop() {
        let Some(path) = units.get(&unit).filter(|_| !marked.contains(&unit)) else { continue };
        // Units that this one names are disabled with it; those that presets enable get their links again.
        waiting.extend(install(tree, of, &unit, path)?.also);
        marked.insert(unit);
    }
    let is_marked = |unit: &str| marked.contains(unit) || marked.contains(&install::template(unit));
    let directory = format!("etc/systemd/{of}");
    let links = tree.below(&directory).filter_map(|(path, node)| match &node.kind {
        Kind::Symlink(target) if *node.origin != *OF_RECIPE => Some((path, target)),
        _ => None,
    });
    // A link to nothing masks a unit, and enables none.
    let enables = links
        .filter(|(path, target)| target.as_str() != "/dev/null" && (is_marked(name(target)) || is_marked(name(path))));
    Ok(enables.map(|(path, _)| path.to_owned()).collect())
}

fn install(tree: &Tree, of: &str, unit: &str, path: &str) -> Result<Install, EffectError> {
    Install::of(&texts(tree, of, unit, path)).map_err(|reason| EffectError {
        effect: "units",
        path: format!("/{path}"),
        reason,
    })
}

/// Every link with its target.
fn links(tree: &Tree, of: &str, presets: &Presets) -> Result<BTreeMap<String, String>, EffectError> {
    let units = units(tree, of);
    let mut waiting: Vec<(String, Vec<String>)> = Vec::new();
    for unit in units.keys() {
        if let Answer::Enable(instances) = presets.answer(unit) {
            waiting.push((unit.clone(), instances.clone()));
        }
    }
    waiting.reverse();
    let mut done = BTreeSet::new();
    let mut links = BTreeMap::new();
    while let Some((unit, instances)) = waiting.pop() {
        let Some(path) = units.get(&unit).filter(|_| done.insert(unit.clone())) else { continue };
        let install = install(tree, of, &unit, path)?;
        // Units that this one names are enabled with it, whatever their preset says.
        waiting.extend(install.also.iter().map(|also| (also.clone(), Vec::new())));
        let target = format!("/{path}");
        for link in install.links(&unit, &instances).map_err(|reason| EffectError {
            effect: "units",
            path: target.clone(),
            reason,
        })? {
            links.entry(format!("etc/systemd/{of}/{link}")).or_insert_with(|| target.clone());
        }
    }
    Ok(links)
}

fn units(tree: &Tree, of: &str) -> Units {
    let mut units = Units::new();
    for above in ABOVE {
        let directory = format!("{above}/systemd/{of}");
        for (unit, node) in tree.children(&directory).filter(|(unit, _)| KINDS.iter().any(|kind| unit.ends_with(kind)))
        {
            let path = format!("{directory}/{unit}");
            let is_unit = match &node.kind {
                Kind::File { content, .. } => !content.is_empty(),
                // A link to a file of this name stands for it; any other is an alias, or masks the unit.
                Kind::Symlink(target) => {
                    name(target) == unit
                        && tree.follow(&path).is_some_and(|(_, node)| matches!(node.kind, Kind::File { .. }))
                }
                _ => false,
            };
            // What is masked or another's name in a place of higher rank is so altogether.
            match is_unit {
                true => units.insert(unit.to_owned(), path),
                false => units.remove(unit),
            };
        }
    }
    units
}

/// The unit's file, then what is dropped into it, by name.
fn texts(tree: &Tree, of: &str, unit: &str, path: &str) -> Vec<String> {
    let mut dropped = BTreeMap::new();
    for above in ABOVE {
        let directory = format!("{above}/systemd/{of}/{unit}.d");
        for (name, _) in tree.children(&directory).filter(|(name, _)| name.ends_with(".conf")) {
            dropped.insert(name.to_owned(), format!("{directory}/{name}"));
        }
    }
    let paths = std::iter::once(path.to_owned()).chain(dropped.into_values());
    let text = |path: String| {
        let path = tree.resolve(&path)?;
        Some(String::from_utf8_lossy(tree.file(&path)?).into_owned())
    };
    paths.filter_map(text).collect()
}
