//! What can be told from a script without knowing it: sections that debhelper added, calls of `update-alternatives`, and
//! scripts that never run when an image is made.

use std::collections::BTreeSet;

use crate::effects::Alternative;

/// What stands for a script, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) effects: BTreeSet<String>,
    pub(super) ignored: BTreeSet<String>,
}

impl Answer {
    pub(super) fn effect(name: &str) -> Self {
        Self { effects: BTreeSet::from([name.to_owned()]), ..Self::default() }
    }

    pub(super) fn ignored(reason: &str) -> Self {
        Self { ignored: BTreeSet::from([reason.to_owned()]), ..Self::default() }
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.effects.extend(other.effects);
        self.ignored.extend(other.ignored);
        self
    }
}

const NOTHING: &str = "it does nothing on a new system";
const SERVICES: &str = "no service manager runs in the guest";
const UPGRADES: &str = "it matters for upgrades only";

/// The answer to what is recognised, and what is left, without comments and empty lines.
pub(super) fn take_off(script: &str, text: &str) -> (Answer, String) {
    match script {
        "prerm" | "postrm" => (Answer::ignored("nothing is removed from an image"), String::new()),
        "config" => (Answer::ignored("no question is asked: defaults are taken"), String::new()),
        "triggers" => triggers(text),
        _ => maintainer_script(text),
    }
}

fn triggers(text: &str) -> (Answer, String) {
    let mut answer = Answer::default();
    let mut rest = String::new();
    for line in lines(text) {
        let mut words = line.split_whitespace();
        let (directive, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        answer = answer.and(match (directive, name) {
            ("activate" | "activate-noawait" | "activate-await", "ldconfig") => Answer::effect("loader-cache"),
            ("activate" | "activate-noawait" | "activate-await", "update-initramfs") => {
                Answer::ignored("the builder makes the initrd")
            }
            ("interest" | "interest-noawait" | "interest-await", _) => {
                Answer::ignored("it runs the package's own postinst")
            }
            _ => {
                rest += &format!("{line}\n");
                Answer::default()
            }
        });
    }
    (answer, rest)
}

fn maintainer_script(text: &str) -> (Answer, String) {
    let mut answer = Answer::default();
    let mut rest: Vec<String> = Vec::new();
    let mut section: Option<&str> = None;
    let text = text.replace("\\\n", " ");
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(tool) = trimmed.strip_prefix("# Automatically added by ") {
            if section.is_some() {
                return whole(&text);
            }
            section = Some(tool.split(['/', ' ']).next().unwrap_or(tool));
            continue;
        }
        if trimmed == "# End automatically added section" {
            section = None;
            continue;
        }
        match section.map(|tool| (tool, debhelper(tool))) {
            Some((_, Some(known))) => answer = answer.and(known),
            // A section that is not known stays, whole.
            _ => rest.push(trimmed.split_whitespace().collect::<Vec<_>>().join(" ")),
        }
    }
    // A section without an end would hide what follows.
    if section.is_some() {
        return whole(&text);
    }
    rest.retain(|line| !is_idle(line));
    if rest.iter().any(|line| line.contains("update-alternatives") && line.contains("--install"))
        && Alternative::of_script(&text).is_some()
    {
        rest.retain(|line| !(line.starts_with("update-alternatives") && line.contains("--install") && is_single(line)));
        answer = answer.and(Answer::effect("alternatives"));
    }
    let is_helper = |line: &String| line.starts_with("dpkg-maintscript-helper ") && is_single(line);
    if rest.iter().any(is_helper) {
        rest.retain(|line| !is_helper(line));
        answer = answer.and(Answer::ignored(UPGRADES));
    }
    // What held the calls, and now holds nothing.
    if rest.iter().all(|line| is_skeleton(line)) {
        rest.clear();
    }
    if rest.is_empty() && answer == Answer::default() {
        answer = Answer::ignored(NOTHING);
    }
    (answer, rest.iter().map(|line| format!("{line}\n")).collect())
}

/// Nothing of it recognised.
fn whole(text: &str) -> (Answer, String) {
    (Answer::default(), lines(text).map(|line| format!("{line}\n")).collect())
}

/// Whether a line is one command: nothing is piped, chained or substituted, but for `|| true` and what hides output.
fn is_single(line: &str) -> bool {
    let mut line = line;
    for harmless in ["|| true", "2>&1", "2>/dev/null", "2> /dev/null", ">/dev/null", "> /dev/null"] {
        line = line.strip_suffix(harmless).unwrap_or(line).trim_end();
    }
    !line.contains(['|', ';', '&', '>', '<', '`']) && !line.contains("$(")
}

