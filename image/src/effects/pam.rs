//! `/etc/pam.d/common-*`: what `pam-auth-update` (Linux-PAM 1.7, libpam-runtime) writes on a new system, from the profiles in
//! `/usr/share/pam-configs` and the templates in `/usr/share/pam`; and in `/var/lib/pam` what it would compare with later.

use std::collections::BTreeMap;

use super::{add_directory, add_file};
use crate::tree::{Kind, Tree};

const EFFECT: &str = "the pam effect";
const PROFILES: &str = "usr/share/pam-configs";
const TYPES: [&str; 5] = ["auth", "account", "password", "session", "session-noninteractive"];
/// A profile that has one of these is of no use any more (`@invalid_modules`).
const INVALID: &str = "pam_tally";
/// Where the lines of profiles go, and where the template goes on.
const BLOCKS: [(&str, &str, &str); 2] = [
    (
        "Primary",
        "# here are the per-package modules (the \"Primary\" block)",
        "# here's the fallback if no module succeeds",
    ),
    (
        "Additional",
        "# and here are more per-package modules (the \"Additional\" block)",
        "# end of pam-auth-update config",
    ),
];
/// What stands in a primary block without modules.
const PERMIT: &str = "[default=1]\t\t\tpam_permit.so";

/// A file of `/usr/share/pam-configs`: its fields by name.
struct Profile {
    name: String,
    fields: BTreeMap<String, String>,
}

pub(super) fn apply(tree: &mut Tree) {
    let profiles = enabled(profiles(tree));
    let templates: Vec<String> = TYPES
        .iter()
        .filter_map(|kind| tree.file(&format!("usr/share/pam/common-{kind}")))
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect();
    if profiles.is_empty() || templates.len() != TYPES.len() {
        return;
    }
    add_directory(tree, "etc/pam.d", 0o755, EFFECT);
    add_directory(tree, "var/lib/pam", 0o755, EFFECT);
    for (kind, template) in TYPES.into_iter().zip(templates) {
        let Some(text) = filled(&template, kind, &profiles) else { continue };
        add_file(tree, &format!("etc/pam.d/common-{kind}"), 0o644, text.into_bytes(), EFFECT);
        add_file(tree, &format!("var/lib/pam/{kind}"), 0o644, saved(kind, &profiles).into_bytes(), EFFECT);
    }
    let seen: String = self::profiles(tree).iter().map(|profile| format!("{}\n", profile.name)).collect();
    add_file(tree, "var/lib/pam/seen", 0o644, seen.into_bytes(), EFFECT);
}

/// All profiles, the highest priority first, of equal ones the last name.
fn profiles(tree: &Tree) -> Vec<Profile> {
    let of_file = |(name, node): (&str, &crate::tree::Node)| match &node.kind {
        Kind::File { content, .. } if !name.ends_with('~') => {
            Profile::parse(name, &String::from_utf8_lossy(content.bytes()))
        }
        _ => None,
    };
    let mut all: Vec<Profile> = tree.children(PROFILES).filter_map(of_file).collect();
    all.sort_by(|a, b| b.priority().cmp(&a.priority()).then_with(|| b.name.cmp(&a.name)));
    all
}

/// Those that are on without a question, less those that one of a higher priority rules out.
fn enabled(profiles: Vec<Profile>) -> Vec<Profile> {
    let mut on: Vec<Profile> = profiles.into_iter().filter(|profile| profile.field("Default") == "yes").collect();
    let mut index = 0;
    while let Some(conflicts) = on.get(index).map(|profile| profile.field("Conflicts").to_owned()) {
        on.retain(|other| !conflicts.split(", ").any(|name| name == other.name));
        index += 1;
    }
    on
}

