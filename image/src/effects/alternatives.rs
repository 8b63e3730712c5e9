//! Alternatives: the links of `update-alternatives` and its state files, from the calls in the packages' postinst scripts.
//!
//! Only calls that are plain words are taken (`--install LINK NAME PATH PRIORITY [--slave LINK NAME PATH]...`). A script
//! whose calls depend on variables is not answered by this effect, and `scripts` says so.

use std::collections::BTreeMap;

use super::{add_directory, add_file, add_link};
use crate::deb::Package;
use crate::tree::{Tree, parent};

const EFFECT: &str = "the alternatives effect";

/// A link that an alternative sets: where it is, what it is called, where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    link: String,
    name: String,
    path: String,
}

/// One `--install`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    master: Link,
    priority: i32,
    slaves: Vec<Link>,
}

impl Link {
    fn of(link: &str, name: &str, path: &str) -> Option<Self> {
        let absolute = |text: &str| text.strip_prefix('/').map(str::to_owned);
        Some(Self { link: absolute(link)?, name: name.to_owned(), path: absolute(path)? })
    }
}

impl Alternative {
    /// The calls of a script; `None` where one of them is not made of plain words.
    pub fn of_script(script: &str) -> Option<Vec<Self>> {
        let joined = script.replace("\\\n", " ");
        let mut found = Vec::new();
        for line in joined.lines() {
            let Some((before, call)) = line.split_once("update-alternatives ") else {
                continue;
            };
            if before.trim_start().starts_with('#') || !call.contains("--install") {
                continue;
            }
            found.push(Self::of_call(call)?);
        }
        Some(found)
    }

    fn of_call(call: &str) -> Option<Self> {
        let call = call.split(['|', ';', '>', '&']).next()?;
        if call.contains(['$', '`', '*']) {
            return None;
        }
        let words = super::words(call)?;
        let words: Vec<&str> = words.iter().map(String::as_str).skip_while(|word| *word != "--install").collect();
        let [_, link, name, path, priority, rest @ ..] = words.as_slice() else {
            return None;
        };
        let mut alternative =
            Self { master: Link::of(link, name, path)?, priority: priority.parse().ok()?, slaves: Vec::new() };
        for slave in rest.chunks(4) {
            match slave {
                ["--slave", link, name, path] => alternative.slaves.push(Link::of(link, name, path)?),
                _ => return None,
            }
        }
        Some(alternative)
    }
}

pub(super) fn apply(tree: &mut Tree, packages: &[Package]) {
    let mut groups: BTreeMap<String, Vec<Alternative>> = BTreeMap::new();
    for package in packages {
        let script = package.control.scripts.get("postinst").map_or("", String::as_str);
        for alternative in Alternative::of_script(script).unwrap_or_default() {
            // What the recipe left out is no choice.
            if tree.resolve(&alternative.master.path).is_some() {
                groups.entry(alternative.master.name.clone()).or_default().push(alternative);
            }
        }
    }
    groups.into_iter().for_each(|(name, choices)| install(tree, &name, choices));
}

fn install(tree: &mut Tree, name: &str, mut choices: Vec<Alternative>) {
    // The highest priority wins; of equal ones the first that was installed, and packages come in the order of names.
    let Some(best) = choices.iter().rev().max_by_key(|choice| choice.priority).cloned() else {
        return;
    };
    choices.sort_by(|a, b| a.master.path.cmp(&b.master.path));
    add_file(tree, &format!("var/lib/dpkg/alternatives/{name}"), 0o644, state(&choices).into_bytes(), EFFECT);
    add_directory(tree, "etc/alternatives", 0o755, EFFECT);
    let slaves: Vec<&Link> = best.slaves.iter().filter(|slave| tree.resolve(&slave.path).is_some()).collect();
    for Link { link, name, path } in [&best.master].into_iter().chain(slaves.clone()) {
        add_link(tree, &format!("etc/alternatives/{name}"), &format!("/{path}"), EFFECT);
        let place = parent(link)
            .and_then(|above| tree.resolve(above))
            .map(|above| format!("{above}/{}", crate::tree::name(link)));
        // As update-alternatives: a slave's link is made only where its directory is.
        if let Some(place) = place {
            add_link(tree, &place, &format!("/etc/alternatives/{name}"), EFFECT);
        }
    }
}

/// The state file of one name (update-alternatives(1), "Files"; alternative_save in dpkg).
fn state(choices: &[Alternative]) -> String {
    let mut slaves: BTreeMap<&str, &str> = BTreeMap::new();
    for slave in choices.iter().flat_map(|choice| &choice.slaves) {
        slaves.entry(&slave.name).or_insert(&slave.link);
    }
    let master = choices.first().map_or("", |choice| choice.master.link.as_str());
    let mut text = format!("auto\n/{master}\n");
    text.extend(slaves.iter().map(|(name, link)| format!("{name}\n/{link}\n")));
    text.push('\n');
    for choice in choices {
        text += &format!("/{}\n{}\n", choice.master.path, choice.priority);
        for name in slaves.keys() {
            let path = choice.slaves.iter().find(|slave| slave.name == *name);
            text += &path.map_or_else(|| "\n".to_owned(), |slave| format!("/{}\n", slave.path));
        }
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_plain_words_are_read() {
        let script = "if true; then\n\tupdate-alternatives --quiet \\\n --install /usr/bin/awk awk /usr/bin/mawk 5 \\\n --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz || true\nfi\n";
        let found = Alternative::of_script(script).unwrap();
        assert_eq!((found[0].master.path.as_str(), found[0].priority, found[0].slaves.len()), ("usr/bin/mawk", 5, 1));
        for not_plain in [
            "update-alternatives --install $a b /c 1",
            "update-alternatives --install /a b /c",
            "update-alternatives --install /a b /c 1 --slave /d",
        ] {
            assert_eq!(Alternative::of_script(not_plain), None, "{not_plain}");
        }
        assert_eq!(
            Alternative::of_script("# update-alternatives --install x\nupdate-alternatives --auto a\n"),
            Some(vec![])
        );
    }
}
