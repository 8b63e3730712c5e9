//! Users and groups as passwd(5) and group(5) list them.

use super::EffectError;
use crate::tree::Tree;

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::effects) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) gecos: String,
    pub(super) home: String,
    pub(super) shell: String,
    pub(super) login: Login,
}

/// How a login is kept out, where passwords have files of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::effects) enum Login {
    /// No password fits.
    #[default]
    NoPassword,
    /// systemd-sysusers locks the password too.
    Locked,
    /// `u!` of sysusers.d: the account has expired besides.
    Expired,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::effects) struct Group {
    pub(super) name: String,
    pub(super) gid: u32,
    pub(super) members: Vec<String>,
    pub(super) login: Login,
}

/// Both files, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::effects) struct Accounts {
    pub(super) users: Vec<User>,
    pub(super) groups: Vec<Group>,
}

impl Accounts {
    /// Reads the files of a tree; passwords in them are not kept.
    pub(in crate::effects) fn of(tree: &Tree) -> Result<Self, EffectError> {
        let users = lines(tree, "etc/passwd", user)?;
        let groups = lines(tree, "etc/group", group)?;
        Ok(Self { users, groups })
    }

    /// The number of a user.
    pub(in crate::effects) fn uid(&self, name: &str) -> Option<u32> {
        self.users.iter().find(|user| user.name == name).map(|user| user.uid)
    }

    /// The number of a group.
    pub(in crate::effects) fn gid(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid)
    }

    /// Whether neither a user nor a group has this number.
    pub(super) fn is_free(&self, id: u32) -> bool {
        !self.users.iter().any(|user| user.uid == id) && !self.groups.iter().any(|group| group.gid == id)
    }

    /// `/etc/passwd` and `/etc/group` with `*` for every password.
    pub(super) fn to_text(&self) -> (String, String) {
        let user = |user: &User| {
            let User { name, uid, gid, gecos, home, shell, login: _ } = user;
            format!("{name}:*:{uid}:{gid}:{gecos}:{home}:{shell}\n")
        };
        let group = |group: &Group| format!("{}:*:{}:{}\n", group.name, group.gid, group.members.join(","));
        (self.users.iter().map(user).collect(), self.groups.iter().map(group).collect())
    }
}

fn lines<T>(tree: &Tree, path: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, EffectError> {
    let text = String::from_utf8_lossy(tree.file(path).unwrap_or_default()).into_owned();
    let wrong = |line: &str| EffectError {
        effect: "accounts",
        path: format!("/{path}"),
        reason: format!("\"{}\" is no line of it", line.escape_debug()),
    };
    text.lines().filter(|line| !line.is_empty()).map(|line| read(line).ok_or_else(|| wrong(line))).collect()
}

fn user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, gecos, home, shell] = fields.as_slice() else {
        return None;
    };
    let [name, gecos, home, shell] = [name, gecos, home, shell].map(|field| (*field).to_owned());
    Some(User { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, gecos, home, shell, login: Login::default() })
}

fn group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields.as_slice() else {
        return None;
    };
    let members = members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Group { name: (*name).to_owned(), gid: gid.parse().ok()?, members, login: Login::default() })
}