/// What debhelper's programs add (debhelper(7), autoscripts/).
fn debhelper(tool: &str) -> Option<Answer> {
    Some(match tool {
        "dh_installsystemd" | "dh_installsystemduser" | "dh_installinit" | "dh_systemd_enable" | "dh_systemd_start" => {
            Answer::ignored(SERVICES)
        }
        "dh_installdeb" => Answer::ignored(UPGRADES),
        "dh_installtmpfiles" => Answer::effect("temporary-files"),
        "dh_installsysusers" => Answer::effect("accounts"),
        "dh_installalternatives" => Answer::effect("alternatives"),
        "dh_makeshlibs" => Answer::effect("loader-cache"),
        "dh_python3" | "dh_pypy3" => Answer::ignored("Python compiles what it runs"),
        "dh_installdebconf" => Answer::ignored("no question is asked: defaults are taken"),
        "dh_icons" | "dh_installmime" | "dh_fontconfig" => Answer::ignored("caches are left out"),
        "dh_installinitramfs" => Answer::ignored("the builder makes the initrd"),
        _ => return None,
    })
}

/// Lines that do nothing by themselves.
fn is_idle(line: &str) -> bool {
    line.is_empty()
        || line.starts_with('#')
        || matches!(line, "set -e" | "set -eu" | "set -u" | "exit 0" | "true" | ":")
}

/// Lines that only decide when something happens.
fn is_skeleton(line: &str) -> bool {
    is_condition(line) || matches!(line, "fi" | "esac" | ";;" | "case \"$1\" in" | "case $1 in") || is_case_label(line)
}

/// `if [ "$1" = "configure" ] || [ "$1" = upgrade ]; then`: tests of the first argument and nothing else.
fn is_condition(line: &str) -> bool {
    let tests = line.strip_prefix("if ").and_then(|rest| rest.strip_suffix("then"));
    let tests = tests.map(|tests| tests.trim_end().trim_end_matches(';'));
    tests.is_some_and(|tests| {
        tests.split("||").flat_map(|part| part.split("&&")).all(|test| {
            let word = test.trim().strip_prefix("[ \"$1\" = ").and_then(|rest| rest.strip_suffix(" ]"));
            word.is_some_and(|word| {
                let word = word.trim_matches(['"', '\'']);
                !word.is_empty() && word.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            })
        })
    })
}

/// `configure|abort-upgrade)`, `*)`, alone on its line.
fn is_case_label(line: &str) -> bool {
    let label = line.strip_suffix(')').map(|label| label.trim_start_matches('('));
    label.is_some_and(|label| {
        !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || b"-| *\"".contains(&c))
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> (Vec<String>, String) {
        let (answer, rest) = take_off("postinst", text);
        (answer.effects.into_iter().chain(answer.ignored).collect(), rest)
    }

    #[test]
    fn sections_of_debhelper_are_answered_by_the_program_that_added_them() {
        let text = "#!/bin/sh\nset -e\n# Automatically added by dh_installtmpfiles/13.24\nif true; then\n x\nfi\n# End automatically added section\n";
        assert_eq!(taken(text), (vec!["temporary-files".to_owned()], String::new()));
        let text = "# Automatically added by dh_unheard_of/1\nrm -rf /\n# End automatically added section\n";
        assert_eq!(taken(text), (Vec::new(), "rm -rf /\n".to_owned()));
    }

    #[test]
    fn alternatives_are_answered_where_their_words_are_plain() {
        let plain = "if [ \"$1\" = \"configure\" ]; then\n update-alternatives --install /usr/bin/a a /usr/bin/b 5 \\\n  --slave /c d /e\nfi\n";
        assert_eq!(taken(plain), (vec!["alternatives".to_owned()], String::new()));
        assert!(taken(&plain.replace("/usr/bin/b", "$b")).1.contains("update-alternatives"));
        assert!(!taken(&format!("{plain}mkdir /x\n")).1.is_empty());
    }

    #[test]
    fn what_is_left_does_not_depend_on_spaces_and_comments() {
        assert_eq!(taken("\t a  b\n\n# c\nset -e\nexit 0").1, taken("a b\n").1);
        assert_eq!(
            taken("case \"$1\" in\n configure|abort-upgrade)\n ;;\n *)\n ;;\nesac\n"),
            (vec![NOTHING.to_owned()], String::new())
        );
    }

    #[test]
    fn nothing_hides_behind_what_is_recognised() {
        let call = "update-alternatives --install /usr/bin/a a /usr/bin/b 5";
        assert!(taken(&format!("{call} && chmod u+s /usr/bin/x\n")).1.contains("chmod"));
        assert!(taken(&format!("{call} > /dev/null 2>&1 || true\n")).1.is_empty());
        assert!(taken("dpkg-maintscript-helper rm_conffile /etc/x -- \"$@\"; rm -rf /etc\n").1.contains("rm -rf"));
        assert!(taken("if [ \"$1\" = configure ] && adduser --system foo; then\nfi\n").1.contains("adduser"));
        assert!(taken("if [ \"$1\" = configure ] || [ \"$1\" = \"upgrade\" ]; then\nfi\n").1.is_empty());
        assert!(taken("# Automatically added by dh_installdeb/1\nx\nrm -rf /etc\n").1.contains("rm -rf"));
    }

    #[test]
    fn triggers_are_answered_by_what_they_start() {
        let (answer, rest) = take_off("triggers", "# Triggers\nactivate-noawait ldconfig\nactivate something\n");
        assert_eq!((answer, rest.as_str()), (Answer::effect("loader-cache"), "activate something\n"));
    }
}
