//! `/etc/passwd`, `/etc/group` and, where the passwd package is, `/etc/shadow` and `/etc/gshadow`.
//!
//! First the master files of base-passwd, as its `update-passwd` installs them on a new system; without that package,
//! root and nobody. Then what the packages' sysusers.d files ask for (`sysusers`), then the recipe's `[[user]]`. Every
//! password is `*`: nobody can log in.

mod sysusers;
mod table;

use spec::recipe::UserEntry;

use super::{EffectError, add_file};
use crate::tree::Tree;
pub(super) use table::{Accounts, Group, Login, User};

const EFFECT: &str = "the accounts effect";
const NOLOGIN: &str = "/usr/sbin/nologin";

const PASSWD: &str =
    "root:*:0:0:root:/root:/usr/sbin/nologin\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:*:0:\nnogroup:*:65534:\n";

pub(super) fn apply(tree: &mut Tree, users: &[UserEntry]) -> Result<(), EffectError> {
    let given = ["etc/passwd", "etc/group"].map(|path| tree.get(path).is_some());
    for (path, master, minimal) in [
        ("etc/passwd", "usr/share/base-passwd/passwd.master", PASSWD),
        ("etc/group", "usr/share/base-passwd/group.master", GROUP),
    ] {
        let content = tree.file(master).unwrap_or(minimal.as_bytes()).to_vec();
        add_file(tree, path, 0o644, content, EFFECT);
    }
    // A package that brings the file itself has said all there is to say.
    if given.contains(&true) && users.is_empty() {
        return Ok(());
    }
    let mut accounts = Accounts::of(tree)?;
    let before = accounts.clone();
    sysusers::apply(tree, &mut accounts)?;
    users.iter().try_for_each(|user| add_user(&mut accounts, user))?;
    if accounts != before {
        let (passwd, group) = accounts.to_text();
        super::replace_file(tree, "etc/passwd", 0o644, passwd.into_bytes(), EFFECT);
        super::replace_file(tree, "etc/group", 0o644, group.into_bytes(), EFFECT);
    }
    if tree.get("usr/share/base-passwd/passwd.master").is_some() || users.iter().any(|user| user.subordinate.is_some())
    {
        let ranges: String = users
            .iter()
            .filter_map(|user| user.subordinate.map(|range| format!("{}:{}:{}\n", user.name, range.first, range.count)))
            .collect();
        for path in ["etc/subuid", "etc/subgid"] {
            add_file(tree, path, 0o644, ranges.clone().into_bytes(), EFFECT);
        }
    }
    if tree.get("usr/sbin/pwconv").is_some() {
        hide_passwords(tree, &accounts);
    }
    Ok(())
}

/// The numbers of a user and a group of the tree, each given as a name or a number; `None` where one is unknown.
pub(crate) fn numbers(tree: &Tree, user: &str, group: &str) -> Option<(u32, u32)> {
    let accounts = Accounts::of(tree).ok()?;
    let uid = user.parse().ok().or_else(|| accounts.uid(user))?;
    Some((uid, group.parse().ok().or_else(|| accounts.gid(group))?))
}

/// Adds a user of the recipe, with a group of the same name and number unless another is named.
fn add_user(accounts: &mut Accounts, user: &UserEntry) -> Result<(), EffectError> {
    let refuse = |reason: String| EffectError { effect: "accounts", path: "[[user]]".to_owned(), reason };
    if accounts.users.iter().any(|known| known.name == user.name || known.uid == user.uid) {
        return Err(refuse(format!("there is a user \"{}\" or {} already", user.name, user.uid)));
    }
    let gid = match &user.group {
        Some(name) => accounts.gid(name).ok_or_else(|| refuse(format!("there is no group \"{name}\"")))?,
        None if accounts.groups.iter().any(|group| group.name == user.name || group.gid == user.uid) => {
            return Err(refuse(format!("there is a group \"{}\" or {} already: name one", user.name, user.uid)));
        }
        None => {
            let (name, login) = (user.name.clone(), Login::default());
            accounts.groups.push(Group { name, gid: user.uid, members: Vec::new(), login });
            user.uid
        }
    };
    for name in &user.groups {
        let group = accounts.groups.iter_mut().find(|group| group.name == *name);
        let group = group.ok_or_else(|| refuse(format!("there is no group \"{name}\"")))?;
        group.members.push(user.name.clone());
    }
    accounts.users.push(User {
        name: user.name.clone(),
        uid: user.uid,
        gid,
        gecos: String::new(),
        home: user.home.clone(),
        shell: user.shell.clone().unwrap_or_else(|| NOLOGIN.to_owned()),
        login: Login::default(),
    });
    Ok(())
}

