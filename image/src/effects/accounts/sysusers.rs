//! sysusers.d(5): the system users and groups that packages declare, numbered as `systemd-sysusers` numbers them.

use std::ops::RangeInclusive;

use super::{Accounts, EffectError, Group, Login, NOLOGIN, User};
use crate::effects::words;
use crate::tree::Tree;

/// The highest number for a system account that names none (systemd's SYSTEM_UID_MAX, Debian Policy 9.2.2).
const HIGHEST: u32 = 999;

/// A declared user or group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    /// A number, or what is to be found out.
    id: Id,
    gecos: String,
    home: String,
    shell: String,
    login: Login,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    Any,
    Fixed(u32),
    /// A user's own number (or any), and the group that is there already.
    InGroup(Option<u32>, String),
}

#[derive(Default)]
struct Declared {
    users: Vec<Wanted>,
    groups: Vec<Wanted>,
    /// User and group.
    members: Vec<(String, String)>,
    /// Where numbers are taken from, instead of those for system accounts.
    ranges: Vec<RangeInclusive<u32>>,
}

pub(super) fn apply(tree: &Tree, accounts: &mut Accounts) -> Result<(), EffectError> {
    let mut declared = Declared::default();
    for (path, text) in crate::effects::configuration(tree, "sysusers.d", ".conf") {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let refuse = |reason: &str| EffectError {
                effect: "sysusers",
                path: path.clone(),
                reason: format!("\"{line}\" {reason}"),
            };
            let words = words(line).ok_or_else(|| refuse("has an open quote"))?;
            declared.add(&words).map_err(|reason| refuse(&reason))?;
        }
    }
    declared.complete();
    let refuse = |reason: String| EffectError { effect: "sysusers", path: "sysusers.d".to_owned(), reason };
    let ranges = Ranges::of(declared.ranges);
    // Groups before users: a user without a number takes that of the group of its name.
    declared.groups.iter().try_for_each(|group| accounts.add_group(group, &ranges).map(drop)).map_err(refuse)?;
    declared.users.iter().try_for_each(|user| accounts.add_user(user, &ranges)).map_err(refuse)?;
    for (user, group) in declared.members {
        if let Some(group) = accounts.groups.iter_mut().find(|known| known.name == group)
            && !group.members.contains(&user)
        {
            group.members.push(user);
            group.members.sort();
        }
    }
    Ok(())
}

impl Declared {
    fn add(&mut self, words: &[String]) -> Result<(), String> {
        let word = |index: usize| words.get(index).map(String::as_str).filter(|word| *word != "-");
        let name = word(1).unwrap_or_default();
        let kind = words.first().map(String::as_str).unwrap_or_default();
        if kind == "r" {
            self.ranges.push(range(word(2).unwrap_or_default()).filter(|_| name.is_empty()).ok_or("names no range")?);
            return Ok(());
        }
        if !is_name(name) || !matches!(kind, "u" | "u!" | "g" | "m") {
            return Err("is not understood".to_owned());
        }
        if kind == "m" {
            let group = word(2).filter(|group| is_name(group)).ok_or("names no group")?;
            self.members.push((name.to_owned(), group.to_owned()));
            return Ok(());
        }
        let wanted = Wanted {
            name: name.to_owned(),
            id: id(word(2))?,
            gecos: word(3).unwrap_or_default().to_owned(),
            home: word(4).unwrap_or("/").to_owned(),
            shell: word(5).unwrap_or(if name == "root" { "/bin/sh" } else { NOLOGIN }).to_owned(),
            login: if kind == "u!" { Login::Expired } else { Login::Locked },
        };
        // As systemd's valid_gecos and valid_home refuse them: the line of such an account would be another's.
        let unfit = |field: &str| field.contains(|c: char| c == ':' || c.is_control());
        if [&wanted.gecos, &wanted.home, &wanted.shell].iter().any(|field| unfit(field)) {
            return Err("has what no line of /etc/passwd can hold".to_owned());
        }
        let list = if kind == "g" { &mut self.groups } else { &mut self.users };
        // The first line for a name counts.
        if !list.iter().any(|known| known.name == wanted.name) {
            list.push(wanted);
        }
        Ok(())
    }

    /// A membership declares its user and group, where nothing else does.
    fn complete(&mut self) {
        let wanted = |name: &String| Wanted {
            name: name.clone(),
            id: Id::Any,
            gecos: String::new(),
            home: "/".to_owned(),
            shell: NOLOGIN.to_owned(),
            login: Login::Locked,
        };
        for (user, group) in &self.members {
            if !self.users.iter().any(|known| known.name == *user) {
                self.users.push(wanted(user));
            }
            if !self.groups.iter().any(|known| known.name == *group) {
                self.groups.push(wanted(group));
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c))
}

fn id(word: Option<&str>) -> Result<Id, String> {
    let Some(word) = word else {
        return Ok(Id::Any);
    };
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("has \"{text}\" where a number belongs"));
    match word.split_once(':') {
        None => Ok(Id::Fixed(number(word)?)),
        Some(("-", group)) => Ok(Id::InGroup(None, group.to_owned())),
        Some((uid, group)) => Ok(Id::InGroup(Some(number(uid)?), group.to_owned())),
    }
}