impl Profile {
    /// Reads a profile; `None` for one that names a module which PAM does not have any more.
    fn parse(name: &str, text: &str) -> Option<Self> {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            match field(line) {
                Some((key, value)) => {
                    current = key.strip_suffix("-Final").unwrap_or(key).to_owned();
                    fields.insert(current.clone(), value.to_owned());
                }
                None => {
                    let value = fields.entry(current.clone()).or_default();
                    if !line.trim().is_empty() {
                        *value = format!("{value}\n{}", line.trim()).trim_start().to_owned();
                    }
                }
            }
        }
        let usable = !fields.values().any(|value| value.contains(INVALID));
        usable.then(|| Self { name: name.to_owned(), fields })
    }

    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn priority(&self) -> i64 {
        self.field("Priority").parse().unwrap_or(0)
    }

    /// The field of a type; those for sessions without a terminal are those of sessions, unless the profile is for terminals.
    fn of_type(&self, kind: &str, ending: &str) -> &str {
        let kind = match kind {
            "session-noninteractive" if self.field("Session-Interactive-Only") == "yes" => return "",
            "session-noninteractive" => "session",
            other => other,
        };
        let (first, rest) = kind.split_at(1);
        self.field(&format!("{}{rest}{ending}", first.to_uppercase()))
    }

    /// The lines that it adds at a place of the stack.
    fn lines(&self, kind: &str, is_first: bool) -> &str {
        let initial = self.of_type(kind, "-Initial");
        if is_first && !initial.is_empty() { initial } else { self.of_type(kind, "") }
    }
}

/// `NAME: VALUE`, as pam-auth-update's `^(\S+):\s+(.*)\s*$`: a name at the start of the line, and a blank behind the colon.
fn field(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let is_name = !key.is_empty() && !key.contains(char::is_whitespace);
    // A line ends with a blank: its own end.
    (is_name && (value.is_empty() || value.starts_with(char::is_whitespace))).then_some((key, value.trim_start()))
}

/// What the profiles of one block add for one type.
fn block<'a>(kind: &str, block: &str, profiles: &'a [Profile]) -> Vec<(&'a Profile, &'a str)> {
    let of_block = profiles.iter().filter(|profile| profile.of_type(kind, "-Type") == block);
    of_block.enumerate().map(|(index, profile)| (profile, profile.lines(kind, index == 0))).collect()
}

/// The template with the lines of the profiles; `None` where its marks are not there.
fn filled(template: &str, kind: &str, profiles: &[Profile]) -> Option<String> {
    let word = kind.strip_suffix("-noninteractive").unwrap_or(kind);
    let mut out = String::new();
    let mut rest = template;
    for (name, mark, goes_on) in BLOCKS {
        let at = rest.find(mark)?;
        let (before, after) = rest.split_at(at + rest.get(at..)?.find('\n')? + 1);
        out += before;
        let parts = block(kind, name, profiles);
        let lines: Vec<&str> = parts.iter().flat_map(|(_, lines)| lines.lines()).collect();
        if lines.is_empty() && name == "Primary" {
            out += &format!("{word}\t{PERMIT}\n");
        }
        // `end` is a jump over what is left of the block; the last of the additional ones has nothing behind it.
        let behind = usize::from(name == "Primary");
        for (index, line) in lines.iter().enumerate() {
            out += &format!("{word}\t{}\n", resolved(line, (lines.len() - index + behind).saturating_sub(1)));
        }
        rest = after.get(after.find(goes_on)?..)?;
    }
    Some(out + rest)
}

/// `CONTROL MODULE OPTION...` with the jump in its control, and its options one blank apart.
fn resolved(line: &str, jump: usize) -> String {
    let control_end = if line.starts_with('[') { line.find(']').map_or(0, |end| end + 1) } else { 0 };
    let module = |text: &str| text.len() - text.trim_start().len();
    let rest = line.get(control_end..).unwrap_or_default();
    // Control words without brackets are a part of the rest, with their module behind them.
    let words = if control_end == 0 { 2 } else { 1 };
    let mut end = 0;
    for _ in 0..words {
        let tail = rest.get(end..).unwrap_or_default();
        let skip = module(tail);
        let word = tail.get(skip..).unwrap_or_default();
        end += skip + word.find(char::is_whitespace).unwrap_or(word.len());
    }
    let head = line.get(..control_end + end).unwrap_or(line).replace("end", &jump.to_string());
    let options: Vec<&str> = rest.get(end..).unwrap_or_default().split_whitespace().collect();
    format!("{head} {}", options.join(" "))
}