/// What the passwd package's postinst does (`shadowconfig on`): passwords move to files of their own. The day of the last
/// change stays empty, which switches ageing off (shadow(5)): an image has no date.
fn hide_passwords(tree: &mut Tree, accounts: &Accounts) {
    let (passwd, group) = accounts.to_text();
    let hide = |text: &str| text.replace(":*:", ":x:").into_bytes();
    super::replace_file(tree, "etc/passwd", 0o644, hide(&passwd), EFFECT);
    super::replace_file(tree, "etc/group", 0o644, hide(&group), EFFECT);
    let user = |user: &User| match user.login {
        Login::NoPassword => format!("{}:*::0:99999:7:::\n", user.name),
        Login::Locked => format!("{}:!*:::::::\n", user.name),
        Login::Expired => format!("{}:!*::::::1:\n", user.name),
    };
    let group = |group: &Group| {
        let password = if group.login == Login::NoPassword { "*" } else { "!*" };
        format!("{}:{password}::{}\n", group.name, group.members.join(","))
    };
    let shadow: String = accounts.users.iter().map(user).collect();
    let gshadow: String = accounts.groups.iter().map(group).collect();
    let shadow_gid = accounts.gid("shadow").unwrap_or(0);
    for (path, text) in [("etc/shadow", shadow), ("etc/gshadow", gshadow)] {
        add_file(tree, path, 0o640, text.into_bytes(), EFFECT);
        super::set_owner(tree, path, 0, shadow_gid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    #[test]
    fn the_master_files_win_over_the_minimal_ones() {
        let mut tree = Tree::default();
        apply(&mut tree, &[]).unwrap();
        assert_eq!(tree.file("etc/passwd"), Some(PASSWD.as_bytes()));
        assert!(tree.get("etc/shadow").is_none() && tree.get("etc/subuid").is_none());

        let mut tree = Tree::default();
        let daemon = "daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n";
        tree.insert(
            "usr/share/base-passwd/passwd.master",
            Node::file(daemon.as_bytes().to_vec(), 0o644, "base-passwd"),
        );
        apply(&mut tree, &[]).unwrap();
        assert_eq!(tree.file("etc/passwd"), Some(daemon.as_bytes()));
        assert_eq!(tree.file("etc/group"), Some(GROUP.as_bytes()));
    }

    #[test]
    fn no_account_has_a_password() {
        for line in PASSWD.lines().chain(GROUP.lines()) {
            assert_eq!(line.split(':').nth(1), Some("*"), "{line}");
        }
    }

    #[test]
    fn with_the_passwd_package_passwords_have_files_of_their_own() {
        let mut tree = Tree::default();
        tree.insert("usr/sbin/pwconv", Node::file(Vec::new(), 0o755, "passwd"));
        let master = "root:*:0:\nshadow:*:42:\n";
        tree.insert("usr/share/base-passwd/group.master", Node::file(master.as_bytes().to_vec(), 0o644, "base-passwd"));
        apply(&mut tree, &[]).unwrap();
        assert!(tree.file("etc/passwd").unwrap().starts_with(b"root:x:0:0:"));
        let shadow = tree.get("etc/shadow").unwrap();
        assert_eq!((shadow.mode, shadow.uid, shadow.gid), (0o640, 0, 42));
        assert_eq!(tree.file("etc/shadow"), Some(b"root:*::0:99999:7:::\nnobody:*::0:99999:7:::\n".as_slice()));
        assert_eq!(tree.file("etc/gshadow"), Some(b"root:*::\nshadow:*::\n".as_slice()));
    }

    fn user(name: &str, uid: u32) -> UserEntry {
        let (home, groups) = ("/var/lib/x".to_owned(), vec!["root".to_owned()]);
        UserEntry { name: name.to_owned(), uid, group: None, groups, home, shell: None, subordinate: None }
    }

    #[test]
    fn users_of_the_recipe_come_last_and_clash_with_nobody() {
        let mut tree = Tree::default();
        let subordinate = "100000:65536".parse().ok();
        apply(&mut tree, &[UserEntry { subordinate, ..user("app", 1000) }]).unwrap();
        let passwd = String::from_utf8(tree.file("etc/passwd").unwrap().to_vec()).unwrap();
        assert!(passwd.ends_with("\napp:*:1000:1000::/var/lib/x:/usr/sbin/nologin\n"), "{passwd}");
        assert_eq!(tree.file("etc/group"), Some(b"root:*:0:app\nnogroup:*:65534:\napp:*:1000:\n".as_slice()));
        assert_eq!(tree.file("etc/subuid"), Some(b"app:100000:65536\n".as_slice()));
        for twin in [user("root", 5), user("b", 0), user("nogroup", 6)] {
            assert!(apply(&mut Tree::default(), &[twin]).is_err());
        }
    }
}