/// `FIRST-LAST`, or one number.
fn range(text: &str) -> Option<RangeInclusive<u32>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty()).then_some(range)
}

/// Where numbers are taken from.
struct Ranges(Vec<RangeInclusive<u32>>);

impl Ranges {
    fn of(declared: Vec<RangeInclusive<u32>>) -> Self {
        Self(if declared.is_empty() { vec![1..=HIGHEST] } else { declared })
    }

    /// The highest number that is free. Two are nobody's: in 16 and in 32 bits they mean "none" (chown(2)).
    fn free(&self, accounts: &Accounts) -> Result<u32, String> {
        let is_free = |id: &u32| accounts.is_free(*id) && ![0xffff, u32::MAX].contains(id);
        let of_each = self.0.iter().filter_map(|range| range.clone().rev().find(is_free));
        of_each.max().ok_or_else(|| "no number for an account is left".to_owned())
    }
}

impl Accounts {
    fn add_group(&mut self, wanted: &Wanted, ranges: &Ranges) -> Result<u32, String> {
        if let Some(gid) = self.gid(&wanted.name) {
            return Ok(gid);
        }
        let asked = match wanted.id {
            Id::Fixed(gid) if !self.groups.iter().any(|group| group.gid == gid) => Some(gid),
            _ => None,
        };
        // A user of that name lends its number.
        let lent = self.uid(&wanted.name).filter(|uid| !self.groups.iter().any(|group| group.gid == *uid));
        let gid = asked.or(lent).map_or_else(|| ranges.free(self), Ok)?;
        self.groups.push(Group { name: wanted.name.clone(), gid, members: Vec::new(), login: Login::Locked });
        Ok(gid)
    }

    fn add_user(&mut self, wanted: &Wanted, ranges: &Ranges) -> Result<(), String> {
        if self.uid(&wanted.name).is_some() {
            return Ok(());
        }
        let (asked, gid) = match &wanted.id {
            Id::InGroup(uid, group) => {
                let gid = group.parse().ok().or_else(|| self.gid(group));
                (*uid, gid.ok_or_else(|| format!("user \"{}\" names the unknown group \"{group}\"", wanted.name))?)
            }
            Id::Fixed(uid) => (Some(*uid), self.add_group(wanted, ranges)?),
            Id::Any => {
                let gid = self.add_group(wanted, ranges)?;
                (Some(gid), gid)
            }
        };
        let asked = asked.filter(|uid| !self.users.iter().any(|user| user.uid == *uid));
        let uid = asked.map_or_else(|| ranges.free(self), Ok)?;
        let Wanted { name, gecos, home, shell, login, .. } = wanted.clone();
        self.users.push(User { name, uid, gid, gecos, home, shell, login });
        Ok(())
    }
}

/// What `systemd-sysusers` makes of the same files is compared in `image/tests/effects.rs`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn accounts(lines: &str) -> Result<(String, String), EffectError> {
        let mut tree = Tree::default();
        tree.insert("usr/lib/sysusers.d/a.conf", Node::file(lines.as_bytes().to_vec(), 0o644, "t"));
        for (path, text) in [("etc/passwd", "root:*:0:0::/:/x\n"), ("etc/group", "root:*:0:\n")] {
            tree.insert(path, Node::file(text.as_bytes().to_vec(), 0o644, "t"));
        }
        let mut accounts = Accounts::of(&tree)?;
        apply(&tree, &mut accounts)?;
        Ok(accounts.to_text())
    }

    #[test]
    fn a_fixed_number_is_kept_and_others_count_down() {
        let (passwd, group) = accounts("u a - \"A user\" /var/a\ng b 999\nu c 7\nm c b\nu root 0\n").unwrap();
        assert_eq!(
            passwd,
            "root:*:0:0::/:/x\na:*:998:998:A user:/var/a:/usr/sbin/nologin\nc:*:7:7::/:/usr/sbin/nologin\n"
        );
        assert_eq!(group, "root:*:0:\nb:*:999:c\na:*:998:\nc:*:7:\n");
    }

    #[test]
    fn numbers_come_from_the_ranges_that_are_named() {
        let (passwd, _) = accounts("r - 10-20\nr - 500\nr - 30-40\nu a -\nu b -\ng c 40\nu d -\n").unwrap();
        let uids: Vec<&str> = passwd.lines().filter_map(|line| line.split(':').nth(2)).collect();
        assert_eq!(uids, ["0", "500", "39", "38"]);
        assert!(accounts("r - 7\nu a -\nu b -\n").is_err(), "only one is left");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "r",
            "r -",
            "r a 5",
            "r - 9-5",
            "r - x",
            "x a",
            "u",
            "u a b",
            "u a -:nogroup",
            "m a",
            "m a b:c",
            "u a - \"open",
            "u a - \"b:c\"",
            "u a - b c:d",
        ] {
            assert!(accounts(bad).is_err(), "{bad}");
        }
    }
}