/// What is kept of a type: the profiles' own lines, primary ones first.
fn saved(kind: &str, profiles: &[Profile]) -> String {
    let primary = block(kind, "Primary", profiles);
    let mut text = if primary.is_empty() { format!("Module: null\n{PERMIT}\n") } else { String::new() };
    for (profile, lines) in primary.into_iter().chain(block(kind, "Additional", profiles)) {
        text += &format!("Module: {}\n{lines}\n", profile.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    fn tree(profiles: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for kind in TYPES {
            let template = format!(
                "# {kind}\n{}\n$x\n{}\n{kind}\trequisite\tpam_deny.so\n{}\n$y\n{}\n",
                BLOCKS[0].1, BLOCKS[0].2, BLOCKS[1].1, BLOCKS[1].2
            );
            tree.insert(&format!("usr/share/pam/common-{kind}"), Node::file(template.into_bytes(), 0o644, "t"));
        }
        for (name, text) in profiles {
            tree.insert(&format!("{PROFILES}/{name}"), Node::file(text.as_bytes().to_vec(), 0o644, "t"));
        }
        apply(&mut tree);
        tree
    }

    fn common(tree: &Tree, kind: &str) -> String {
        String::from_utf8(tree.file(&format!("etc/pam.d/common-{kind}")).unwrap().to_vec()).unwrap()
    }

    const UNIX: &str = "Name: Unix\nDefault: yes\nPriority: 256\nAuth-Type: Primary\nAuth:\n\t[success=end default=ignore]\tpam_unix.so  nullok try_first_pass\nAuth-Initial:\n\t[success=end default=ignore]\tpam_unix.so nullok\nSession-Type: Additional\nSession:\n\trequired\tpam_unix.so\n";

    #[test]
    fn jumps_lead_over_what_is_left_of_the_block() {
        let krb = "Name: K\nDefault: yes\nPriority: 704\nAuth-Type: Primary\nAuth:\n\t[success=end default=ignore]\tpam_krb5.so minimum_uid=1000\n";
        let tree = tree(&[("unix", UNIX), ("krb5", krb)]);
        let auth = common(&tree, "auth");
        let at = auth.find("auth\t[success=2 default=ignore]\tpam_krb5.so minimum_uid=1000\n").unwrap();
        assert!(auth[at..].contains("auth\t[success=1 default=ignore]\tpam_unix.so nullok try_first_pass\n"), "{auth}");
        assert!(!auth.contains("$x"));
        assert_eq!(tree.file("var/lib/pam/seen"), Some(b"krb5\nunix\n".as_slice()));
        assert!(common(&tree, "account").contains("account\t[default=1]\t\t\tpam_permit.so\n"));
        assert!(common(&tree, "session-noninteractive").contains("session\trequired\tpam_unix.so \n"));
    }

    #[test]
    fn a_profile_is_off_by_its_default_its_rival_or_its_module() {
        let more = |name: &str, text: &str| {
            format!("Name: {name}\nPriority: 300\nAuth-Type: Primary\nAuth: required {text}.so\n")
        };
        let off = more("off", "pam_off");
        let old = format!("Default: yes\n{}", more("old", "pam_tally")).replace("Auth: ", "Auth:\n\t");
        let rival = format!("Default: yes\nConflicts: unix, x\n{}", more("rival", "pam_rival"));
        let tree = tree(&[("unix", UNIX), ("off", &off), ("old", &old), ("rival", &rival)]);
        let auth = common(&tree, "auth");
        assert!(auth.contains("pam_rival.so") && !auth.contains("pam_unix"), "{auth}");
        assert!(!auth.contains("pam_off") && !auth.contains("pam_tally"), "{auth}");
    }

    #[test]
    fn without_profiles_or_templates_nothing_is_made() {
        let mut bare = Tree::default();
        bare.insert(&format!("{PROFILES}/unix"), Node::file(UNIX.as_bytes().to_vec(), 0o644, "t"));
        apply(&mut bare);
        assert!(bare.get("etc/pam.d").is_none());
        assert!(tree(&[]).get("etc/pam.d").is_none());
    }
}
